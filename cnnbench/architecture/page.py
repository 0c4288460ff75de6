"""One web page that shows nets: drawn, and layer by layer. It opens anywhere, and loads nothing."""

from collections.abc import Sequence
from html import escape

from cnnbench.visual.page import HEAD

STYLE = """\
<style>
body { max-width: none; }
figure { overflow-x: auto; }
svg { display: block; }
.layer:hover > rect, .join:hover > rect, .join:hover > circle { stroke-width: 2.5; }
.layer:hover, .join:hover { cursor: help; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .85rem; }
th, td { padding: .15rem .7rem; text-align: left; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th { border-bottom-color: #888; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
</style>
"""


def page(title: str, svg: str, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The drawing, and below it sections: a heading, then tables (as HTML) and lines of text."""
    parts = [HEAD.format(title=escape(title)).replace("</head>", f"{STYLE}</head>"), f"<h1>{escape(title)}</h1>"]
    parts.append("<p>Rest on a box to read its output, parameters and multiply-adds.</p>")
    parts.append(f"<figure>\n{svg}\n</figure>")
    for heading, blocks in sections:
        parts.append(f"<h2>{escape(heading)}</h2>")
        parts += [f'<div class="wide">{b}</div>' if b.startswith("<table>") else f"<p>{escape(b)}</p>" for b in blocks]
    return "\n".join([*parts, "</body>", "</html>"])
