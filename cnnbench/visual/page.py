"""One HTML page with all pictures in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench.output import html


@dataclass(frozen=True)
class Picture:
    """A picture on disk: under which heading it stands, its title, and what it shows."""

    heading: str
    title: str
    caption: str
    path: Path


def write(path: Path, title: str, about: Sequence[str], command: str, pictures: Sequence[Picture]) -> None:
    """The page at `path`; about: a line of text each."""
    headings = list(dict.fromkeys(picture.heading for picture in pictures))
    parts = [html.paragraph(line) for line in about]
    parts += [html.code(command)] if command else []
    if len(headings) > 1:
        parts.append(html.navigation(headings))
    for heading in headings:
        parts.append(html.heading(heading))
        parts += [html.picture(one.path.read_bytes(), one.title, one.caption)
                  for one in pictures if one.heading == heading]  # fmt: skip
    html.write(path, title, parts)
