"""Parts of whole batches of images: drawn, cut, resized, mirrored and turned, each image by numbers of its own.

Crops are as in torchvision's RandomCrop and RandomResizedCrop; tests compare them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ATTEMPTS = 10  # to draw an area and an aspect that fit into the image, as in torchvision

Crop = Callable[[Tensor, "Part", Tensor, int], Tensor]
"""(Images, part of each, flip of each, side of the result) -> resized parts."""

Part = tuple[Tensor, Tensor, Tensor, Tensor]
"""Top, left, height and width (N,) of a part of each image, in whole pixels."""


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
