"""Data sets: images in memory or in files, each with its target, and the reading of a single image."""

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import Split
from cnnbench.data.formats import HEIC_REMEDY, is_heic, readable_formats
from cnnbench.data.modes import in_rgb
from cnnbench.data.pairs import Pairs
from cnnbench.data.shards import Packed, Record
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN = ("JPEG", "PNG")  # formats whose pixels in RGB are taken as they are
ORIENTATION = 0x0112  # EXIF tag: how the camera was held


IGNORE = 255  # value of the pixels of a mask that are not counted


class Pair(NamedTuple):
    """Image and its mask, both still to be read; or its boxes, a table (`boxes.py`)."""

    image: Any
    mask: Any


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images in memory: uint8 (N, C, H, W), with int64 targets (N,), or masks uint8 (N, H, W) of their size."""

    images: Tensor
    targets: Tensor
    names: tuple[str, ...] = ()  # the files that they were read from; empty: they have numbers
    groups: Tensor | None = None  # int64 (N,): images of one group stay in one part of a split
    pairs: Pairs | None = None  # of its images, that a set names to be judged

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> "Arrays":
        names = tuple(self.names[index] for index in indices.tolist()) if self.names else ()
        groups = None if self.groups is None else self.groups[indices]
        pairs = None if self.pairs is None else self.pairs.among(indices)
        return Arrays(self.images[indices], self.targets[indices], names, groups, pairs)

    def item(self, index: int) -> Any:
        """Item that `read_item` reads: here the pixels themselves, which pickle by value."""
        image = self.images[index].numpy()
        return Pair(image, self.targets[index].numpy()) if has_spatial_targets(self) else image


@dataclass(frozen=True, eq=False)
class Files:
    """Images in files of any format that Pillow reads, with int64 targets (N,), a mask's path for each, or their boxes,
    float32 (N, rows, 7) (`boxes.py`)."""

    paths: Sequence[str]
    targets: Any
    groups: Tensor | None = None  # int64 (N,): images of one group stay in one part of a split
    pairs: Pairs | None = None  # of its images, that a set names to be judged

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def _path_list(self) -> list[str]:
        """The paths as a list, which is fast to pick from, and slow to make."""
        return list(self.paths)

    def subset(self, indices: Tensor) -> "Files":
        chosen = indices.tolist()
        paths = self.paths if len(chosen) < len(self) // 64 else self._path_list
        tensor = isinstance(self.targets, Tensor)
        targets = self.targets[indices] if tensor else [self.targets[index] for index in chosen]
        groups = None if self.groups is None else self.groups[indices]
        pairs = None if self.pairs is None else self.pairs.among(indices)
        return Files([paths[index] for index in chosen], targets, groups, pairs)

    def item(self, index: int) -> Any:
        if has_boxes(self):
            return Pair(self.paths[index], self.targets[index].numpy())
        return Pair(self.paths[index], self.targets[index]) if has_spatial_targets(self) else self.paths[index]


Source = Arrays | Files | Packed


def has_spatial_targets(source: Source) -> bool:
    """Whether the targets are no classes, but masks, or boxes, which move with their images."""
    return not isinstance(source.targets, Tensor) or source.targets.ndim > 1


def has_boxes(source: Source) -> bool:
    """Whether the targets are tables of boxes."""
    return isinstance(source.targets, Tensor) and source.targets.is_floating_point()


def evenly_spaced(source: Source, wanted: int) -> Tensor:
    """Indices int64 of so many images, evenly spaced over the source: files are sorted by class."""
    return torch.linspace(0, len(source) - 1, min(wanted, len(source))).long()


def image_names(source: Source, indices: Tensor) -> list[str]:
    """Names of images for a message: their files, or their numbers."""
    if isinstance(source, Files):
        return [source.paths[index] for index in indices.tolist()]
    if isinstance(source, Packed):
        return [source.name(index) for index in indices.tolist()]
    if source.names:
        return [source.names[index] for index in indices.tolist()]
    return [f"image {index}" for index in indices.tolist()]


def image_ids(source: Source) -> list[str]:
    """What tells the images of a source apart in a table: their files, or their numbers from 0 on."""
    if isinstance(source, Arrays) and not source.names:
        return [str(index) for index in range(len(source))]
    return image_names(source, torch.arange(len(source)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Images of the splits, with classes, size and normalisation. mean and std are per channel, in 0..1.

    A training has no `test`: only who asks for the test split gets it.
    """

    name: str
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int  # side of the images, or of their usual crop
    crop_ratio: float  # side of the centre crop over the shorter side, for validation
    interpolation: str = "bilinear"  # of the resizing
    in_channels: int
    train: Source
    val: Source
    split: str  # source of val: "test" or "val" (the set's own) or "held-out" (taken from the training images)
    test: Source | None = None  # the test split, where it is not val
    root: str = ""  # folder of its files, to which the paths of `data.group=` are relative
    kept: str = ""  # what the test split is, in words, where there is one beside val; also where `test` is left out
    task: str = "classification"  # name of the task that its targets are for
    extra: dict[str, Any] = field(default_factory=dict)  # further facts for the task, kept with the net's weights
    pair: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None  # images and targets of a batch -> input and target
    whole: bool = False  # validation takes images whole, each at its own size
    grid: int = 1  # pixels: squares cut at random from files begin at multiples of it
    parted: bool = False  # it has held out its own parts: data.val_fraction and test_fraction are seen to
    alone: bool = False  # it comes in one part: nothing of its own to validate on
    skips: bool = False  # data.on_error=skip: images that do not serve the task are left out too
    folds: int = 10  # parts of the pairs of images by which it is judged, where they are drawn
    unreadable: tuple[str, ...] = ()  # images that data.on_error=skip left out, with the reasons
    left_out: dict[str, int] = field(default_factory=dict)  # files in its folders that are no images, by suffix
    notes: tuple[str, ...] = ()  # what was guessed or left out, in sentences for the user
    identity: str = ""  # hash over names and classes, or contents; empty where the name alone says which images

    @property
    def outputs(self) -> int:
        """Output channels of a net for these data: one for each class, unless the task says otherwise."""
        return int(self.extra.get("outputs", len(self.classes)))

    @property
    def splits(self) -> dict[str, Source]:
        """The splits by name, without empty ones."""
        named = {"train": self.train, self.split: self.val, **({"test": self.test} if self.test is not None else {})}
        return {name: source for name, source in named.items() if len(source)}

    def chosen(self, split: Split) -> tuple[str, Source]:
        """Name and images of the split asked for. UserError where there is no test split."""
        if split is Split.train:
            return "train", self.train
        if split is Split.val or self.split == "test":
            return self.split, self.val
        if self.test is None:
            raise UserError(f"split=test: {self.name} has no test images; a folder test beside train has them, or "
                            "data.test_fraction=0.2 keeps a part of the training images for it")  # fmt: skip
        return "test", self.test

    def changed(self, change: Callable[[Source], Source]) -> "Dataset":
        """The data set with the images of each split changed."""
        train, val = change(self.train), change(self.val)
        return replace(self, train=train, val=val, test=None if self.test is None else change(self.test))


