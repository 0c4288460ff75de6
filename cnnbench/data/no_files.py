"""Data sets that need no files: scikit-learn's digits, and noise."""

import gzip
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.sources import Arrays, Dataset
from cnnbench.data.splits import pick
from cnnbench.utils.errors import UserError


def digits(cfg: DataConfig, root: Path) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fixed fifth of each class is the test set."""
    pixels, targets = _read_digits()
    images = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    source = Arrays(images, torch.from_numpy(targets.astype(np.int64)))
    test, others = pick(source.targets, 0.2)
    train = source.subset(others)
    mean, std = _moments(train.images)
    return Dataset(
        name=cfg.name,
        classes=[str(digit) for digit in range(10)],
        mean=(mean,),
        std=(std,),
        image_size=8,
        crop_ratio=cfg.crop_ratio,
        in_channels=1,
        train=train,
        val=source.subset(test),
        split="test",
    )


def _moments(images: Tensor) -> tuple[float, float]:
    """Mean and std of all pixels in 0..1, summed as integers: sums of floats depend on the number of threads."""
    total, squares = int(images.long().sum()), int(images.long().square().sum())
    n = images.numel()
    return total / n / 255, math.sqrt(n * squares - total * total) / n / 255


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) in 0..16 and targets, read from scikit-learn's file: to import scikit-learn takes a second."""
    spec = find_spec("sklearn")
    file = Path(spec.origin if spec and spec.origin else "").parent / "datasets/data/digits.csv.gz"
    if not file.is_file():
        from sklearn.datasets import load_digits

        pixels, targets = load_digits(return_X_y=True)
        return pixels, targets
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return table[:, :-1], table[:, -1]


def synthetic(cfg: DataConfig, root: Path) -> Dataset:
    """Noise, the same every time: to time a net without waiting for a disk."""
    if cfg.num_classes is None or cfg.num_images is None:
        raise UserError("data=synthetic needs data.num_classes and data.num_images.")
    size = cfg.image_size or 224
    return Dataset(
        name=cfg.name,
        classes=[f"class {index}" for index in range(cfg.num_classes)],
        mean=(0.5, 0.5, 0.5),
        std=(0.2887, 0.2887, 0.2887),  # of the uniform distribution: 1/sqrt(12)
        image_size=size,
        crop_ratio=cfg.crop_ratio,
        in_channels=3,
        train=_noise(cfg.num_images, cfg.num_classes, size, seed=0),
        val=_noise(max(1, cfg.num_images // 10), cfg.num_classes, size, seed=1),
        split="val",
    )


def _noise(count: int, num_classes: int, size: int, seed: int) -> Arrays:
    pixels = np.random.default_rng(seed).integers(256, size=(count, 3, size, size), dtype=np.uint8)
    targets: Tensor = torch.arange(count) % num_classes
    return Arrays(torch.from_numpy(pixels), targets)
