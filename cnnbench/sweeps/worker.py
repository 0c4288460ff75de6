"""`python -m cnnbench.sweeps.worker`: runs commands for another process of cnnbench; `processes.Worker` starts it.

Each line on stdin is a request in JSON. Each answer is a line to the file descriptor in CNNBENCH_ANSWERS. When stdin
closes, the parent process has ended: a running command then saves and stops.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any

from cnnbench.config import commands, parsing
from cnnbench.runtime import execute
from cnnbench.utils import exit_codes
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.fast_start import keep_freed_memory
from cnnbench.utils.terminal import safe_streams


@safe_streams()
def main() -> int:
    descriptor = int(os.environ.pop("CNNBENCH_ANSWERS"))
    os.set_inheritable(descriptor, False)
    requests: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(requests, busy), daemon=True).start()
    code = exit_codes.DONE
    keep_freed_memory()
    with os.fdopen(descriptor, "w") as answers:
        while (line := requests.get()) is not None:
            busy.set()
            answer = run_request(json.loads(line))
            busy.clear()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
            code = answer["code"]
            if "RANK" in os.environ:  # one of several ranks of a training: they start and stop together
                break
    return code


def _read(requests: "queue.Queue[str | None]", busy: threading.Event) -> None:
    for line in sys.stdin:
        requests.put(line)
    requests.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def run_request(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command with a configuration. A job of a sweep writes to its own log and records how it ends."""
    cfg = parsing.from_plain(commands.SCHEMAS[request["command"]], request["config"])
    if "job" in request:
        from cnnbench.sweeps.job_runner import run_job
        from cnnbench.sweeps.jobs import SweepJob

        job = SweepJob(**request["job"])
        job.file.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as console:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(console.fileno(), stream.fileno())
        return {"code": run_job(job, cfg)}
    error, mistake, code = "", False, exit_codes.FAILED
    try:
        code = execute.load_command(request["command"])(cfg)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except (UserError, RunError) as caught:
        error, mistake = str(caught), isinstance(caught, UserError)
        code = exit_codes.MISTAKE if mistake else exit_codes.FAILED
    except Exception:
        error = traceback.format_exc()
    return {"code": code, "error": error, "mistake": mistake, "run_dir": cfg.run.dir}


if __name__ == "__main__":
    sys.exit(main())
