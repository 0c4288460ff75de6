"""Images without labels: a folder of them, or pairs with small images of the same names, and squares cut from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.geometry import as_tensor
from cnnbench.data.layout import split_of
from cnnbench.data.luma import luma
from cnnbench.data.scan import Found, images_below, left_out_note, links_note, subfolders
from cnnbench.data.sources import ORIENTATION, Arrays, Dataset, Files, Source, open_image, recolored, upright
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

GRAY = ("1", "L", "LA", "La", "I", "F")  # modes of Pillow without colour; those of 16 bits begin with I;16
USUAL_SIDE = 96


@dataclass(frozen=True)
class Photo(os.PathLike[str]):
    """A file to be read as so many channels: 3, or 1, which is luma; gray files are taken as they are."""

    path: str
    channels: int
    low: str | None = None  # the small image of a pair
    scale: int = 1

    def __fspath__(self) -> str:
        return self.path

    def as_pixels(self) -> Tensor:
        """Image uint8 (C, H, W); of a pair (2 C, H, W): the small one lies behind, each pixel repeated to a block."""
        image = read_photo(self.path, self.channels)
        if self.low is None:
            return image
        low = read_photo(self.low, self.channels)
        check_pair(self, image.shape[1:], low.shape[1:])
        return torch.cat([image, blocks(low, self.scale)])


@dataclass(frozen=True, eq=False)
class Photographs(Files):
    """Images in files, read in so many channels; `low`: the small image of each, where they are pairs."""

    channels: int = 3
    low: Sequence[str] | None = None
    scale: int = 1
    stride: int | None = None  # of the grid on which a task may cut them into squares, in memory
    side: int | None = None  # of these squares

    def subset(self, indices: Tensor) -> "Photographs":
        chosen = indices.tolist()
        low = None if self.low is None else [self.low[index] for index in chosen]
        groups = None if self.groups is None else self.groups[indices]
        paths = [self.paths[index] for index in chosen]
        return replace(self, paths=paths, targets=self.targets[indices], groups=groups, low=low)

    def item(self, index: int) -> Photo:
        return Photo(self.paths[index], self.channels, self.low[index] if self.low else None, self.scale)


def is_paired(source: Source) -> bool:
    """Whether small images come from files too."""
    return isinstance(source, Photographs) and source.low is not None


def read_photo(path: str, channels: int) -> Tensor:
    """Pixels uint8 (C, H, W) of a file, upright. UserError that names it."""
    with open_image(path, path) as image:
        gray = image.mode in GRAY or image.mode.startswith("I;16")
        pixels = as_tensor(upright(image))
    if channels == 3:
        return pixels
    return pixels[:1] if gray else luma(pixels).to(torch.uint8)


def blocks(low: Tensor, scale: int) -> Tensor:
    """Each pixel of (C, h, w) repeated to a block of scale x scale."""
    return low.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def check_pair(photo: Photo, high: Sequence[int], low: Sequence[int]) -> None:
    if tuple(high) != tuple(photo.scale * side for side in low):
        sides = [f"{width} x {height}" for height, width in (low, high)]
        raise UserError(
            f"'{photo.low}' has {sides[0]} pixels and '{photo.path}' {sides[1]}: not {photo.scale} times as many"
        )


def in_channels(source: Arrays, channels: int) -> Arrays:
    """Images in memory in so many channels: luma of colour, gray repeated."""
    if source.images.shape[1] == channels:
        return source
    images = recolored(source.images, 3) if channels == 3 else luma(source.images).to(torch.uint8)
    return Arrays(images, source.targets)


def in_squares(source: Photographs, side: int, stride: int) -> Arrays:
    """All squares on a grid, in memory. UserError that names a file that is smaller than a square."""
    squares = torch.cat([_squares(source.item(index), side, stride) for index in range(len(source))])
    return Arrays(squares, torch.zeros(len(squares), dtype=torch.int64))


def _squares(photo: Photo, side: int, stride: int) -> Tensor:
    image = photo.as_pixels()
    check_side(photo.path, image.shape[1:], side)
    cut: Tensor = image.unfold(1, side, stride).unfold(2, side, stride).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return cut.contiguous()


def check_side(path: str, size: Sequence[int], side: int) -> None:
    if min(size) < side:
        height, width = size
        raise UserError(
            f"'{path}' has {width} x {height} pixels, less than the squares of {side} that are cut from it: "
            f"set data.image_size={min(size)} or less, or leave it out"
        )


def size_of(path: str) -> tuple[int, int]:
    """Height and width from the head of a file, as it is turned upright."""
    with open_image(path, path) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


# Data sets


def images(cfg: DataConfig, root: Path) -> Dataset:
    """Images below ROOT/train and ROOT/val or test, or all below ROOT, with some of them held out."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}'.\ndata=images expects {EXPECTED}.")
    folders = {split_of(folder.name): folder for folder in subfolders(root)}
    if "train" not in folders:
        return _dataset(cfg, root, root, "all")
    split = next((name for name in ("val", "test") if name in folders), "val")
    val = folders.get(split)
    if val is None and cfg.val_fraction == 0:
        raise UserError(f"data={cfg.name} found nothing to validate on: '{root}' has no folder val or test.\n"
                        "Set data.val_fraction=0.1 to hold out a tenth of the training images.")  # fmt: skip
    return _dataset(cfg, folders["train"], val or folders["train"], split)


