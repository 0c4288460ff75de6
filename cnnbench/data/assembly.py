"""A data set of labelled images from its splits, whatever they were read from."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.moments import IMAGENET_MEAN, IMAGENET_STD, PHOTOGRAPH, moments
from cnnbench.data.sources import Arrays, Dataset, Files


def dataset_of(
    cfg: DataConfig, sources: Mapping[str, Arrays | Files], classes: Sequence[str], root: str = "", identity: str = ""
) -> Dataset:
    """Data set of `train`, and `val` and `test` where there are any; without val, the test images are val.

    Images in memory are normalised by their own moments and have their own size, files as photographs are.
    """
    train = sources["train"]
    mean, std = moments(train.images) if isinstance(train, Arrays) else (IMAGENET_MEAN, IMAGENET_STD)
    split = "test" if "val" not in sources and "test" in sources else "val"
    beside = split == "val" and "test" in sources
    return Dataset(
        name=cfg.name,
        classes=list(classes),
        mean=mean,
        std=std,
        image_size=min(train.images.shape[2:]) if isinstance(train, Arrays) else PHOTOGRAPH,
        crop_ratio=cfg.crop_ratio,
        in_channels=train.images.shape[1] if isinstance(train, Arrays) else 3,
        train=train,
        val=sources[split] if split in sources else train.subset(torch.zeros(0, dtype=torch.int64)),
        split=split,
        test=sources["test"] if beside else None,
        root=root,
        kept="its test images" if beside else "",
        identity=identity,
    )


def channels_first(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, C, H, W) of (N, H, W), (N, H, W, 3) or (N, C, H, W)."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] == 3 and images.shape[1] != 3:
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.uint8))
