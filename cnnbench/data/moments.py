"""Mean and standard deviation of the channels of images."""

import torch
from torch import Tensor

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