def with_channels(dataset: Dataset, channels: int) -> Dataset:
    """The data set with as many channels as a net takes: gray is repeated, colour is converted to gray.

    Only images in memory are converted: files are always read in colour. UserError where it is not possible.
    """
    if channels == dataset.in_channels:
        return dataset
    if {channels, dataset.in_channels} != {1, 3} or not isinstance(dataset.train, Arrays):
        raise UserError(
            f"the net takes {plural(channels, 'channel')}, but the images of {dataset.name} have {dataset.in_channels}"
        )
    moments = [moment * 3 if channels == 3 else (sum(moment) / 3,) for moment in (dataset.mean, dataset.std)]

    def converted(source: Source) -> Source:
        assert isinstance(source, Arrays)
        return replace(source, images=recolored(source.images, channels))

    return replace(dataset.changed(converted), in_channels=channels, mean=moments[0], std=moments[1])


def place_images(dataset: Dataset, place: Callable[[Tensor], Tensor]) -> Dataset:
    """The data set with `place` applied to images in memory and their targets."""

    def there(source: Source) -> Source:
        if not isinstance(source, Arrays):
            return source
        return replace(source, images=place(source.images), targets=place(source.targets))

    return dataset.changed(there)


def recolored(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1, H, W) in three equal channels, or (N, 3, H, W) in gray, as Pillow converts."""
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601
    return (images.float() * luma).sum(1, keepdim=True).round().to(torch.uint8)


def fingerprint(source: Source) -> str:
    """Hash that changes when an image does: of the pixels in memory, of the names, sizes and times of files, or of the
    checksums of packed images."""
    total = hashlib.sha256()
    if isinstance(source, Arrays):
        total.update(str(tuple(source.images.shape)).encode())
        total.update(source.images.contiguous().numpy().data)
    elif isinstance(source, Packed):
        total.update(np.ascontiguousarray(source.table).data)
    else:
        for path in source.paths:
            status = Path(path).stat()
            total.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def read_mask(item: Any) -> Tensor:
    """Mask uint8 (H, W) of a pair: a class number, or an index of a palette, in each pixel."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item)
    check_is_file(item)
    with open_image(item, item) as image:
        mode, pixels = image.mode, np.array(image)
    if mode not in ("P", "L", "1"):
        raise UserError(
            f"the mask '{item}' has mode {mode}: it needs one class number for each pixel, in 8 bits, with or without "
            "a palette"
        )
    return torch.from_numpy(pixels.astype(np.uint8))