EXPECTED = "DIR/train/*.png and DIR/val/*.png (or test), or DIR/*.png with data.val_fraction=0.1"


def t91(cfg: DataConfig, root: Path) -> Dataset:
    """T91 to train on (Yang et al., 2010), Set5 to validate on (Bevilacqua et al., 2012)."""
    homes = [folder for folder in (root, root / "sr") if folder.is_dir()]
    named = {folder.name.casefold(): folder for home in homes for folder in subfolders(home)}
    train = next((named[name] for name in ("t91", "yang91", "91-image") if name in named), None)
    if train is None or "set5" not in named:
        raise UserError(f"data=t91 expects in '{root}' the folders T91 (or yang91) and Set5 with their images.\n"
                        "Set data.root=DIR (or $CNNBENCH_DATA) to where they are.")  # fmt: skip
    return _dataset(cfg, train, named["set5"], "test")


def _dataset(cfg: DataConfig, train: Path, val: Path, split: str) -> Dataset:
    found = {folder: images_below(folder) for folder in (train, val)}
    for folder, one in found.items():
        if not one.names:
            raise UserError("; ".join(filter(None, [f"no images in '{folder}'", left_out_note(one.left_out)])))
    notes = [f"'{folder}': {note}" for folder, one in found.items()
             for note in (left_out_note(one.left_out), links_note(one.links)) if note]  # fmt: skip
    sources = [_source(cfg, found[folder]) for folder in (train, val)]
    return Dataset(
        name=cfg.name,
        classes=[],
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image_size=cfg.image_size or USUAL_SIDE,
        crop_ratio=1.0,
        in_channels=3,
        train=sources[0],
        val=sources[1],
        split=split,
        task="super_resolution",
        notes=tuple(notes),
        left_out=dict(found[train].left_out),
    )


def _source(cfg: DataConfig, found: Found) -> Photographs:
    paths = [str(found.folder / name) for name in found.names]
    low = None if cfg.lr is None else _low(cfg, paths)
    return Photographs(paths, torch.zeros(len(paths), dtype=torch.int64), low=low, stride=cfg.stride,
                       side=cfg.image_size)  # fmt: skip


def _low(cfg: DataConfig, paths: Sequence[str]) -> list[str]:
    """The small image of each file: of the same name below data.lr as the file has below data.root."""
    high = Path(cfg.root or os.environ.get("CNNBENCH_DATA") or "data").expanduser()
    low = [str(Path(cfg.lr or "").expanduser() / Path(path).relative_to(high)) for path in paths]
    missing = [(small, path) for small, path in zip(low, paths, strict=True) if not Path(small).is_file()]
    if missing:
        more = f" and {plural(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise UserError(f"data.lr: there is no '{missing[0][0]}', the small image of '{missing[0][1]}'{more}")
    return low
