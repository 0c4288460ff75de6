"""Decodes only as much of an image file as its crop needs.

The crop is drawn first, from the image's size in the file's header. A JPEG that is much larger than the crop's result
is then decoded at 1/2, 1/4 or 1/8 of its size, which skips most of the work. Other JPEGs are decoded by torchvision's
libjpeg-turbo into a tensor, of which the crop is resized. Files that are not plain JPEGs (CMYK, turned by EXIF, PNG and
others) and files that torchvision refuses are left to Pillow.

Random numbers are drawn as in torchvision's transforms v2, in the same order. So the crops are those of
`sample_transform`; their pixels differ only by rounding.
"""

import io
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
        region = draw(*((item.height, item.width) if isinstance(item, Record) else (height, width)))
        if pixels is None:
            wanted = min(region.height / region.to_height, region.width / region.to_width) / REDUCING_GAP
            if isinstance(item, Record):
                wanted *= width / item.width
            pixels = _scaled(image, int(wanted)) if wanted >= 2 else _whole(data, image)
    if isinstance(item, Record):
        height, width = item.height, item.width
    return scale_region(region, pixels.shape[1] / height, pixels.shape[2] / width, pixels), pixels


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
