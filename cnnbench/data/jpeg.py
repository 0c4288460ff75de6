"""Decodes only as much of an image file as its crop needs.

The crop is drawn first, from the image's size in the file's header. A JPEG that is much larger than the crop's result
is then decoded at 1/2, 1/4 or 1/8 of its size, which skips most of the work. Other JPEGs are decoded by torchvision's
libjpeg-turbo into a tensor, of which the crop is resized. Files that are not plain JPEGs (CMYK, turned by EXIF, PNG and
others) and files that torchvision refuses are left to Pillow.

Random numbers are drawn as in torchvision's transforms v2, in the same order. So the crops are those of
`sample_transform`; their pixels differ only by rounding.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.geometry import as_tensor, rescaled_size
from cnnbench.data.shards import Record
from cnnbench.data.sources import is_plain, open_image, read_bytes, upright

REDUCING_GAP = 2.0  # a scaled decode keeps at least so many times the needed pixels, as in Pillow's thumbnails


class Region(NamedTuple):
    """Part of an image and the size that it is resized to, in pixels."""

    top: int
    left: int
    height: int
    width: int
    to_height: int
    to_width: int


@dataclass(frozen=True)
class Decode:
    """Transform of an item of files or shards to uint8 (3, S, S), channels last in memory."""

    side: int  # of the resized crop; without a crop, shorter side of the whole image
    crop: Any  # torchvision's RandomResizedCrop, or None
    then: Callable[[Tensor], Tensor]  # further transforms, of tensors
    interpolation: str

    def __call__(self, item: Any) -> Tensor:
        return self.cut(*read_region(read_bytes(item), item, self.region))

    def cut(self, region: Region, pixels: Tensor) -> Tensor:
        """Region of the pixels uint8 (3, H, W), on any device, resized and transformed."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        part = pixels[:, region.top : region.top + region.height, region.left : region.left + region.width]
        size, mode = [region.to_height, region.to_width], InterpolationMode(self.interpolation)
        return self.then(functional.resize(part, size, mode, antialias=True))

    def extremes(self, height: int, width: int) -> list[Region]:
        """Regions that are at least as small, and as large, as any that may be drawn for an image of this size."""
        whole = Region(0, 0, height, width, *rescaled_size(height, width, self.side))
        if self.crop is None:
            return [whole]
        low, high = self.crop.ratio
        drawn = math.sqrt(height * width * self.crop.scale[0] * min(low, 1 / high))
        least = int(min(drawn, width / max(1, low), height * min(1, high))) - 1
        return [Region(0, 0, side, side, self.side, self.side) for side in (max(1, least), min(height, width))]

    def region(self, height: int, width: int) -> Region:
        """Region for an image of this size, drawn from torch's generator."""
        if self.crop is not None:
            drawn = self.crop.make_params([torch.empty(3, height, width, device="meta")])
            return Region(drawn["top"], drawn["left"], drawn["height"], drawn["width"], self.side, self.side)
        return Region(0, 0, height, width, *rescaled_size(height, width, self.side))


def read_region(data: bytes, item: Any, draw: Callable[[int, int], Region]) -> tuple[Region, Tensor]:
    """Drawn region, and the pixels uint8 (3, H, W) in whose coordinates it is. UserError naming a broken file.

    The region is drawn for the image's size before it was packed, so packed and raw images are cropped alike.
    """
    with open_image(io.BytesIO(data), item) as image:
        pixels = None if is_plain(image) else as_tensor(upright(image))
        width, height = image.size if pixels is None else (pixels.shape[2], pixels.shape[1])
        drawn_for = (item.height, item.width) if isinstance(item, Record) else (height, width)
        region = draw(*drawn_for)
        if pixels is None:
            times = reduction(region, width / drawn_for[1])
            pixels = _scaled(image, times) if times >= 2 else _whole(data, image)
    return in_pixels(region, drawn_for, pixels), pixels


def reduction(region: Region, packed: float) -> int:
    """How many times smaller a JPEG may be decoded for this region; packed: by how much it was resized before."""
    return int(min(region.height / region.to_height, region.width / region.to_width) / REDUCING_GAP * packed)


def in_pixels(region: Region, drawn_for: tuple[int, int], pixels: Tensor) -> Region:
    """Region of an image of this height and width, in pixels (3, H, W) of it of any size."""
    height, width = drawn_for
    return scale_region(region, pixels.shape[1] / height, pixels.shape[2] / width, pixels)


class Scales(NamedTuple):
    """Scales of a JPEG of which crops are cut: whole (1), or at 1/2, 1/4 or 1/8 of its size."""

    height: int  # for which crops are drawn
    width: int
    file: tuple[int, int]  # width and height of the file; 0, 0 where it is always decoded whole
    kept: tuple[int, ...]

    def number(self, region: Region) -> int:
        """Number, among those that are kept, of the scale that a region is cut from."""
        return self.kept.index(draft_scale(self.file, reduction(region, self.file[0] / self.width)))


def draft_scale(size: tuple[int, int], times: int) -> int:
    """Scale at which Pillow decodes a JPEG of this width and height, that may be so many times smaller."""
    if times < 2 or not size[0]:
        return 1
    fits = min(side // max(1, side // times) for side in size)
    return next(scale for scale in (8, 4, 2, 1) if fits >= scale)


def read_scales(data: bytes, item: Any, decode: Decode) -> tuple[Scales, list[Tensor]]:
    """Pixels uint8 (3, H, W) at each scale that a crop of the image may be cut from, as `read_region` decodes them."""
    with open_image(io.BytesIO(data), item) as image:
        size, plain = image.size, is_plain(image)
        pixels = None if plain else as_tensor(upright(image))
    height, width = size[::-1] if pixels is None else (pixels.shape[1], pixels.shape[2])
    if isinstance(item, Record):
        height, width = item.height, item.width
    if pixels is not None:
        return Scales(height, width, (0, 0), (1,)), [pixels]
    times = [reduction(region, size[0] / width) for region in decode.extremes(height, width)]
    kept = sorted({draft_scale(size, one) for one in range(min(times), max(times) + 1)})
    return Scales(height, width, size, tuple(kept)), [_at(data, item, size, scale) for scale in kept]


def _at(data: bytes, item: Any, size: tuple[int, int], scale: int) -> Tensor:
    with open_image(io.BytesIO(data), item) as image:
        return _whole(data, image) if scale == 1 else _scaled(image, scale)


def _scaled(image: Any, times: int) -> Tensor:
    """Pixels decoded at the smallest of 1/2, 1/4 and 1/8 of the size that is at least 1/times."""
    image.draft("RGB", (max(1, image.width // times), max(1, image.height // times)))
    return _loaded(image)


def _whole(data: bytes, image: Any) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:  # Pillow reads more files, and has better error messages
        return _loaded(image)


def _loaded(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def scale_region(region: Region, down: float, across: float, pixels: Tensor) -> Region:
    """Region of an image whose sides were scaled by these factors: at least one pixel, none outside the image."""
    if down == across == 1:
        return region
    height, width = pixels.shape[1:]
    top, bottom = round(region.top * down), round((region.top + region.height) * down)
    left, right = round(region.left * across), round((region.left + region.width) * across)
    top, left = min(top, height - 1), min(left, width - 1)
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    return region._replace(top=top, left=left, height=min(bottom, height) - top, width=min(right, width) - left)
