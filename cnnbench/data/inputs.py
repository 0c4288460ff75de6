"""Image files that a user names: files, folders, patterns, or a list on stdin."""

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from cnnbench.data.scan import images_below, left_out_note, links_note
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError


def find_images(inputs: Iterable[str], stdin: Iterable[str] | None = None) -> list[str]:
    """Image files in the order given, none twice. UserError for a missing file and for a folder without images.

    `-` stands for a list of files on stdin, one in each line; those are only checked when they are read. A file may
    have any name; in folders, at any depth, only files with the usual suffixes count.
    """
    found: dict[str, None] = {}
    for given in inputs:
        found |= dict.fromkeys(_meant(given, stdin))
    if not found:
        raise UserError("no images: the list is empty")
    return list(found)


def _meant(given: str, stdin: Iterable[str] | None) -> list[str]:
    if given == "-":
        return [line.rstrip("\r\n") for line in (sys.stdin if stdin is None else stdin) if line.strip()]
    if "://" in given:
        raise UserError(f"{given}: URLs are not read: fetch the image yourself and give its path")
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            return [str(path)]
    except OSError as error:  # mostly a parent folder without permission
        raise UserError(f"cannot read '{given}': {error.strerror}") from None
    if not glob.has_magic(given):
        raise UserError(f"there is no file or folder '{given}'")
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not matches:
        raise UserError(f"no file matches '{given}'")
    return [file for match in matches for file in (_in_folder(Path(match)) if os.path.isdir(match) else [match])]  # noqa: PTH112


def _in_folder(folder: Path) -> list[str]:
    """Images below a folder. What is left out is said, as nobody asked for it by name."""
    found = images_below(folder)
    if not found.names:
        raise UserError("; ".join(filter(None, [f"no images in '{folder}'", left_out_note(found.left_out)])))
    for note in (left_out_note(found.left_out), links_note(found.links)):
        if note:
            warn(f"'{folder}': {note}")
    return list(found)
