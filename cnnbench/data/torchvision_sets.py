"""Torchvision's data sets for classification, as it finds them on the disk or fetches them:
`data=torchvision data.name=Flowers102`."""

import inspect
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.assembly import channels_first, dataset_of
from cnnbench.data.folders import locked
from cnnbench.data.sources import Arrays, Dataset, Files
from cnnbench.utils.errors import UserError, unknown

Splits = Mapping[str, Mapping[str, Any]]  # arguments of torchvision's class for each split that it has

BY_TRAIN: Splits = {"train": {"train": True}, "test": {"train": False}}
WHOLE: Splits = {"train": {}}


def _by_split(train: str = "train", **others: str) -> Splits:
    return {part: {"split": name} for part, name in {"train": train, **others}.items()}


SETS: dict[str, Splits] = {
    "CIFAR10": BY_TRAIN,
    "CIFAR100": BY_TRAIN,
    "Caltech101": WHOLE,
    "Caltech256": WHOLE,
    "Country211": _by_split(val="valid", test="test"),
    "DTD": _by_split(val="val", test="test"),
    "EMNIST": {part: {"split": "balanced", **how} for part, how in BY_TRAIN.items()},
    "EuroSAT": WHOLE,
    "FER2013": _by_split(test="test"),
    "FGVCAircraft": _by_split(val="val", test="test"),
    "FashionMNIST": BY_TRAIN,
    "Flowers102": _by_split(val="val", test="test"),
    "Food101": _by_split(test="test"),
    "GTSRB": _by_split(test="test"),
    "Imagenette": _by_split(val="val"),
    "KMNIST": BY_TRAIN,
    "MNIST": BY_TRAIN,
    "OxfordIIITPet": _by_split(train="trainval", test="test"),
    "PCAM": _by_split(val="val", test="test"),
    "Places365": _by_split(train="train-standard", val="val"),
    "QMNIST": BY_TRAIN,
    "RenderedSST2": _by_split(val="val", test="test"),
    "SEMEION": WHOLE,
    "STL10": _by_split(test="test"),
    "SUN397": WHOLE,
    "SVHN": _by_split(test="test"),
    "StanfordCars": _by_split(test="test"),
    "USPS": BY_TRAIN,
}


def torchvision_set(cfg: DataConfig, root: Path) -> Dataset:
    """Data set of torchvision's class `data.name`. UserError where it is not there and may not be fetched."""
    if cfg.name not in SETS:
        raise unknown("data set of torchvision for classification", cfg.name, SETS)
    held = {part: _opened(cfg, root, arguments) for part, arguments in SETS[cfg.name].items()}
    sources = {part: _source(cfg.name, one) for part, one in held.items()}
    return dataset_of(cfg, sources, _classes(held["train"], sources["train"]), str(root))


def _opened(cfg: DataConfig, root: Path, arguments: Mapping[str, Any]) -> Any:
    """Torchvision's object for a split."""
    from torchvision import datasets

    kind = getattr(datasets, cfg.name)
    takes_download = _takes_download(kind)
    if cfg.download:
        root.mkdir(parents=True, exist_ok=True)
    elif not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}', where torchvision would find {cfg.name}")
    try:
        with locked(root) if cfg.download else nullcontext():
            return kind(str(root), **arguments, **({"download": cfg.download} if takes_download else {}))
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, ImportError) as error:
        reason = (
            str(error).strip().splitlines()[0].partition(" You can use download")[0].rstrip(".") if str(error) else ""
        )
        fetch = ", or data.download=true to fetch it" if takes_download and not cfg.download else ""
        raise UserError(f"torchvision cannot read {cfg.name} in '{root}': {reason or type(error).__name__}.\n"
                        f"Set data.root=DIR (or $CNNBENCH_DATA) to where it is{fetch}.") from None  # fmt: skip


def _takes_download(kind: type) -> bool:
    return any("download" in inspect.signature(one).parameters for one in kind.__mro__ if one is not object)


# What torchvision's objects hold


def _source(name: str, held: Any) -> Arrays | Files:
    """Images and labels of a split: files where it lists them, else pixels in memory."""
    listed = _listed(held)
    if listed is not None:
        paths, labels = listed
        return Files([str(path) for path in paths], torch.tensor(labels, dtype=torch.int64))
    labels = getattr(held, "targets", None)
    labels = getattr(held, "labels", None) if labels is None else labels
    if labels is None or getattr(held, "data", None) is None:
        return _read_each(name, held)
    return Arrays(channels_first(np.asarray(held.data)), torch.as_tensor(np.asarray(labels), dtype=torch.int64))


def _listed(held: Any) -> tuple[Any, Any] | None:
    """Paths and labels of its files, by the names under which torchvision's classes keep them."""
    if hasattr(held, "categories") and hasattr(held, "index"):
        return [_caltech(held, label, index) for label, index in zip(held.y, held.index, strict=True)], held.y
    for name in ("_samples", "samples", "imgs"):
        pairs = getattr(held, name, None)
        if pairs and isinstance(pairs[0][0], str | os.PathLike):
            return tuple(zip(*pairs, strict=True))  # type: ignore[return-value]
    files = getattr(held, "_image_files", None) or getattr(held, "_images", None)
    return (files, held._labels) if files else None


def _caltech(held: Any, label: int, index: int) -> str:
    if type(held).__name__ == "Caltech256":
        place = f"256_ObjectCategories/{held.categories[label]}/{label + 1:03d}_{index:04d}.jpg"
    else:
        place = f"101_ObjectCategories/{held.categories[label]}/image_{index:04d}.jpg"
    return f"{held.root}/{place}"


def _read_each(name: str, held: Any) -> Arrays:
    """Every image, read into memory. UserError where they differ in size."""
    read = [(np.asarray(image), label) for image, label in held]
    if any(label is None for _, label in read):
        raise UserError(f"torchvision's {name} has no labels in the files that are there")
    shapes = {image.shape for image, _ in read}
    if len(shapes) != 1:
        raise UserError(f"torchvision's {name} has images of {len(shapes)} sizes, which are not in files of their own")
    labels = torch.tensor([label for _, label in read], dtype=torch.int64)
    return Arrays(channels_first(np.stack([image for image, _ in read])), labels)


def _classes(held: Any, train: Arrays | Files) -> list[str]:
    """Names as torchvision gives them, else numbers."""
    names = getattr(held, "classes", None) or getattr(held, "categories", None) or []
    count = max(len(names), int(train.targets.max()) + 1)
    return [str(names[number]) if number < len(names) else str(number) for number in range(count)]
