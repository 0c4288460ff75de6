"""What a data set is made of: images in memory or in files, each with its target, and how one of them is read."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.shards import Packed, Record
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# By content, whatever a file is called. Pillow knows many more, and for one of them it runs an interpreter (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
ORIENTATION = 0x0112  # the tag in EXIF that says how a camera was held


IGNORE = 255  # in a mask: a pixel that counts for nothing


class Pair(NamedTuple):
    """An image and the mask that belongs to it, as items that are still to be read."""

    image: Any
    mask: Any


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images in memory: uint8 (N, C, H, W), with int64 targets (N,), or masks uint8 (N, H, W) of their size."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> "Arrays":
        return Arrays(self.images[indices], self.targets[indices])

    def item(self, index: int) -> Any:
        """What `read_item` turns into the image: here the pixels themselves, which pickle by value."""
        image = self.images[index].numpy()
        return Pair(image, self.targets[index].numpy()) if has_masks(self) else image


@dataclass(frozen=True, eq=False)
class Files:
    """Images in files of any format that Pillow reads, with int64 targets (N,), or with a mask's path for each."""

    paths: Sequence[str]
    targets: Any

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> "Files":
        chosen = indices.tolist()
        targets = [self.targets[index] for index in chosen] if has_masks(self) else self.targets[indices]
        return Files([self.paths[index] for index in chosen], targets)

    def item(self, index: int) -> Any:
        return Pair(self.paths[index], self.targets[index]) if has_masks(self) else self.paths[index]


Source = Arrays | Files | Packed


def has_masks(source: Source) -> bool:
    """Whether the targets are masks, which move with their images."""
    return not isinstance(source.targets, Tensor) or source.targets.ndim > 1


def strata(source: Source) -> Tensor:
    """int64 (N,): class of each image, by which a part of the images is drawn; zeros where an image has none."""
    return torch.zeros(len(source), dtype=torch.int64) if has_masks(source) else source.targets


def evenly_spaced(source: Source, wanted: int) -> Tensor:
    """Indices of so many images from all over the source (files lie class by class), or of all of them: int64."""
    return torch.linspace(0, len(source) - 1, min(wanted, len(source))).long()


def image_names(source: Source, indices: Tensor) -> list[str]:
    """What to call images in a message: their files, or their numbers."""
    if isinstance(source, Files):
        return [source.paths[index] for index in indices.tolist()]
    if isinstance(source, Packed):
        return [source.name(index) for index in indices.tolist()]
    return [f"image {index}" for index in indices.tolist()]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Training and validation images, and what a net must know of them. mean and std are per channel, in 0..1."""

    name: str
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int  # side of the images as they are, or as the field crops them
    crop_ratio: float  # side of the centre crop over the shorter side, for validation
    interpolation: str = "bilinear"  # of the resizing
    in_channels: int
    train: Source
    val: Source
    split: str  # what val is: "test" or "val" (the set's own) or "held-out" (taken from the training images)
    task: str = "classification"  # what its targets are for
    extra: dict[str, Any] = field(default_factory=dict)  # what else the task must know: kept with the net's weights
    unreadable: tuple[str, ...] = ()  # what data.on_error=skip left out, and why

    @property
    def outputs(self) -> int:
        """Output channels of a net for these data: one for each class, unless the task says otherwise."""
        return int(self.extra.get("outputs", len(self.classes)))


def folds(targets: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """For each fold the indices of the other images and of its own, every class spread evenly over the folds.

    UserError where a class has fewer images than there are folds.
    """
    fewest = int(torch.bincount(targets).min())
    if fewest < count:
        raise UserError(f"folds={count} needs {count} images of every class, but one has {fewest}")
    rng = np.random.default_rng(0)
    number = torch.empty(len(targets), dtype=torch.int64)
    for members in torch.split(torch.argsort(targets, stable=True), torch.bincount(targets).tolist()):
        number[members[torch.from_numpy(rng.permutation(len(members)))]] = torch.arange(len(members)) % count
    return [((number != fold).nonzero().flatten(), (number == fold).nonzero().flatten()) for fold in range(count)]


def with_channels(dataset: Dataset, channels: int) -> Dataset:
    """The same images with as many channels as a net takes: gray ones repeated, coloured ones turned to gray.

    Only images in memory are turned; a file is always read in colour. UserError where there is no way.
    """
    if channels == dataset.in_channels:
        return dataset
    if {channels, dataset.in_channels} != {1, 3} or not isinstance(dataset.train, Arrays):
        raise UserError(
            f"the net takes {channels} channels, but the images of {dataset.name} have {dataset.in_channels}"
        )
    assert isinstance(dataset.val, Arrays)
    moments = [moment * 3 if channels == 3 else (sum(moment) / 3,) for moment in (dataset.mean, dataset.std)]
    train, val = (Arrays(recolored(part.images, channels), part.targets) for part in (dataset.train, dataset.val))
    return replace(dataset, in_channels=channels, train=train, val=val, mean=moments[0], std=moments[1])


def map_images(dataset: Dataset, place: Callable[[Tensor], Tensor]) -> Dataset:
    """The same images, those in memory where `place` puts them, with their targets."""

    def there(source: Source) -> Source:
        return Arrays(place(source.images), place(source.targets)) if isinstance(source, Arrays) else source

    return replace(dataset, train=there(dataset.train), val=there(dataset.val))


def recolored(images: Tensor, channels: int) -> Tensor:
    """uint8 (N, 1, H, W) in three equal channels, or (N, 3, H, W) in gray, as Pillow converts."""
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601
    return (images.float() * luma).sum(1, keepdim=True).round().to(torch.uint8)


def fingerprint(source: Source) -> str:
    """A hash that changes when an image does: of the pixels in memory, of the files' names, sizes and times,
    of the packed images' checksums."""
    total = hashlib.sha256()
    if isinstance(source, Arrays):
        total.update(str(tuple(source.images.shape)).encode())
        total.update(source.images.contiguous().numpy().data)
    elif isinstance(source, Packed):
        total.update(np.ascontiguousarray(source.table).data)
    else:
        for path in source.paths:
            status = Path(path).stat()
            total.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.hexdigest()


