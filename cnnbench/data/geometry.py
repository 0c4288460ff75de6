"""Resizing and cropping of Pillow images and of uint8 tensors (..., C, H, W), pixel for pixel as in torchvision.

torchvision itself is not used: its import takes longer than to classify an image.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.config.sections import Resize

Picture = Any
"""A Pillow image or a uint8 tensor (..., C, H, W)."""


def height_and_width(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, Tensor):
        return picture.shape[-2], picture.shape[-1]
    width, height = picture.size
    return height, width


def resized(picture: Picture, height: int, width: int, interpolation: str) -> Picture:
    """Picture of exactly this size, resized with antialiasing."""
    if height_and_width(picture) == (height, width):
        return picture
    if isinstance(picture, Tensor):
        return _resized_tensor(picture, height, width, interpolation)
    from PIL.Image import Resampling

    return picture.resize((width, height), Resampling[interpolation.upper()])


def _resized_tensor(images: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    batch = images.reshape(-1, *images.shape[-3:])
    native = batch.device.type == "cpu"  # other devices resize only floats
    smooth = {} if interpolation == "nearest" else {"align_corners": False, "antialias": True}
    scaled = F.interpolate(batch if native else batch.float(), (height, width), mode=interpolation, **smooth)
    exact = scaled if native else scaled.round_().clamp_(0, 255).to(torch.uint8)
    return exact.reshape(*images.shape[:-2], height, width)


def rescaled(picture: Picture, side: int, resize: Resize, interpolation: str) -> Picture:
    """Picture with its shorter side resized to `side` and the aspect kept, or with both sides resized to it."""
    if resize is Resize.squash:
        return resized(picture, side, side, interpolation)
    return resized(picture, *rescaled_size(*height_and_width(picture), side), interpolation)


def rescaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width after the shorter side is resized to `side`, with the aspect kept."""
    longer = int(side * max(height, width) / min(height, width))  # rounded down, as torchvision does
    return (side, longer) if height <= width else (longer, side)


def cropped(picture: Picture, top: int, left: int, side: int) -> Picture:
    """Square of the picture at (top, left)."""
    if isinstance(picture, Tensor):
        return picture[..., top : top + side, left : left + side]
    return picture.crop((left, top, left + side, top + side))


def centre(picture: Picture, side: int) -> Picture:
    """Central square of the picture."""
    height, width = height_and_width(picture)
    return cropped(picture, round((height - side) / 2), round((width - side) / 2), side)


def squares(picture: Picture) -> list[Picture]:
    """Left, centre and right square of a wide image; top, centre and bottom square of a high one."""
    height, width = height_and_width(picture)
    side, free = min(height, width), abs(width - height)
    starts = (0, round(free / 2), free)
    return [cropped(picture, *((0, start) if width >= height else (start, 0)), side) for start in starts]


def corners_and_centre(picture: Picture, side: int) -> list[Picture]:
    """Five squares: top left, top right, bottom left, bottom right, centre."""
    height, width = height_and_width(picture)
    corners = [(top, left) for top in (0, height - side) for left in (0, width - side)]
    return [*(cropped(picture, top, left, side) for top, left in corners), centre(picture, side)]


def as_tensor(picture: Picture) -> Tensor:
    """Tensor uint8 (C, H, W) of a Pillow image in RGB or gray; a tensor stays as it is."""
    if isinstance(picture, Tensor):
        return picture
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def mirrored(tensor: Tensor) -> Tensor:
    """Images mirrored left to right."""
    return tensor.flip(-1)


def shifted(tensor: Tensor, down: int, right: int) -> Tensor:
    """Images uint8 (..., C, H, W) shifted; the pixels at the edge are repeated."""
    height, width = tensor.shape[-2:]
    rows = (torch.arange(height, device=tensor.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=tensor.device) - right).clamp(0, width - 1)
    return tensor[..., rows, :][..., columns]
