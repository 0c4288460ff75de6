"""Parts of a self-contained HTML page: its head, its tables, its pictures. The page loads nothing."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnbench.output.tables import cells
from cnnbench.utils.files import write_text
from cnnbench.utils.text import printable

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{csp}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1240px; padding: 1rem 1.5rem 4rem; color: #1b1b1b; background: #fff;
  font: 16px/1.5 system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 1rem 0 0; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 0; padding-top: .6rem; border-top: 1px solid #ccc; }}
p {{ max-width: 75ch; margin: .4rem 0; }}
code {{ background: #f2f2f2; padding: .1rem .3rem; overflow-wrap: anywhere; }}
nav a {{ margin-right: 1rem; color: #0072b2; }}
figure {{ margin: 1.2rem 0 2.2rem; }}
img {{ display: block; max-width: 100%; height: auto; border: 1px solid #ddd; }}
figcaption {{ max-width: 90ch; color: #444; margin-top: .5rem; }}
.wide {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }}
th {{ white-space: nowrap; border-bottom: 2px solid #888; }}
td {{ white-space: nowrap; }}
td.long {{ white-space: normal; min-width: 40ch; max-width: 60ch; overflow-wrap: anywhere; }}
.number {{ text-align: right; }}
.wide th:first-child, .wide td:first-child {{ position: sticky; left: 0; background: #fff; }}
th button {{ font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; }}
th button::after {{ content: " \\2195"; color: #767676; }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; color: #000; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; color: #000; }}
</style>
</head>
<body>
"""

LINE = 50  # characters: longer cells are broken into lines
SORTING = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentNode, column = head.cellIndex, body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => (key(a) === "") - (key(b) === "") ||
    (down ? -1 : 1) * key(a).localeCompare(key(b), "en", {numeric: true});
  const numbers = head.className === "number";
  const number = (a, b) => (key(a) === "") - (key(b) === "") || (down ? -1 : 1) * (key(a) - key(b));
  body.append(...[...body.rows].sort(numbers ? number : compare));
};
"""


def escape(text: str) -> str:
    """Text as HTML and XML have it."""
    return html.escape(printable(text))


def document(title: str, body: Sequence[str], *, style: str = "", script: str = "") -> str:
    """HTML of a page. Its content security policy lets the browser run no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    head = HEAD.format(title=escape(title), csp=f"; script-src 'sha256-{digest}'" if script else "")
    head = head.replace("</style>", f"{style}</style>")
    end = [f"<script>{script}</script>"] if script else []
    return "\n".join([head, f"<h1>{escape(title)}</h1>", *body, *end, "</body>", "</html>", ""])


def write_document(path: Path, title: str, body: Sequence[str], script: str = "") -> None:
    """Write a page to `path`, atomically."""
    write_text(path, document(title, body, script=script))


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    return f"<p><code>{escape(text)}</code></p>"


def navigation(headings: Sequence[str]) -> str:
    links = "".join(f'<a href="#{_id(text)}">{escape(text)}</a> ' for text in headings)
    return f"<nav>{links}</nav>"


def heading(text: str) -> str:
    return f'<h2 id="{_id(text)}">{escape(text)}</h2>'


def picture(png: bytes, title: str, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(rows: Sequence[Mapping[str, Any]], *, sorts: bool = True) -> str:
    """HTML table of the rows, numbers rounded. sorts: a click on a heading sorts, on a page with the script SORTING."""
    columns, numeric = cells(rows)
    of = [' class="number"' if flag else "" for flag in numeric]
    names = [f"<button>{escape(column[0])}</button>" if sorts else escape(column[0]) for column in columns]
    head = "".join(f'<th scope="col"{at}>{name}</th>' for name, at in zip(names, of, strict=True))
    lines = []
    for number, row in enumerate(rows, start=1):
        parts = [f"<td{at or _long(column[number])}{_value(row.get(column[0]), flag)}>{escape(column[number])}</td>"
                 for column, at, flag in zip(columns, of, numeric, strict=True)]  # fmt: skip
        lines.append(f"<tr>{''.join(parts)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(lines)}</tbody></table></div>'
    )


def _long(text: str) -> str:
    return ' class="long"' if len(text) > LINE else ""


def _value(value: Any, numeric: bool) -> str:
    """HTML attribute with the sort key of a cell; "" where the key is the text of the cell."""
    if value is None:
        return ' data-value=""'
    return f' data-value="{float(value)!r}"' if numeric else ""


def _id(heading: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in heading.lower())
