"""What mkdocs.yml adds to docs/: README.md as the first page, CONTRIBUTING and CHANGELOG, and files that pages link to.

Links are written as they hold in the repository; here they are made to hold on the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, *, config: Any) -> Files:
    """Files of docs/ with the pages that lie above it, and with each other file of the repository that is linked to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    targets = {
        (source(file.src_uri).parent / target).resolve()
        for file in files.documentation_pages()
        for target in LINK.findall(file.content_string)
    }
    for path in sorted(targets):
        if path.is_file() and place(path, "").startswith("files/"):
            files.append(File.generated(config, place(path, ""), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with links that hold on the site."""
    folder = source(page.file.src_uri).parent
    return LINK.sub(lambda found: f"]({place((folder / found[1]).resolve(), found[1])}", markdown)


def source(page: str) -> Path:
    """File in the repository that a page of the site is made of."""
    return next((ROOT / name for name, made in PAGES.items() if made == page), ROOT / "docs" / page)


def place(path: Path, written: str) -> str:
    """Place on the site, from its first folder, of a file in the repository; as written where there is none."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    if not path.is_relative_to(ROOT):
        return written
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name, f"files/{name}")
