"""Image files that a user names: files, folders, patterns, or a list on stdin."""

import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from cnnbench.data.scan import Visited, images_below, left_out_note, links_note
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import typed_path


def find_images(
    inputs: Iterable[str], stdin: Iterable[str] | None = None, suffixes: tuple[str, ...] | None = None
) -> list[str]:
    """Image files in the order given, none twice. UserError for a missing file and for a folder without images.

    `-` stands for a list of files on stdin, one in each line; those are only checked when they are read. A file may
    have any name; in folders, at any depth, only files with the usual suffixes count: `suffixes`, or those of images.
    """
    found: dict[str, None] = {}
    for given in inputs:
        found |= dict.fromkeys(_meant(given, stdin, suffixes))
    if not found:
        raise UserError("no images: the list is empty")
    return list(found)


def _meant(given: str, stdin: Iterable[str] | None, suffixes: tuple[str, ...] | None) -> list[str]:
    if given == "-":
        return _listed(stdin)
    if "://" in given:
        raise UserError(f"{given}: URLs are not read: fetch the image yourself and give its path")
    path = typed_path(given)
    try:
        if path.is_dir():
            return _in_folder(path, suffixes)
        if path.exists():
            return [str(path)]
    except OSError as error:  # mostly a parent folder without permission
        raise UserError(f"cannot read '{given}': {error.strerror}") from None
    if not glob.has_magic(given):
        raise UserError(f"there is no file or folder '{given}'")
    looking = tqdm(_matches(str(path)), desc=f"looking for {given}", unit=" matches", leave=False, delay=1,
                   disable=not sys.stderr.isatty())  # fmt: skip
    matches = sorted(dict.fromkeys(looking))
    if not matches:
        raise UserError(f"no file matches '{given}'")
    return [file for match in matches
            for file in (_in_folder(Path(match), suffixes) if os.path.isdir(match) else [match])]  # fmt: skip  # noqa: PTH112


def _matches(pattern: str) -> Iterator[str]:
    """Files and folders that a pattern matches, `**` at any depth, a folder with several names once.

    Python's own glob follows loops of links, of which /proc and /sys are full, until the system stops it.
    """
    found = re.search(r"(?:^|(?<=/))\*\*(?:/|$)", pattern)
    if not found:
        yield from glob.iglob(pattern)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        return
    before, after = pattern[: found.start()], pattern[found.end() :]
    visited = Visited()
    for top in glob.iglob(before) if before else [""]:  # noqa: PTH207
        _enters(visited, top or ".")
        for base, folders, files in os.walk(top or ".", followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".") and _enters(visited, f"{base}/{name}")]
            here = os.path.join(base, "") if top else os.path.join(base, "").removeprefix("./")  # noqa: PTH118
            if after:
                yield from _matches(glob.escape(here) + after)
            else:
                yield from (f"{here}{name}" for name in files if not name.startswith("."))


def _enters(visited: Visited, folder: str) -> bool:
    """Whether a walk comes to a folder for the first time; not where it has just gone, as those of /proc do."""
    with suppress(OSError):
        return visited.is_new(folder)
    return False


def _listed(stdin: Iterable[str] | None) -> list[str]:
    """Names on stdin, one in each line. They need not be UTF-8; a byte order mark is no part of them."""
    if stdin is None:
        stdin = sys.stdin
        if isinstance(stdin, io.TextIOWrapper):
            stdin.reconfigure(errors="surrogateescape")
    names = [line.rstrip("\r\n").removeprefix("\ufeff") for line in stdin if line.strip("\ufeff \t\r\n")]
    if any("\0" in name for name in names):
        raise UserError(
            "the list on stdin holds a NUL character: give one name in each line (find -print, not -print0)"
        )
    return names


def _in_folder(folder: Path, suffixes: tuple[str, ...] | None) -> list[str]:
    """Images below a folder. What is left out is said, as nobody asked for it by name."""
    found = images_below(folder, suffixes)
    if not found.names:
        images = suffixes is None or ".png" in suffixes
        none = f"no {'images' if images else 'sounds'} in '{folder}'"
        raise UserError("; ".join(filter(None, [none, left_out_note(found.left_out)])))
    for note in (left_out_note(found.left_out), links_note(found.links)):
        if note:
            warn(f"'{folder}': {note}")
    return list(found)
