"""Weights of the classes, which make up for how few pixels some of them have."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from cnnbench.data import Dataset
from cnnbench.data.sources import Arrays, read_mask
from cnnbench.utils.system import cores


def class_pixels(dataset: Dataset, classes: int) -> Tensor:
    """Pixels of each class, int64 (classes,), in the masks of the training images."""
    source = dataset.train

    def counted(index: int) -> Tensor:
        mask = source.targets[index].cpu() if isinstance(source, Arrays) else read_mask(source.targets[index])
        if dataset.pair is not None:
            _, mask = dataset.pair(mask, mask)
        return torch.bincount(mask.flatten(), minlength=256)[:classes]

    with ThreadPoolExecutor(cores()) as pool:
        return torch.stack(list(pool.map(counted, range(len(source))))).sum(0)


def class_weights(pixels: Tensor) -> Tensor:
    """float32 (classes,): for each class that occurs the fourth root of how rare its pixels are, else 0. Their mean
    over the pixels is 1, so that the loss, and with it the lr, keeps its scale.

    A root, since the rarity itself, a hundred for a cyclist to a road, buys each right pixel by several wrong ones.
    """
    weights = torch.where(pixels > 0, pixels.clamp(min=1).double() ** -0.25, 0.0)
    return (weights * pixels.sum() / (weights * pixels).sum()).float()
