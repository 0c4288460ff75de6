"""From an image's file to the part of it that a net is given, decoding no more than is needed.

What a crop covers is drawn first, from the image's size in the file's header. Then a JPEG that is much larger than what
will be left of it is decoded at 1/2, 1/4 or 1/8 of its size, which skips most of the work; others by torchvision's
libjpeg-turbo straight into a tensor, whose part is resized without a copy into another library's format. Whatever is no
plain JPEG (CMYK, turned by EXIF, PNG and others) and whatever torchvision refuses is left to Pillow.

Random numbers are drawn as by torchvision's transforms v2, in the same order: the crops are those of
`sample_transform`, whose pixels differ by rounding only, since both filter with antialiasing.
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

REDUCING_GAP = 2.0  # a scaled decode leaves so many times the pixels that are needed, as Pillow's thumbnails do


class Region(NamedTuple):
    """A part of an image and the size it is resized to, pixels."""

    top: int
    left: int
    height: int
    width: int
    to_height: int
    to_width: int


@dataclass(frozen=True)
class Decode:
    """An item of files or shards -> uint8 (3, S, S), which lies in memory as channels last."""

    side: int  # what the crop is resized to; without a crop, the shorter side of the whole image
    crop: Any  # torchvision's RandomResizedCrop, or None
    then: Callable[[Tensor], Tensor]  # the rest, of tensors
    interpolation: str

    def __call__(self, item: Any) -> Tensor:
        return self.cut(*read_region(read_bytes(item), item, self.region))

    def cut(self, region: Region, pixels: Tensor) -> Tensor:
        """The region of the pixels uint8 (3, H, W), on any device, at its size and with all that follows."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        part = pixels[:, region.top : region.top + region.height, region.left : region.left + region.width]
        size, mode = [region.to_height, region.to_width], InterpolationMode(self.interpolation)
        return self.then(functional.resize(part, size, mode, antialias=True))

    def region(self, height: int, width: int) -> Region:
        """What is wanted of an image of this size; draws from torch's generator."""
        if self.crop is not None:
            drawn = self.crop.make_params([torch.empty(3, height, width, device="meta")])
            return Region(drawn["top"], drawn["left"], drawn["height"], drawn["width"], self.side, self.side)
        return Region(0, 0, height, width, *rescaled_size(height, width, self.side))


def read_region(data: bytes, item: Any, draw: Callable[[int, int], Region]) -> tuple[Region, Tensor]:
    """The drawn region, in the coordinates of the pixels uint8 (3, H, W) beside it. UserError naming a broken file.

    The region is drawn for the size that the image has, or had before it was packed: so packed and raw images are cut
    at the same places.
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
    return moved(region, pixels.shape[1] / height, pixels.shape[2] / width, pixels), pixels


def _scaled(image: Any, times: int) -> Tensor:
    """Decoded at 1/2, 1/4 or 1/8, whichever is the least that is not smaller than 1/times."""
    image.draft("RGB", (max(1, image.width // times), max(1, image.height // times)))
    return _loaded(image)


def _whole(data: bytes, image: Any) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:  # Pillow has the last word on what can be read, and better ones on why it cannot
        return _loaded(image)


def _loaded(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def moved(region: Region, down: float, across: float, pixels: Tensor) -> Region:
    """The region of an image whose sides were scaled by these factors; at least a pixel of it, and none outside."""
    if down == across == 1:
        return region
    height, width = pixels.shape[1:]
    top, bottom = round(region.top * down), round((region.top + region.height) * down)
    left, right = round(region.left * across), round((region.left + region.width) * across)
    top, left = min(top, height - 1), min(left, width - 1)
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    return region._replace(top=top, left=left, height=min(bottom, height) - top, width=min(right, width) - left)
