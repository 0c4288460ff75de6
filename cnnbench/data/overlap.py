"""Images that are both in the training and in the validation files, which makes a measurement too good."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from cnnbench.data.shards import Packed
from cnnbench.data.sources import Files, Source

ALL = 20_000  # up to so many files all sizes are compared; of more, only files of the same name


def shared_files(train: Source, val: Source) -> list[tuple[str, str]]:
    """Pairs of a training and a validation file with the same content."""
    if isinstance(train, Packed) and isinstance(val, Packed):
        return train.same_images(val)
    ours, theirs = files_of(train), files_of(val)
    if len(ours) + len(theirs) > ALL:
        names = {os.path.basename(path) for path in ours} & {os.path.basename(path) for path in theirs}  # noqa: PTH119
        ours, theirs = ([path for path in paths if os.path.basename(path) in names] for paths in (ours, theirs))  # noqa: PTH119
    sizes, val_sizes = _by_size(ours), _by_size(theirs)
    pairs = []
    for size in sizes.keys() & val_sizes.keys():
        known = {_content(path): path for path in sizes[size]}
        pairs += [(known[content], path) for path in val_sizes[size] if (content := _content(path)) in known]
    return sorted(pairs)


def files_of(source: Source) -> list[str]:
    """Files of the images, each once, also where they were read into memory; none of packed images."""
    if isinstance(source, Packed):
        return []
    return list(dict.fromkeys(source.paths if isinstance(source, Files) else source.names))


def in_both(source: Source, other: Source) -> int:
    """Number of files of a source that are files of the other one too, by their paths."""
    real = cache(os.path.realpath)  # of each folder once
    ours, theirs = ([os.path.split(path) for path in files_of(one)] for one in (source, other))
    known = {(real(folder), name) for folder, name in theirs}
    return sum((real(folder), name) in known for folder, name in ours)


def _by_size(paths: Iterable[str]) -> dict[int, list[str]]:
    found = defaultdict(list)
    for path in paths:
        with suppress(OSError):  # the loader will name the file
            found[os.stat(path).st_size].append(path)  # noqa: PTH116
    return found


def _content(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
