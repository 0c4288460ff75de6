"""Augmentation of whole batches of uint8 images, on the device where they are.

The augmentation of an image depends on its row of `Draws` alone, never on the rest of the batch. Crops and colours are
as in torchvision's RandomCrop, RandomResizedCrop and ColorJitter; tests compare them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.data.sources import IGNORE
from cnnbench.data.spec_augment import Warp
from cnnbench.data.transforms import Transform

ATTEMPTS = 10  # to draw an area and an aspect that fit into the image, as in torchvision
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


Crop = Callable[[Tensor, "Part", Tensor, int], Tensor]
"""(Images, part of each, flip of each, side of the result) -> resized parts."""

Part = tuple[Tensor, Tensor, Tensor, Tensor]
"""Top, left, height and width (N,) of a part of each image, in whole pixels."""


class Draws(NamedTuple):
    """A row of random numbers for each image."""

    whole: Tensor  # int64 (N, 5 or more), uniform: shift down and right, flip, row and column of the cutout, quarter
    # turns, then those of a `Warp`
    real: Tensor  # float32 (N, K) in 0..1: for the resized crop, then for the colours

    def rows(self, indices: Tensor) -> "Draws":
        return Draws(self.whole[indices], self.real[indices])

    def to(self, device: torch.device) -> "Draws":
        return Draws(self.whole.to(device), self.real.to(device))


@dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """Crop of random area and aspect, resized (Szegedy et al., 2015)."""

    scale: tuple[float, float]
    ratio: tuple[float, float]

    @property
    def numbers(self) -> int:
        return 2 * ATTEMPTS + 2

    def windows(self, real: Tensor, height: int, width: int) -> Part:
        """Crop of each image: the first attempt that fits, else the centre, as large as the aspect allows."""
        areas, aspects, (down, right) = real[:, :ATTEMPTS], real[:, ATTEMPTS:-2], real[:, -2:].unbind(1)
        (least, most), (low, high) = self.scale, (math.log(side) for side in self.ratio)
        area, aspect = height * width * (least + (most - least) * areas), torch.exp(low + (high - low) * aspects)
        heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        first, fitting = fits.float().argmax(1, keepdim=True), fits.any(1)
        fallback = self._fallback(height, width)
        h, w = (
            torch.where(fitting, sides.gather(1, first)[:, 0], side)
            for sides, side in zip((heights, widths), fallback, strict=True)
        )
        top = torch.where(fitting, (down * (height - h + 1)).floor(), (height - fallback[0]) // 2)
        left = torch.where(fitting, (right * (width - w + 1)).floor(), (width - fallback[1]) // 2)
        return top, left, h, w

    def _fallback(self, height: int, width: int) -> tuple[int, int]:
        low, high = self.ratio
        if width / height < low:
            return round(width / low), width
        return (height, round(height * high)) if width / height > high else (height, width)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchTransform:
    """Transform of a whole batch uint8 (N, C, H, W): shift or crop, flip, resize, colour jitter, then cutout."""

    size: int  # side of the result
    padding: int = 0  # shift by up to so many pixels, before the resizing
    padding_mode: str = "constant"  # zeros; or reflect
    room: tuple[int, int] = (0, 0)  # rows and columns by which the (resized) image is larger than the random crop
    flip: bool = False
    alternate: bool = False  # mirror each image in every other epoch, not at random
    crop: ResizedCrop | None = None
    resize: Transform | None = None
    resize_mask: Transform | None = None  # the same for masks
    turn: bool = False  # by random quarter turns
    color: float = 0.0
    cutout: int = 0
    fill: Tensor | None = None  # (C,), value of the cutout square
    warp: Warp | None = None  # of spectrograms

    @property
    def cuts(self) -> bool:
        """Whether a random square is cut from each image."""
        return max(self.room) > 0

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        down, right = (2 * self.padding + room + 1 for room in self.room)
        highs = [down, right, 2 if self.flip else 1, self.size, self.size, *([4] if self.turn else [])]
        highs += self.warp.highs if self.warp else []
        whole = torch.from_numpy(rng.integers(0, highs, size=(count, len(highs))))
        numbers = (self.crop.numbers if self.crop else 0) + (6 if self.color > 0 else 0)
        return Draws(whole, torch.from_numpy(rng.random((count, numbers), dtype=np.float32)))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        draws = draws.to(images.device)  # nvjpeg leaves images on the GPU, else nothing moves
        images = self._moved(images, draws, self.resize, resized_crop, fill=0)
        if self.color > 0:
            images = jittered(images, draws.real[:, -6:], self.color)
        if self.cutout > 0 and self.fill is not None:
            centre = draws.whole[:, 3:5].unbind(1)
            images = cut_out(images, *centre, side=self.cutout, fill=self.fill.to(images.device))
        if self.warp is not None and self.fill is not None:
            drawn = draws.whole[:, -len(self.warp.highs) :]
            images = self.warp(images, drawn, self.fill.to(images.device))
        return images

    def masks(self, masks: Tensor, draws: Draws) -> Tensor:
        """Masks uint8 (N, H, W), shifted, cropped and resized as their images; pixels from outside are IGNORE."""
        return self._moved(masks[:, None], draws.to(masks.device), self.resize_mask, nearest_crop, fill=IGNORE)[:, 0]

    def _moved(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        """Images after the geometric part: shift or crop, flip, resize, quarter turns."""
        moved = self._cut(images, draws, resize, crop, fill)
        return turned(moved, draws.whole[:, 5]) if self.turn else moved

    def _cut(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        down, right, flip = draws.whole[:, :3].unbind(1)
        if self.crop is not None:
            part = self.crop.windows(draws.real[:, : self.crop.numbers], *images.shape[2:])
            return crop(images, part, flip, self.size)
        if self.cuts:
            return window(resize(images) if resize else images, down, right, flip, self.size, self.size)
        if self.padding > 0 or self.flip:
            padded = pad(images, self.padding, self.padding_mode, fill)
            images = window(padded, down, right, flip, *images.shape[2:])
        return resize(images) if resize is not None else images


def pad(images: Tensor, pixels: int, mode: str, fill: int = 0) -> Tensor:
    """Images padded on all four sides with `fill`, or with mode `reflect` mirrored at the outermost pixels."""
    if mode == "constant" or not pixels:
        return F.pad(images, (pixels,) * 4, value=fill)
    rows, columns = (
        side - 1 - (side - 1 - torch.arange(-pixels, side + pixels, device=images.device).abs()).abs()
        for side in images.shape[2:]
    )
    return images[:, :, rows][..., columns]


def window(images: Tensor, down: Tensor, right: Tensor, flip: Tensor, height: int, width: int) -> Tensor:
    """Part of `height` x `width` pixels of each image at (down, right), mirrored left to right where flip is 1.

    images (N, C, H, W); down, right and flip: int64 (N,). It takes one gather.
    """
    n, c, _, line = images.shape
    across = torch.arange(width, device=images.device)
    rows = down[:, None] + torch.arange(height, device=images.device)
    columns = right[:, None] + torch.where(flip[:, None] == 1, width - 1 - across, across)
    index = (rows[:, :, None] * line + columns[:, None, :]).view(n, 1, -1)  # into the flattened image
    return images.flatten(2).gather(2, index.expand(n, c, height * width)).view(n, c, height, width)


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Square images (N, C, S, S), each turned left by so many quarters, (N,) in 0..3."""
    quarters = quarters[:, None, None, None]
    images = torch.where(quarters % 2 == 1, images.mT.flip(2), images)
    return torch.where(quarters >= 2, images.flip(2, 3), images)


