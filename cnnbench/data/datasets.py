"""Data sets by name: where each is found, how it is read, its classes, and the mean and std of its channels."""

import gzip
import math
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig, Identity, OnBadImage
from cnnbench.data import packed
from cnnbench.data.cifar import cifar
from cnnbench.data.folders import image_folder, imagenet
from cnnbench.data.identity import of_content
from cnnbench.data.sources import Arrays, Dataset, has_masks, image_names, pick, strata
from cnnbench.data.unreadable import without_unreadable
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores


def load_dataset(
    cfg: DataConfig, tell: Callable[[str], object] = warn, *, read_all: bool = True, unsplit: bool = False
) -> Dataset:
    """Data set of a configuration. UserError, before anything slow, where it is missing, damaged or does not fit.

    tell: takes each sentence on what was guessed or left out. read_all: whether data.on_error=skip looks for images
    that cannot be read. unsplit: a set with nothing to validate on is no mistake; its val is then empty.
    """
    if cfg.name not in SETS:
        raise unknown("data set", cfg.name, SETS)
    root = typed_path(cfg.root or os.environ.get("CNNBENCH_DATA") or "data")
    if cfg.packed:
        dataset = packed.load_packed(cfg)
    elif unsplit and SETS[cfg.name] is image_folder:
        dataset = image_folder(cfg, root, unsplit=True)
    else:
        dataset = SETS[cfg.name](cfg, root)
    for note in dataset.notes:
        tell(note)
    workers = cores() if cfg.workers is None else cfg.workers
    if cfg.on_error is OnBadImage.skip and read_all:
        dataset = without_unreadable(dataset, workers)
    if cfg.identity is Identity.content:
        dataset = replace(dataset, identity=of_content(dataset, workers))
    dataset = _select(dataset, cfg)
    if len(dataset.val) == 0 and not unsplit:
        raise UserError(f"data={cfg.name} has no images to validate on: every class has a single one.")
    _check_labels(dataset)
    return _normalise(dataset, cfg)


def _check_labels(dataset: Dataset) -> None:
    """UserError for a label that is not a class: in a training step, the error on a GPU would say nothing."""
    for split, source in (("training", dataset.train), (dataset.split, dataset.val)):
        if has_masks(source):  # their task looks into them
            continue
        outside = ((source.targets < 0) | (source.targets >= len(dataset.classes))).nonzero().flatten()
        if len(outside):
            shown = f"{image_names(source, outside[:1])[0]} has {int(source.targets[outside[0]])}"
            raise UserError(
                f"data={dataset.name} has {plural(len(dataset.classes), 'class')}, but "
                f"{plural(len(outside), f'{split} image')} with another label: {shown}"
            )


def _select(dataset: Dataset, cfg: DataConfig) -> Dataset:
    """Data set with `val_fraction` of the training images held out and `fraction` of the others kept."""
    train = dataset.train
    if cfg.val_fraction > 0:
        held_out, others = pick(strata(train), cfg.val_fraction, leave=1)
        dataset = replace(dataset, train=train.subset(others), val=train.subset(held_out), split="held-out")
    if cfg.fraction < 1:
        kept, _ = pick(strata(dataset.train), cfg.fraction)
        dataset = replace(dataset, train=dataset.train.subset(kept))
    return dataset


def _normalise(dataset: Dataset, cfg: DataConfig) -> Dataset:
    """Data set with `data.mean` and `data.std` in place of its own, for weights that were trained with others."""
    for key, values in (("mean", cfg.mean), ("std", cfg.std)):
        if values is not None and len(values) != dataset.in_channels:
            raise UserError(
                f"data.{key} has {plural(len(values), 'value')}, but the images have "
                f"{plural(dataset.in_channels, 'channel')}."
            )
    mean = dataset.mean if cfg.mean is None else tuple(cfg.mean)
    std = dataset.std if cfg.std is None else tuple(cfg.std)
    return replace(dataset, mean=mean, std=std, interpolation=cfg.interpolation.value)


def _digits(cfg: DataConfig, root: Path) -> Dataset:
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


def _synthetic(cfg: DataConfig, root: Path) -> Dataset:
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


SETS: dict[str, Callable[[DataConfig, Path], Dataset]] = {
    "digits": _digits,
    "cifar10": cifar,
    "cifar100": cifar,
    "imagenet": imagenet,
    "folder": image_folder,
    "synthetic": _synthetic,
}