def read_item(item: Any) -> "Image | Tensor":
    """Image of an item, for a transform: a Pillow image in RGB, or a uint8 tensor (C, H, W)."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item)
    if hasattr(item, "as_pixels"):  # a file with a way of its own to be read
        return item.as_pixels()
    if isinstance(item, Record):
        with open_image(io.BytesIO(item.read()), item) as image:
            return upright(image)
    return read_image(item)


def read_bytes(item: Any) -> bytes:
    """Bytes of an item of files or shards. UserError that names the item."""
    if isinstance(item, Record):
        return item.read()
    check_is_file(item)
    try:
        return Path(item).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image '{item}': {_reason(error)}") from None


def read_image(path: str | os.PathLike[str], quietly: bool = True) -> "Image":
    """First frame of a file in RGB, turned upright by its EXIF. UserError that names a file that cannot be read.

    `quiet_pillow()` is not thread-safe: it is for the main thread, and other threads share one around all of them.
    """
    check_is_file(path)
    with open_image(path, path, quietly) as image:
        return upright(image)


def check_is_file(path: str | os.PathLike[str]) -> None:
    if not os.path.isfile(path):  # noqa: PTH113  # to open a named pipe would wait for ever
        raise UserError(f"cannot read the image '{os.fspath(path)}': there is no such file")


@contextmanager
def open_image(file: Any, item: Any, quietly: bool = True) -> "Iterator[Image]":
    """Pillow image whose pixels are not loaded yet. An error while it is open becomes a UserError that names it."""
    from PIL import Image

    # Pillow raises a dozen types of errors for a broken file.
    with quiet_pillow() if quietly and threading.current_thread() is threading.main_thread() else nullcontext():
        try:
            with Image.open(file, formats=readable_formats()) as image:
                yield image
        except Exception as error:
            name = f"{item.shard}: {item.name}" if isinstance(item, Record) else os.fspath(item)
            raise UserError(f"cannot read the image '{name}': {_reason(error, file)}") from None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings (odd EXIF, a large image): they name no file, and every worker would repeat them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def is_plain(image: "Image") -> bool:
    """Whether an open image is a JPEG in colour or gray that needs no turning."""
    return image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(ORIENTATION, 1) == 1


def upright(image: "Image") -> "Image":
    """Pillow image in RGB, turned upright by its EXIF. UserError where its pixels cannot be told (`modes.py`)."""
    from PIL import ImageOps

    still = image.format in PLAIN and not getattr(image, "is_animated", False)
    if still and image.mode == "RGB" and image.getexif().get(ORIENTATION, 1) == 1:  # as most are: without copies
        image.load()
        return image
    return in_rgb(ImageOps.exif_transpose(image), image.format)


def _reason(error: Exception, file: Any = b"") -> str:
    """Reason why a file, given by its path or its content, is no image."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        start = file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes() if file else b""
        return HEIC_REMEDY if is_heic(start) else "not an image that Pillow can read"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
