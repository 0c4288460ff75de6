"""Mean and standard deviation of the channels of images."""

from typing import Any

import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPH = 224  # pixels: the usual side of the part of a photograph that a net takes
OF_PHOTOGRAPHS: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "in_channels": 3}  # of a Dataset
AT_ONCE = 4096  # images that are counted at once: counting takes eight times their memory


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel of uint8 (N, C, H, W), in 0..1, summed as integers: sums of floats depend on the
    number of threads."""
    counts = torch.stack([_counts(images[:, channel]) for channel in range(images.shape[1])]).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = (counts @ levels) / counts.sum(1)
    variance = (counts @ levels.square()) / counts.sum(1) - mean.square()
    std = variance.clamp(min=0).sqrt().clamp(min=1)  # of silence alone: a level, so that nothing is divided by zero
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _counts(values: Tensor) -> Tensor:
    """How often each of the 256 levels occurs."""
    counts = torch.zeros(256, dtype=torch.int64)
    for part in values.split(AT_ONCE):
        counts += torch.bincount(part.flatten().long(), minlength=256)
    return counts
