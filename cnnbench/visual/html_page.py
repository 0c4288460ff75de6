"""The HTML page with all pictures of a call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench.output import html


@dataclass(frozen=True)
class Picture:
    """A picture on disk: the heading under which it stands on the page, its title, and a caption that explains it."""

    heading: str
    title: str
    caption: str
    path: Path


def write_page(path: Path, title: str, about: Sequence[str], command: str, pictures: Sequence[Picture]) -> None:
    """Write the page to `path`. about: paragraphs at its top; command: the command line that drew it, or ""."""
    headings = list(dict.fromkeys(picture.heading for picture in pictures))
    parts = [html.paragraph(line) for line in about]
    parts += [html.code(command)] if command else []
    if len(headings) > 1:
        parts.append(html.navigation(headings))
    for heading in headings:
        parts.append(html.heading(heading))
        parts += [html.picture(one.path.read_bytes(), one.title, one.caption)
                  for one in pictures if one.heading == heading]  # fmt: skip
    html.write_document(path, title, parts)
