"""One HTML page with all pictures in it: it opens anywhere, and loads nothing."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A picture on disk: under which heading it stands, its title, and what it shows."""

    heading: str
    title: str
    caption: str
    path: Path


HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1200px; padding: 1rem 1.5rem 4rem; color: #1b1b1b; background: #fff;
  font: 16px/1.5 system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 1rem 0 0; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 0; padding-top: .6rem; border-top: 1px solid #ccc; }}
p {{ max-width: 75ch; margin: .4rem 0; }}
code {{ background: #f2f2f2; padding: .1rem .3rem; overflow-wrap: anywhere; }}
nav a {{ margin-right: 1rem; color: #0072b2; }}
figure {{ margin: 1.2rem 0 2.2rem; }}
img {{ display: block; max-width: 100%; height: auto; border: 1px solid #ddd; }}
figcaption {{ max-width: 90ch; color: #444; margin-top: .5rem; }}
</style>
</head>
<body>
"""


def write(path: Path, title: str, about: Sequence[str], command: str, pictures: Sequence[Picture]) -> None:
    """The page at `path`; about: a line of text each."""
    headings = list(dict.fromkeys(picture.heading for picture in pictures))
    parts = [HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>"]
    parts += [f"<p>{escape(line)}</p>" for line in about]
    parts += [f"<p><code>{escape(command)}</code></p>"] if command else []
    if len(headings) > 1:
        links = "".join(f'<a href="#{_id(heading)}">{escape(heading)}</a> ' for heading in headings)
        parts.append(f"<nav>{links}</nav>")
    for heading in headings:
        parts.append(f'<h2 id="{_id(heading)}">{escape(heading)}</h2>')
        parts += [_figure(picture) for picture in pictures if picture.heading == heading]
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text("\n".join([*parts, "</body>", "</html>", ""]), encoding="utf-8")
    beside.replace(path)


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _id(heading: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in heading.lower())
