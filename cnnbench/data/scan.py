"""Files below folders: the images, in the order of their names, and what is left out."""

import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from cnnbench.data.formats import HEIC, HEIC_REMEDY, image_suffixes
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

# Of file managers, network drives and archives: copies, thumbnails and settings, but no data.
NO_DATA = {"@eadir", "__macosx", "__pycache__", "#recycle", "$recycle.bin", "system volume information", "lost+found",
           "thumbs.db", "ehthumbs.db", "desktop.ini"}  # fmt: skip
# Kinds of what is left out, beside the suffixes.
HIDDEN, LINK, LOOSE, OTHER = "hidden image", "link back", "outside the class folders", "without suffix"
NAMED = 6  # so many kinds are named


@dataclass(eq=False)
class Found:
    """What lies below a folder."""

    folder: Path
    names: list[str] = field(default_factory=list)  # of images at any depth, relative to the folder, sorted
    odd: list[str] = field(default_factory=list)  # of these the paths that are no files: broken links, pipes, devices
    own: int = 0  # images that lie in the folder itself
    folders: list[str] = field(default_factory=list)  # names of the folders in it, sorted
    left_out: Counter[str] = field(default_factory=Counter)  # by suffix, or by another kind
    links: list[str] = field(default_factory=list)  # to folders; not followed, as they lead to where the walk has been

    def __iter__(self) -> Iterator[str]:
        """Paths of the images."""
        return map(f"{self.folder}/".__add__, self.names)


class Paths(Sequence[str]):
    """Paths of the images of several folders; each is put together when it is asked for, as not all are."""

    def __init__(self, found: Iterable[Found]) -> None:
        self.found = list(found)
        self.ends = list(accumulate(len(one.names) for one in self.found))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.found)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        part = bisect_right(self.ends, number)
        one = self.found[part]
        return f"{one.folder}/{one.names[number - self.ends[part]]}"


def is_data(name: str) -> bool:
    """Whether a name is neither hidden nor one that programs leave behind."""
    return name[0] != "." and name.casefold() not in NO_DATA


def subfolders(root: Path) -> list[Path]:
    """Folders in a folder, links among them, sorted by name."""
    try:
        with os.scandir(root) as entries:
            return sorted(root / entry.name for entry in entries if is_data(entry.name) and _is_folder(entry))
    except OSError as error:
        raise UserError(f"cannot read the folder '{root}': {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def files_in(root: Path) -> list[str]:
    """Names of the files that lie in a folder itself; none where it cannot be read."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if is_data(entry.name) and entry.is_file())
    except OSError:
        return []


def images_below(folder: Path, suffixes: tuple[str, ...] | None = None) -> Found:
    """What lies below one folder. UserError for a folder that cannot be read."""
    return scan([folder], above=folder.resolve().parents, suffixes=suffixes)[folder]


def scan(folders: Iterable[Path], above: Iterable[Path], suffixes: tuple[str, ...] | None = None) -> dict[Path, Found]:
    """What lies below each of these folders. UserError for one that cannot be read. suffixes: of files that are no
    images, but what is looked for.

    No folder is read twice: links to where the walk has been, or to a folder that is `above`, are not followed; a
    folder of the list that is such a link is left out. Links are followed last, so that images belong to the folder
    where they really lie.
    """
    walk = _Walk(suffixes or image_suffixes())
    try:
        for folder in above:
            with suppress(OSError):
                walk.is_new(folder)
        found = {folder: Found(folder) for folder in folders if walk.is_new(folder)}
        links = {}
        for folder, one in found.items():
            inside = walk.read(str(folder), one)
            one.own, one.folders = len(one.names), sorted(entry.name for entry in inside)
            links[folder] = walk.descend(inside, one)
        for folder, one in found.items():
            _follow(walk, links[folder], one)
            one.names.sort()
    except OSError as error:
        raise UserError(f"cannot read the folder '{error.filename}': {error.strerror}") from None
    return found


def _follow(walk: "_Walk", links: list[str], found: Found) -> None:
    for path in links:  # the list grows where a link leads to further links
        if walk.is_new(path):
            links += walk.descend(walk.read(path, found), found)
        else:
            found.links.append(path)


class Visited:
    """Folders where a walk has been."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()  # device and number of each folder

    def is_new(self, folder: str | Path) -> bool:
        """Whether the walk has not been there; it has from now on."""
        status, before = os.stat(folder), len(self.seen)  # noqa: PTH116
        self.seen.add((status.st_dev, status.st_ino))
        return len(self.seen) > before


class _Walk(Visited):
    """A walk through folders, which takes the images."""

    def __init__(self, suffixes: tuple[str, ...]) -> None:
        super().__init__()
        self.suffixes = suffixes

    def read(self, base: str, found: Found) -> list[os.DirEntry[str]]:
        """Take the files of a folder; returns the folders in it."""
        folders, names, suffixes = [], found.names, self.suffixes
        inside = f"{base}/".removeprefix(f"{found.folder}/")
        with os.scandir(base) as entries:
            for entry in entries:
                name = entry.name
                try:  # as in _is_folder(): a call for each file would take a tenth of the time
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError:
                    is_folder = is_file = False
                if is_folder:
                    if is_data(name):
                        folders.append(entry)
                elif name.lower().endswith(suffixes) and name[0] != ".":
                    names.append(inside + name)
                    if not is_file:
                        found.odd.append(entry.path)
                elif kind := _kind(name.lower(), suffixes):
                    found.left_out[kind] += 1
        return folders

    def descend(self, folders: list[os.DirEntry[str]], found: Found) -> list[str]:
        """Take the files below these folders; returns the links to folders, sorted."""
        waiting, links = list(folders), []
        while waiting:
            entry = waiting.pop()
            if entry.is_symlink():
                links.append(entry.path)
            elif self.is_new(entry.path):
                waiting += self.read(entry.path, found)
        return sorted(links)


def _kind(name: str, suffixes: tuple[str, ...]) -> str:
    """Kind of a file that is left out; empty for what programs leave behind, as the `._photo.jpg` of a Mac."""
    if name[0] == ".":
        return HIDDEN if name.endswith(suffixes) and name[:2] != "._" else ""
    if not is_data(name):
        return ""
    found = re.search(r".(\.[a-z0-9_~-]{1,12})$", name)
    return found[1] if found else OTHER


def left_out_text(left_out: Counter[str]) -> str:
    """`12 .heic, 3 .txt`, the most frequent first, with the remedy where there is one."""
    kinds = left_out.most_common()
    text = ", ".join(f"{count:,} {kind}" for kind, count in kinds[:NAMED])
    if len(kinds) > NAMED:
        text += f" and {sum(count for _, count in kinds[NAMED:]):,} of {len(kinds) - NAMED} other kinds"
    return f"{text}. {HEIC_REMEDY}" if any(left_out[suffix] for suffix in HEIC) else text


def left_out_note(left_out: Counter[str]) -> str:
    """Sentence on the files in folders that are left out; empty where there are none."""
    return f"files of other kinds are not read: {left_out_text(left_out)}" if left_out else ""


def links_note(links: list[str]) -> str:
    """Sentence on links to folders that are not followed; empty where there are none."""
    if not links:
        return ""
    return f"{plural(len(links), 'link')} to folders not followed, as '{links[0]}' leads to what is read already"
