// A browser starts no worker from a file. There the search runs in a hidden frame instead, which answers as a worker would.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc = `<script>
        var postMessage = data => parent.dispatchEvent(new MessageEvent("from-frame", { data }))
        var importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise(done => {
          const script = document.createElement("script")
          script.src = url
          script.onload = done
          document.body.appendChild(script)
        })), Promise.resolve())
      </script><body><script src="${url}"></script></body>`
      window.addEventListener("from-frame", event => {
        this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      this.frame.onload = () => {
        this.loaded = true
        this.waiting.splice(0).forEach(data => this.send(data))
      }
      document.body.appendChild(this.frame)
    }
    send(data) {
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }
    postMessage(data) {
      this.loaded ? this.send(data) : this.waiting.push(data)
    }
    terminate() {
      this.frame.remove()
    }
  }
}
