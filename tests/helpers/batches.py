"""Images whose target is their index, and the batches of a training on them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Policy
from cnnbench.data import Arrays, Batch, Dataset, train_loader
from tests.helpers.data import augment_config

PAD_FLIP = augment_config(crop=Crop.pad, padding=2, flip=True, cutout=3)
COLOR = augment_config(crop=Crop.pad, padding=2, flip=True, color=0.4)
RESIZED = augment_config(crop=Crop.resized, flip=True, cutout=4)
CHANGED = augment_config(crop=Crop.resized, flip=True, flip_vertical=True, turn=True, rotate=30.0, color=0.2, blur=0.8,
                         policy=Policy.rand, erase=0.5)  # fmt: skip


def arrays(count: int, size: int = 8) -> Dataset:
    """Random images; each one's target is its index."""
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=(count, 3, size, size), dtype=np.uint8))
    source = Arrays(images, torch.arange(count))
    return Dataset(name="test", classes=[], mean=(0.2, 0.4, 0.6), std=(1, 1, 1), image_size=size, crop_ratio=1.0,
                   in_channels=3, train=source, val=source, split="val")  # fmt: skip


def train(dataset: Dataset, augment: AugmentConfig, **keys: Any) -> Any:
    return train_loader(dataset, augment, **{"image_size": 8, "batch_size": 7, "seed": 0, "workers": 0, **keys})


def by_index(loader: Any, epoch: int = 0, start: int = 0) -> dict[int, Tensor]:
    """Images of an epoch by their index, which their target is too."""
    found: dict[int, Tensor] = {}
    for batch in loader.epoch(epoch, start):
        assert torch.equal(batch["index"], batch["target"])
        found |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
    return found


def same_batch(some: Batch, other: Batch) -> bool:
    """Whether two batches hold the same images, targets and indices."""
    return some.keys() == other.keys() and all(torch.equal(some[key], other[key]) for key in some)


def same(some: dict[int, Tensor], all_: dict[int, Tensor]) -> bool:
    return bool(some) and all(torch.equal(image, all_[index]) for index, image in some.items())