def resized_crop(images: Tensor, part: Part, flip: Tensor, size: int) -> Tensor:
    """Part of each image resized to `size`, bilinear with antialiasing, mirrored where flip is 1."""
    top, left, height, width = part
    rows = resampling(top, height, images.shape[2], size)
    columns = resampling(left, width, images.shape[3], size)
    columns = torch.where(flip[:, None, None] == 1, columns.flip(1), columns)
    scaled = rows[:, None] @ images.float() @ columns.mT[:, None]
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def nearest_crop(masks: Tensor, part: Part, flip: Tensor, size: int) -> Tensor:
    """Part of each mask (N, 1, H, W) resized to `size` by nearest neighbours, mirrored where flip is 1."""
    top, left, height, width = (side.long() for side in part)
    places = torch.arange(size, device=masks.device)
    rows = top[:, None] + places * height[:, None] // size
    columns = left[:, None] + torch.where(flip[:, None] == 1, size - 1 - places, places) * width[:, None] // size
    picked = masks.gather(2, rows[:, None, :, None].expand(-1, 1, -1, masks.shape[3]))
    return picked.gather(3, columns[:, None, None, :].expand(-1, 1, size, -1))


def resampling(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Weights (N, size, pixels) that resize the interval [start, start + length) of a line of pixels to `size`.

    They are the triangle filter of Pillow and torch, as wide as a pixel of the result where the image shrinks, and zero
    outside the interval.
    """
    place = torch.arange(pixels, device=start.device) + 0.5
    scale = length[:, None, None] / size
    middle = start[:, None, None] + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * scale
    weights = (1 - (place - middle).abs() / scale.clamp(min=1)).clamp_(min=0)
    inside = (place > start[:, None]) & (place < (start + length)[:, None])
    weights *= inside[:, None, :]
    return weights / weights.sum(2, keepdim=True)


def jittered(images: Tensor, real: Tensor, strength: float) -> Tensor:
    """Images with brightness, contrast and saturation changed by factors in 1 +- strength, in a random order.

    real (N, 6): three factors, and three sort keys for the order. Images of one channel have no saturation.
    """
    factors = 1 + strength * (2 * real[:, :3] - 1)
    order = real[:, 3:].argsort(1)
    values = images.float()
    for turn in range(3):  # in each turn one of the three changes; the others have the factor 1
        kind = order[:, turn : turn + 1]
        brightness, contrast, saturation = torch.where(kind == torch.arange(3, device=images.device), factors, 1.0).T[
            :, :, None, None, None
        ]
        values = (values * brightness).clamp_(0, 255)
        values = _blend(values, _gray(values).mean((1, 2, 3), keepdim=True), contrast)
        if images.shape[1] == 3:
            values = _blend(values, _gray(values), saturation)
    return values.round_().to(torch.uint8)


def _gray(values: Tensor) -> Tensor:
    if values.shape[1] != 3:
        return values
    return (values * _luma_weights(values.device)).sum(1, keepdim=True)


@lru_cache
def _luma_weights(device: torch.device) -> Tensor:
    """Weights (1, 3, 1, 1), copied to the device once: a copy would wait for it."""
    return torch.tensor(LUMA, device=device).view(1, 3, 1, 1)


def _blend(values: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    return (base + (values - base) * factor).clamp_(0, 255)


def cut_out(images: Tensor, row: Tensor, column: Tensor, *, side: int, fill: Tensor) -> Tensor:
    """Images with a square of `side` pixels around (row, column), (N,) each, set to `fill` (C,). Edges may cut it."""

    def covered(centre: Tensor, length: int) -> Tensor:
        offset = torch.arange(length, device=images.device) - centre[:, None] + side // 2
        return (offset >= 0) & (offset < side)

    inside = covered(row, images.shape[2])[:, None, :, None] & covered(column, images.shape[3])[:, None, None, :]
    return torch.where(inside, fill[:, None, None], images)
