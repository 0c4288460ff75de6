"""Operations on whole batches of uint8 images (N, C, H, W), each image by a value of its own, float32 (N,).

They are torchvision's (`transforms.v2.functional`), which have one value for a whole batch; tests compare them. What
happens to an image does not depend on the rest of its batch.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.utils.fast_start import import_transforms

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it

Operation = Callable[[Tensor, Tensor], Tensor]
"""(Images, value of each) -> changed images."""


def brightness(images: Tensor, by: Tensor) -> Tensor:
    """Images times 1 + by."""
    return blended(images, 0, by)


def color(images: Tensor, by: Tensor) -> Tensor:
    """Images further from their gray by the factor 1 + by; without colours, as they are."""
    return blended(images, gray(images), by) if images.shape[1] == 3 else images


def contrast(images: Tensor, by: Tensor) -> Tensor:
    """Images further from their mean gray by the factor 1 + by."""
    return blended(images, gray(images).mean((1, 2, 3), keepdim=True), by)


def sharpness(images: Tensor, by: Tensor) -> Tensor:
    """Images further from their smoothed selves by the factor 1 + by; the outermost pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    smooth, (height, width) = images.float(), (side - 2 for side in images.shape[2:])
    around = [smooth[:, :, down : down + height, right : right + width] for down in range(3) for right in range(3)]
    smooth[:, :, 1:-1, 1:-1] = ((sum(around) + 4 * around[4]) / 13).round()
    return blended(images, smooth, by)


def gray(images: Tensor) -> Tensor:
    """Gray values float32 (N, 1, H, W) in whole levels; of other than three channels, the channels as they are."""
    return luma(images.float()).floor()


def blended(images: Tensor, base: Tensor | int, by: Tensor) -> Tensor:
    """Images moved away from `base` by the factor 1 + by."""
    factor = 1 + by[:, None, None, None]
    return (images * factor + base * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Images of whose values only the so many highest of 8 bits are left."""
    step = torch.exp2(8 - bits.clamp(0, 8))[:, None, None, None]
    return ((images / step).floor_() * step).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Images whose values from the threshold on, a part of 255, are inverted."""
    return torch.where(images >= 255 * threshold[:, None, None, None], 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Images whose channels each reach from 0 to 255."""
    return _torchvision().autocontrast(images) if images.shape[1] in (1, 3) else images


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Images whose channels each have all values about equally often."""
    return _torchvision().equalize(images)


def _torchvision() -> Any:
    import_transforms()
    from torchvision.transforms.v2 import functional

    return functional


def invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def rotated(images: Tensor, degrees: Tensor, mode: str = "bilinear", fill: int = 0) -> Tensor:
    """Images turned left around their middle by so many degrees; what comes in from outside is `fill`."""
    angle = torch.deg2rad(degrees)
    zero, cosine, sine = torch.zeros_like(angle), angle.cos(), angle.sin()
    return moved(images, (cosine, -sine, zero, sine, cosine, zero), mode, fill)


Map = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""a, b, c, d, e, f (N,): where the pixel at (x, y) of the result comes from: (ax + by + c, dx + ey + f), in pixels from
the middle of the image to the right and down."""


def moved(images: Tensor, source: Map, mode: str = "nearest", fill: int = 0) -> Tensor:
    """Images whose pixels come from elsewhere in them; what comes from outside is `fill`."""
    height, width = images.shape[2:]
    a, b, c, d, e, f = (one[:, None, None] for one in source)
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    grid = torch.stack([(a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)], dim=3)
    found = F.grid_sample(images.float() - fill, grid, mode, "zeros", align_corners=False)
    return (found + fill).round_().to(torch.uint8)


def blurred(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Images smoothed by a Gaussian of this standard deviation, in pixels, up to `reach` pixels from its middle; beyond
    the edge lies their mirror image."""
    places = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (places / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).T[:, :, None, None, None]  # (places, N, 1, 1, 1)
    smooth = F.pad(images.float(), (reach,) * 4, mode="reflect")
    for axis, side in enumerate(images.shape[2:], start=2):
        smooth = sum(weight * smooth.narrow(axis, place, side) for place, weight in enumerate(weights))
    return smooth.round_().clamp_(0, 255).to(torch.uint8)


def sigmas(real: Tensor, largest: float) -> Tensor:
    """Standard deviations (N,) between 0.1, or less, and `largest` pixels, from numbers in 0..1."""
    least = least_sigma(largest)
    return least + (largest - least) * real


def least_sigma(largest: float) -> float:
    """Standard deviation from which on those up to `largest` are drawn, in pixels."""
    return min(0.1, largest)


def reach_of(sigma: float) -> int:
    """Pixels from the middle of a Gaussian beyond which it is left out."""
    return math.ceil(3 * sigma)


def erased(images: Tensor, part: tuple[Tensor, ...], chosen: Tensor, fill: Tensor) -> Tensor:
    """Images with a part (top, left, height and width, (N,) each) set to `fill` (C,) where `chosen` (N,) is true."""
    top, left, height, width = part

    def within(start: Tensor, length: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=images.device) - start[:, None]
        return (place >= 0) & (place < length[:, None])

    rows, columns = within(top, height, images.shape[2]), within(left, width, images.shape[3])
    inside = (rows & chosen[:, None])[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, fill[:, None, None], images)


def cut_out(images: Tensor, row: Tensor, column: Tensor, *, side: int, fill: Tensor) -> Tensor:
    """Images with a square of `side` pixels around (row, column), (N,) each, set to `fill` (C,). Edges may cut it."""

    def covered(centre: Tensor, length: int) -> Tensor:
        offset = torch.arange(length, device=images.device) - centre[:, None] + side // 2
        return (offset >= 0) & (offset < side)

    inside = covered(row, images.shape[2])[:, None, :, None] & covered(column, images.shape[3])[:, None, None, :]
    return torch.where(inside, fill[:, None, None], images)


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
        values = _blend(values, luma(values).mean((1, 2, 3), keepdim=True), contrast)
        if images.shape[1] == 3:
            values = _blend(values, luma(values), saturation)
    return values.round_().to(torch.uint8)


def luma(values: Tensor) -> Tensor:
    """Gray values (N, 1, H, W); of other than three channels, the channels as they are."""
    if values.shape[1] != 3:
        return values
    return (values * _luma_weights(values.device)).sum(1, keepdim=True)


@lru_cache
def _luma_weights(device: torch.device) -> Tensor:
    """Weights (1, 3, 1, 1), copied to the device once: a copy would wait for it."""
    return torch.tensor(LUMA, device=device).view(1, 3, 1, 1)


def _blend(values: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    return (base + (values - base) * factor).clamp_(0, 255)
