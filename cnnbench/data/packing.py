"""Writes the packed form of a data set (see shards.py), shard by shard. A killed process can be continued.

A shard holds a fixed range of the images, so it is the same however often the packing is interrupted. It is written
atomically, then recorded in `.parts`. When all shards are there, the tables and `dataset.json` are written, and
`.parts` is removed.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnbench.config.sections import Resize
from cnnbench.data.geometry import rescaled
from cnnbench.data.packed import ABOUT, FORMAT, VERSION
from cnnbench.data.shards import RECORD
from cnnbench.data.sources import Dataset, Files, is_plain, open_image, read_bytes, upright
from cnnbench.data.workers import parallel_map
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import HashingWriter, atomic_write, remove_leftovers

BLOCK = 512  # bytes of a tar block: a header has one, contents are padded to whole blocks
SAMPLED = 64  # images that are encoded to estimate the disk space


class Image(NamedTuple):
    """Encoded image and its size before resizing; or the reason why it cannot be read."""

    data: bytes
    width: int
    height: int
    error: str = ""


def encode(path: str, side: int, quality: int, interpolation: str) -> Image:
    """Image of a file as JPEG, its shorter side at most `side`. A plain JPEG that is small enough is copied."""
    try:
        data = read_bytes(path)
        with open_image(io.BytesIO(data), path) as image:
            image.load()
            if is_plain(image) and min(image.size) <= side:
                return Image(data, *image.size)
            picture = upright(image)
            small = rescaled(picture, side, Resize.shorter, interpolation) if min(picture.size) > side else picture
            stream = io.BytesIO()
            small.save(stream, "JPEG", quality=quality)
            return Image(stream.getvalue(), *picture.size)
    except UserError as error:
        return Image(b"", 0, 0, str(error))


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Shard to be written: these images of a split."""

    split: str
    number: int
    paths: list[str]
    targets: list[int]
    groups: list[int] | None  # the group of each image, where the data have groups

    @property
    def file(self) -> str:
        return f"{self.split}-{self.number:05}.tar"


@dataclass(frozen=True, kw_only=True)
class PackingPlan:
    """Data set, folder and settings of a packing."""

    dataset: Dataset
    folder: Path
    side: int
    quality: int
    shard: int
    workers: int
    skip: bool  # images that cannot be read

    @property
    def encode(self) -> Callable[[str], Image]:
        return partial(encode, side=self.side, quality=self.quality, interpolation=self.dataset.interpolation)

    @property
    def parts_folder(self) -> Path:
        return self.folder / ".parts"

    def parts(self) -> Iterator[ShardPlan]:
        for split in self.splits:
            source = self.source(split)
            for number, start in enumerate(range(0, len(source), self.shard)):
                here = slice(start, start + self.shard)
                yield ShardPlan(split=split, number=number, paths=list(source.paths[here]),
                                targets=source.targets[here].tolist(),
                                groups=None if source.groups is None else source.groups[here].tolist())  # fmt: skip

    @property
    def splits(self) -> list[str]:
        return ["train", "val", *(["test"] if self.dataset.test is not None else [])]

    def source(self, split: str) -> Files:
        source = getattr(self.dataset, split)
        assert isinstance(source, Files)
        return source

    def known(self, part: ShardPlan) -> dict[str, Any] | None:
        """Record of a finished shard; None where it is still to be written."""
        try:
            about: dict[str, Any] = json.loads((self.parts_folder / f"{part.file}.json").read_text(encoding="utf-8"))
            return about if (self.folder / part.file).stat().st_size == about["bytes"] else None
        except (OSError, ValueError, KeyError):
            return None

    def settings(self) -> dict[str, Any]:
        """Settings that determine the shards: shards of other settings are not mixed with them."""
        names = hashlib.sha256()
        for path in chain.from_iterable(self.source(split).paths for split in self.splits):
            names.update(f"{path}\n".encode(errors="surrogateescape"))
        return {"side": self.side, "quality": self.quality, "shard": self.shard, "skip": self.skip,
                "interpolation": self.dataset.interpolation, "files": names.hexdigest()}  # fmt: skip


