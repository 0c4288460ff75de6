"""Operations on whole batches of uint8 images (N, C, H, W), each image by numbers of its own.

Colours are as in torchvision's ColorJitter; tests compare them.
"""

from functools import lru_cache

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


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
