"""Identity of a data set: a hash by which a run that goes on knows whether its images are still the same."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cnnbench.data.class_tree import ClassTree
from cnnbench.data.sources import (
    Arrays,
    Dataset,
    Files,
    Pair,
    Source,
    fingerprint,
    has_boxes,
    has_spatial_targets,
    read_bytes,
)
from cnnbench.data.workers import for_each_image


def of_names(trees: Iterable[ClassTree]) -> str:
    """Hash over the classes of each split and the names of their images, relative to the class's folder."""
    total = hashlib.sha256()
    for tree in trees:
        for name, found in tree.found.items():
            names = "\0".join(found.names)
            total.update(f"{name}\0{names}\0\n".encode(errors="surrogateescape"))
        total.update(b"\0\n")
    return total.hexdigest()


def of_content(dataset: Dataset, workers: int) -> str:
    """Hash over the classes, the content of each image and its class. All files are read for it."""
    total = hashlib.sha256("\0".join(dataset.classes).encode(errors="surrogateescape"))
    for source in (dataset.train, dataset.val):
        total.update(f"{len(source)}".encode())
        for part in _contents(source, workers):
            total.update(part)
    return total.hexdigest()


def _contents(source: Source, workers: int) -> Iterator[bytes]:
    if isinstance(source, Files):
        yield from for_each_image(_hash, source, workers, "data.identity=content")
    else:  # packed images have checksums
        yield fingerprint(source).encode()
    if not has_spatial_targets(source) or has_boxes(source):
        yield source.targets.cpu().numpy().tobytes()
    elif isinstance(source, Arrays):
        yield source.targets.contiguous().numpy().tobytes()


def _hash(item: Any) -> bytes:
    parts = [part for part in (item if isinstance(item, Pair) else (item,)) if not isinstance(part, np.ndarray)]
    return hashlib.sha256(b"".join(hashlib.sha256(read_bytes(part)).digest() for part in parts)).digest()


def without(identity: str, left_out: Iterable[int]) -> str:
    """Identity of the set without these images, by their numbers."""
    return hashlib.sha256(f"{identity} {list(left_out)}".encode()).hexdigest() if identity else ""