def pick(targets: Tensor, fraction: float, *, leave: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of `fraction` of each class (at least one image, and all but `leave` at most) and of the others.

    Always the same images, whatever the seed of the run, so that runs compare; a smaller fraction of the same targets
    picks a subset of a larger one's.
    """
    rng = np.random.default_rng(0)
    picked = torch.zeros(len(targets), dtype=torch.bool)
    for members in torch.split(torch.argsort(targets, stable=True), torch.bincount(targets).tolist()):
        count = min(max(1, round(fraction * len(members))), len(members) - leave)
        picked[members[torch.from_numpy(rng.permutation(len(members))[: max(count, 0)])]] = True
    return picked.nonzero().flatten(), (~picked).nonzero().flatten()


def read_mask(item: Any) -> Tensor:
    """uint8 (H, W): a mask of a pair, whose file has a class number, or a palette's index, in each pixel."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item)
    _check_is_file(item)
    with open_image(item, item) as image:
        if image.mode not in ("P", "L"):
            raise UserError(f"the mask '{item}' has mode {image.mode}: it needs one class number for each pixel")
        return torch.from_numpy(np.array(image))


def read_item(item: Any) -> "Image | Tensor":
    """An item of a source as a transform takes it: a Pillow image in RGB, or a uint8 tensor (C, H, W)."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item)
    if isinstance(item, Record):
        with open_image(io.BytesIO(item.read()), item) as image:
            return upright(image)
    return read_image(item)


def read_bytes(item: Any) -> bytes:
    """The bytes of an item of files or shards. UserError that names it."""
    if isinstance(item, Record):
        return item.read()
    _check_is_file(item)
    try:
        return Path(item).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image '{item}': {_reason(error)}") from None


def read_image(path: str | os.PathLike[str], quietly: bool = True) -> "Image":
    """The file's first frame in RGB, upright as its EXIF says. UserError naming the file if it cannot be read.

    Threads that read at the same time do so inside one `quiet_pillow()`, with quietly=False: it is not for threads.
    """
    _check_is_file(path)
    with open_image(path, path, quietly) as image:
        return upright(image)


def _check_is_file(path: str | os.PathLike[str]) -> None:
    if not os.path.isfile(path):  # noqa: PTH113  # a pipe of that name would be waited for, for ever
        raise UserError(f"cannot read the image '{os.fspath(path)}': there is no such file")


@contextmanager
def open_image(file: Any, item: Any, quietly: bool = True) -> "Iterator[Image]":
    """A Pillow image whose pixels are still to be loaded. What fails while it is open is a UserError that names it."""
    from PIL import Image

    # What Pillow raises on a broken file is any of a dozen types, and all of them mean that this file is unreadable.
    with quiet_pillow() if quietly else nullcontext():
        try:
            with Image.open(file, formats=FORMATS) as image:
                yield image
        except Exception as error:
            name = f"{item.shard}: {item.name}" if isinstance(item, Record) else os.fspath(item)
            raise UserError(f"cannot read the image '{name}': {_reason(error)}") from None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings (odd EXIF, a big picture): they name no file and would come from every worker."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def is_plain(image: "Image") -> bool:
    """Whether an open image is a JPEG, in colour or gray, that is shown as it lies."""
    return image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(ORIENTATION, 1) == 1


def upright(image: "Image") -> "Image":
    """A Pillow image in RGB, turned as its EXIF says."""
    from PIL import ImageOps

    return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow knows"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _eight_bits(image: "Image") -> "Image":
    """16-bit gray scaled to 8 bits: Pillow's own conversion clips it, and nearly all of the picture turns white."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