def space_needed(plan: PackingPlan, missing: list[ShardPlan]) -> int:
    """Bytes of the missing shards, estimated from a sample of their images."""
    paths = [path for part in missing for path in part.paths]
    sample = [plan.encode(path) for path in paths[:: max(1, len(paths) // SAMPLED)]]
    sizes = [_filled(len(image.data)) + BLOCK + RECORD.itemsize for image in sample if not image.error]
    return round(sum(sizes) / max(1, len(sizes)) * len(paths)) + 20 * BLOCK * len(missing)


def check_space(plan: PackingPlan, needed: int) -> int:
    """Free bytes of the disk. UserError where they do not suffice."""
    free = shutil.disk_usage(plan.folder).free
    if needed > free:
        raise UserError(f"{plan.folder}: the packed images need about {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB "
                        "are free: choose another out=, a smaller side= or a lower quality=")  # fmt: skip
    return free


def begin_packing(plan: PackingPlan) -> None:
    """Make the folder, or continue in it. UserError where it holds something else."""
    try:
        finished, begun = (plan.folder / ABOUT).exists(), plan.parts_folder.is_dir()
        if plan.folder.is_dir() and not (finished or begun) and any(_foreign(plan.folder)):
            raise UserError(f"out='{plan.folder}' holds other files: give an empty or a new folder")
        plan.parts_folder.mkdir(parents=True, exist_ok=True)
        before = plan.parts_folder / "settings.json"
        if before.exists() and json.loads(before.read_text(encoding="utf-8")) != plan.settings():
            raise UserError(f"'{plan.folder}' was begun with other images or settings: give another out=")
        with atomic_write(before) as file:
            file.write(json.dumps(plan.settings()).encode())
    except OSError as error:
        raise UserError(f"cannot write to '{plan.folder}': {error.strerror}") from None


def _foreign(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def write_shards(plan: PackingPlan, missing: list[ShardPlan], progress: Callable[[int], object]) -> None:
    """Write the missing shards, calling progress with the images done. UserError names what cannot be read."""
    remove_leftovers(plan.folder)
    images = parallel_map(plan.encode, (path for part in missing for path in part.paths), plan.workers)
    top = _common(plan)
    for part in missing:
        try:
            _write_part(plan, part, top, images, progress)
        except OSError as error:
            raise UserError(f"cannot write {plan.folder / part.file}: {error.strerror}; finished shards stay") from None


def _common(plan: PackingPlan) -> str:
    """Folder that holds all files: names in the shards are relative to it."""
    paths = [plan.source(split).paths for split in plan.splits]
    ends = [path for some in paths if len(some) for path in (min(some), max(some))]
    return os.path.commonpath([os.path.dirname(path) for path in ends])  # noqa: PTH120


def _write_part(
    plan: PackingPlan, part: ShardPlan, top: str, images: Iterator[Image], progress: Callable[[int], object]
) -> None:
    rows, skipped, groups = [], [], []
    with atomic_write(plan.folder / part.file) as file:
        hashing = HashingWriter(file)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for path, target, group in zip(part.paths, part.targets, part.groups or part.targets, strict=True):
                image = next(images)
                progress(1)
                if image.error:
                    if not plan.skip:
                        raise UserError(
                            f"{image.error}\ndata.on_error=skip leaves such images out; finished shards stay"
                        )
                    skipped.append(image.error)
                    continue
                header = archive.offset
                info = tarfile.TarInfo(os.path.relpath(path, top))
                info.size = len(image.data)
                archive.addfile(info, io.BytesIO(image.data))
                offset = archive.offset - _filled(info.size)
                rows.append((part.number, header, offset, info.size, zlib.crc32(image.data),
                             image.width, image.height, target))  # fmt: skip
                groups.append(group)
    with atomic_write(plan.parts_folder / f"{part.file}.npy") as file:
        np.save(file, np.array(rows, RECORD))
    about = {"file": part.file, "bytes": (plan.folder / part.file).stat().st_size,
             "sha256": hashing.hash.hexdigest(), "images": len(rows), "skipped": skipped,
             "groups": groups if part.groups else None}  # fmt: skip
    with atomic_write(plan.parts_folder / f"{part.file}.json") as file:
        file.write(json.dumps(about).encode())


def _filled(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def finish_packing(plan: PackingPlan) -> dict[str, Any]:
    """Write the tables of the splits, then dataset.json; returns the content of the latter."""
    dataset = plan.dataset
    splits: dict[str, Any] = {split: {"images": 0, "shards": []} for split in plan.splits}
    tables: dict[str, list[np.ndarray]] = {split: [np.empty(0, RECORD)] for split in plan.splits}
    skipped: list[str] = []
    groups: dict[str, list[int]] = {split: [] for split in plan.splits if plan.source(split).groups is not None}
    for part in plan.parts():
        about = plan.known(part)
        assert about is not None
        skipped += about.pop("skipped")
        if part.split in groups:
            groups[part.split] += about["groups"]
        about.pop("groups", None)
        splits[part.split]["shards"].append(about)
        splits[part.split]["images"] += about["images"]
        tables[part.split].append(np.load(plan.parts_folder / f"{part.file}.npy"))
    for split, rows in tables.items():
        stream = io.BytesIO()
        np.save(stream, np.concatenate(rows))
        with atomic_write(plan.folder / f"{split}.npy") as file:
            file.write(stream.getbuffer())
        splits[split] |= {"table": f"{split}.npy", "sha256": hashlib.sha256(stream.getbuffer()).hexdigest()}
        if split in groups:
            with atomic_write(plan.folder / f"{split}.groups.npy") as file:
                np.save(file, np.array(groups[split], dtype=np.int64))
    about = {
        "format": FORMAT, "version": VERSION, "name": dataset.name, "classes": list(dataset.classes),
        "mean": list(dataset.mean), "std": list(dataset.std), "image_size": dataset.image_size,
        "in_channels": dataset.in_channels, "split": dataset.split, "settings": plan.settings(), "splits": splits,
        "skipped": skipped,
    }  # fmt: skip
    with atomic_write(plan.folder / ABOUT) as file:
        file.write(json.dumps(about, indent=1).encode())
    shutil.rmtree(plan.parts_folder, ignore_errors=True)
    return about
