"""Images of a data set with what their files say: which cannot be read, their sizes, modes and contents; and the files
in the same folders that are no part of the set."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.data import Arrays, Dataset, Files, Source, groups_of, image_names
from cnnbench.data.scan import Visited
from cnnbench.data.sound_files import Sound
from cnnbench.data.sounds import Sounds, in_memory, remarked
from cnnbench.data.sources import open_image, read_bytes
from cnnbench.data.unreadable import why_unreadable
from cnnbench.data.workers import for_each_image


@dataclass(frozen=True)
class Facts:
    """What the file of an image says. digest: hash of its content; error: why it cannot be read, else empty."""

    digest: bytes = b""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    error: str = ""


@dataclass(frozen=True, eq=False)
class Images:
    """The readable images of a data set, one split after the other, and those that cannot be read."""

    classes: list[str]
    sources: dict[str, Source]
    facts: list[Facts]
    names: list[str]
    splits: list[str]
    targets: np.ndarray  # int64 (N,)
    unreadable: list[dict[str, str]]  # file, split, label and detail of each

    def __len__(self) -> int:
        return len(self.targets)

    def source_of(self, index: int) -> tuple[Source, int]:
        """The split's source that holds the image, and its index there."""
        for source in self.sources.values():
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(index)

    @property
    def groups(self) -> np.ndarray | None:
        """Number of the group of each image by `data.group=`; None without it."""
        found = [groups for source in self.sources.values() if (groups := groups_of(source)) is not None]
        return torch.cat(found).numpy() if found else None

    def place(self, index: int) -> dict[str, str]:
        label = self.classes[int(self.targets[index])]
        return {"file": self.names[index], "split": self.splits[index], "label": label}


def examine(dataset: Dataset, root: Path | None, workers: int) -> Images:
    """Read every image once. root: folder that the names are relative to."""
    sources: dict[str, Source] = {}
    facts, names, splits, targets, unreadable = [], [], [], [], []
    for split, source in dataset.splits.items():
        found = list(_facts(source, workers))
        kept = torch.tensor([index for index, one in enumerate(found) if not one.error], dtype=torch.int64)
        known = [_relative(name, root) for name in image_names(source, torch.arange(len(source)))]
        for index, one in enumerate(found):
            if one.error:
                label = dataset.classes[int(source.targets[index])]
                unreadable.append({"file": known[index], "split": split, "label": label, "detail": one.error})
        sources[split] = source if len(kept) == len(source) else source.subset(kept)
        facts += [one for one in found if not one.error]
        names += [known[index] for index in kept.tolist()]
        splits += [split] * len(kept)
        targets.append(source.targets[kept].cpu().numpy())
    return Images(dataset.classes, sources, facts, names, splits, np.concatenate(targets), unreadable)


def heard(dataset: Dataset, images: Images, workers: int | None) -> tuple[Dataset, Images, list[str]]:
    """Data set and images with sounds as pictures in memory, and what is to be said of them; others as they are."""
    if not isinstance(dataset.train, Sounds):
        return dataset, images, []
    remarks: dict[str, list[str]] = {}
    found = {split: in_memory(source, workers, remarks) for split, source in images.sources.items()}
    by_source = {id(source): found[split] for split, source in dataset.splits.items()}
    spectrogram = dataset.train.spectrogram
    dataset = dataset.changed(lambda source: by_source.get(id(source)) or in_memory(source, workers, remarks))
    return dataset, replace(images, sources=found), remarked(spectrogram, remarks)


def _relative(name: str, root: Path | None) -> str:
    return os.path.relpath(name, root) if root else name


def _facts(source: Source, workers: int) -> Iterator[Facts]:
    if isinstance(source, Arrays):
        channels, height, width = source.images.shape[1:]
        mode = "L" if channels == 1 else "RGB"
        for image in source.images:
            yield Facts(hashlib.sha256(image.contiguous().numpy().data).digest(), "", mode, width, height)
        return
    yield from for_each_image(read_facts, source, workers, "read images")


def read_facts(item: Any) -> Facts:
    """Facts of one image in a file or a shard, decoded as far as it takes to see whether it can be read."""
    if reason := why_unreadable(item):
        return Facts(error=reason)
    content = read_bytes(item)
    if isinstance(item, Sound):
        return _facts_of_sound(item, content)
    with open_image(io.BytesIO(content), item) as image:
        return Facts(hashlib.sha256(content).digest(), image.format or "", image.mode, image.width, image.height)


def _facts_of_sound(item: Sound, content: bytes) -> Facts:
    part = f"{item.start} {item.end}" if item.start is not None or item.end is not None else ""
    side, kind = item.spectrogram.bands, Path(item.path).suffix.removeprefix(".").upper()
    mode = f"of {item.clip().rate:,} Hz"
    return Facts(hashlib.sha256(content + part.encode()).digest(), kind, mode, side, side)


def folder_of(dataset: Dataset) -> Path | None:
    """The folder that holds the files of a data set, with all its splits; None where they are not in files."""
    sources = [source for source in dataset.splits.values() if isinstance(source, Files)]
    if not sources:
        return None
    common = Path(os.path.commonpath([os.path.dirname(path) for source in sources for path in source.paths]))  # noqa: PTH120
    return common.parent if common.name == "train" else common


def ignored_files(dataset: Dataset, root: Path, table: Path | None = None) -> list[str]:
    """Files below the folder of a data set that are none of its images, nor the table of its groups, relative to the
    folder, sorted."""
    used = {os.path.realpath(path) for source in dataset.splits.values() for path in source.paths}  # type: ignore[union-attr]
    used |= {os.path.realpath(table)} if table else set()
    found, visited = [], Visited()
    for base, folders, names in os.walk(root, followlinks=True):
        if not visited.is_new(base):  # a loop of links
            folders.clear()
            continue
        found += [
            os.path.relpath(f"{base}/{name}", root) for name in names if os.path.realpath(f"{base}/{name}") not in used
        ]
    return sorted(found)
