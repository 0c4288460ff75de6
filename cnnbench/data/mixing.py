"""Mixup and CutMix: each image of a batch mixed with the one that comes next in the epoch, and their classes with it.

Zhang et al. (2018), mixup: Beyond empirical risk minimization. Yun et al. (2019), CutMix: Regularization strategy to
train strong classifiers with localizable features. Each image has a share of its own, drawn as its augmentation is. The
next in the epoch is the same image for any batch size and number of processes; a batch brings it along.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixing of images. mixup, cutmix: alpha of the Beta distribution of the shares; 0: none of it. With both, each
    image has one of the two, either as likely."""

    mixup: float = 0.0
    cutmix: float = 0.0

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """Random numbers of the images, float32 (count, 4): share in mixup, share in CutMix (1 where there is none of
        it), middle of the rectangle."""
        shares = np.ones((count, 2))
        for column, alpha in enumerate((self.mixup, self.cutmix)):
            if alpha:
                shares[:, column] = rng.beta(alpha, alpha, size=count)
        if self.mixup and self.cutmix:
            shares[np.arange(count), rng.integers(2, size=count)] = 1
        return torch.from_numpy(np.hstack([shares, rng.random((count, 2))]).astype(np.float32))

    def __call__(self, images: Tensor, targets: Tensor, drawn: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, C, H, W) and soft targets float32 (N, classes), whose rows add up to 1.

        images and targets (N + 1, …): each image and the next; drawn (N, 4). The share of a class is that of the
        pixels, exactly.
        """
        mine, other = images[:-1], images[1:]
        share, whole, row, column = drawn.unbind(1)
        inside = rectangles(1 - whole, row, column, *images.shape[2:])
        mixed = torch.lerp(other.float(), mine.float(), share[:, None, None, None]).round_().to(torch.uint8)
        mixed = torch.where(inside[:, None], other, mixed)
        kept = (share * (1 - inside.float().mean((1, 2))))[:, None]
        first, second = (F.one_hot(one, classes).float() for one in (targets[:-1], targets[1:]))
        return mixed, kept * first + (1 - kept) * second


def rectangles(area: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Pixels, bool (N, height, width), of rectangles of the image's shape with this part of its area, around the middle
    (row, column) in 0..1. Edges may cut them."""
    side = area.clamp(min=0).sqrt()

    def within(middle: Tensor, pixels: int) -> Tensor:
        centre, half = (middle * pixels).floor(), (side * pixels).floor() / 2
        first, last = (centre - half).ceil().clamp(min=0), (centre + half).ceil().clamp(max=pixels)
        place = torch.arange(pixels, device=area.device)
        return (place >= first[:, None]) & (place < last[:, None])

    return within(row, height)[:, :, None] & within(column, width)[:, None, :]
