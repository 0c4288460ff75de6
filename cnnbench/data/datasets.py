"""Data sets by name: where each is found, how it is read, its classes, and the mean and std of its channels."""

import gzip
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig, Identity, OnBadImage
from cnnbench.data import packed
from cnnbench.data.box_sets import boxes, coco, voc
from cnnbench.data.cifar import cifar
from cnnbench.data.faces import faces
from cnnbench.data.folders import image_folder, imagenet
from cnnbench.data.grids import arrays
from cnnbench.data.groups import grouped
from cnnbench.data.identity import of_content
from cnnbench.data.masks import camvid, masks
from cnnbench.data.overlap import in_both, shared_files
from cnnbench.data.people import people
from cnnbench.data.photographs import images, t91
from cnnbench.data.sound_sets import esc50, sounds, speech_commands, spoken_digits
from cnnbench.data.sounds import heard
from cnnbench.data.sources import Arrays, Dataset, Source, has_masks, image_names
from cnnbench.data.splits import groups_of, hold_out, pick, strata
from cnnbench.data.unreadable import without_unreadable
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural, some
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores

SPOKEN = {"train": "training"}
FAR = 1.5  # a part this many times as large or small as asked is mentioned
Tell = Callable[[str], object]


def load_dataset(
    cfg: DataConfig, tell: Tell = warn, *, read_all: bool = True, unsplit: bool = False, test: bool = False
) -> Dataset:
    """Data set of a configuration. UserError, before anything slow, where it is missing, damaged or does not fit.

    tell: takes each sentence on what was guessed or left out. read_all: whether data.on_error=skip looks for images
    that cannot be read. unsplit: a set with nothing to validate on is no mistake; its val is then empty. test: the
    test split is wanted too; trainings do without it.
    """
    if cfg.name not in SETS:
        raise unknown("data set", cfg.name, SETS)
    root = typed_path(cfg.root or os.environ.get("CNNBENCH_DATA") or "data")
    if cfg.packed:
        dataset = packed.load_packed(cfg)
    elif (folders := FOLDERS.get(cfg.name)) is not None:
        dataset = folders(cfg, root, unsplit=unsplit, test=test)
    else:
        dataset = SETS[cfg.name](cfg, root)
    workers = cores() if cfg.workers is None else cfg.workers
    if cfg.on_error is OnBadImage.skip and read_all:
        dataset = replace(without_unreadable(dataset, workers), skips=True)
    if cfg.identity is Identity.content:
        dataset = replace(dataset, identity=of_content(dataset, workers))
    if cfg.group is not None:
        dataset = grouped(dataset, cfg.group)
    dataset = _with_parts(dataset, cfg)
    if read_all:
        dataset = heard(dataset, cfg.workers, test=test)
    for note in dataset.notes:
        tell(note)
    if len(dataset.val) == 0 and not unsplit:
        raise UserError(f"data={cfg.name} has no images to validate on: every class has a single one.")
    _check_labels(dataset)
    return _normalise(dataset if test else replace(dataset, test=None), cfg)


def load_judged(
    cfg: DataConfig, trained: DataConfig | None, identity: str, typed: set[str], *, test: bool, tell: Tell = warn
) -> Dataset:
    """Data set whose images a trained net is to judge. A folder of classes alone, typed as data.root, is judged as a
    whole (its split is "given"), but for the images of the training itself: of these, the same are held out again.

    trained, identity: data of the training, as configured and as it met them; typed: the keys that the user gave.
    """
    divides = {"data.val_fraction", "data.test_fraction"} & typed
    if cfg.name not in FOLDERS or cfg.packed or divides or not {"data", "data.root", "data.file"} & typed:
        dataset = load_dataset(cfg, tell, test=test)
        if trained is not None and divides and (dataset.name, dataset.identity) == (trained.name, identity):
            tell_of_other_parts(cfg, trained, tell)
        return dataset
    notes: list[str] = []
    whole = replace(
        cfg,
        val_fraction=0.0,
        test_fraction=0.0,
        fraction=cfg.fraction if "data.fraction" in typed else 1.0,
        group=cfg.group if "data.group" in typed else None,
    )
    dataset = load_dataset(whole, notes.append, unsplit=True, test=test)
    if trained is not None and dataset.identity == identity:
        kept = replace(cfg, val_fraction=trained.val_fraction, test_fraction=trained.test_fraction, group=trained.group)
        return load_dataset(kept, tell, test=test)
    for note in notes:
        tell(note)
    if len(dataset.val):
        return dataset
    seen = seen_in_training(dataset.train, trained) if trained is not None else ""
    if seen:
        tell(seen)
    return replace(dataset, val=dataset.train, split="given", notes=(*dataset.notes, *filter(None, [seen])))


def seen_in_training(judged: Source, trained: DataConfig) -> str:
    """Sentence on images among these that are training images of the net; empty where there are none."""
    try:
        known = load_dataset(replace(trained, identity=Identity.names), lambda note: None, read_all=False).train
    except UserError:  # its data are elsewhere now
        return ""
    count = in_both(judged, known) or len(shared_files(known, judged))
    if not count:
        return ""
    verb = "is a training image" if count == 1 else "are training images"
    return f"{count:,} of the {plural(len(judged), 'given image')} {verb} of this net: the error on them is too low"


def tell_of_other_parts(cfg: DataConfig, trained: DataConfig, tell: Tell) -> None:
    """Say where a set is divided otherwise than in the training, which then has seen what is judged."""
    for key in ("val_fraction", "test_fraction"):
        now, then = getattr(cfg, key), getattr(trained, key)
        if now != then:
            tell(f"data.{key}={now:g}, but {then:g} in the training: it has seen images that are judged now")


def _check_labels(dataset: Dataset) -> None:
    """UserError for a label that is not a class: in a training step, the error on a GPU would say nothing."""
    for split, source in dataset.splits.items():
        if has_masks(source) or not dataset.classes:  # their task looks into them, or there are no labels
            continue
        outside = ((source.targets < 0) | (source.targets >= len(dataset.classes))).nonzero().flatten()
        if len(outside):
            shown = f"{image_names(source, outside[:1])[0]} has {int(source.targets[outside[0]])}"
            raise UserError(
                f"data={dataset.name} has {plural(len(dataset.classes), 'class')}, but "
                f"{plural(len(outside), f'{SPOKEN.get(split, split)} image')} with another label: {shown}"
            )


def _with_parts(dataset: Dataset, cfg: DataConfig) -> Dataset:
    """Data set with `val_fraction` and `test_fraction` of the training images held out and `fraction` of the others
    kept. UserError where nothing is left to train on, or where the set has test images of its own."""
    if dataset.parted:
        cfg = replace(cfg, val_fraction=0.0, test_fraction=0.0)
    if cfg.test_fraction > 0 and (dataset.split == "test" or dataset.kept):
        raise UserError(f"{dataset.kept or f'data={cfg.name}'} has test images: leave data.test_fraction="
                        f"{cfg.test_fraction:g} out, which would keep others")  # fmt: skip
    if cfg.val_fraction + cfg.test_fraction >= 1:
        raise UserError(f"data.val_fraction={cfg.val_fraction:g} and data.test_fraction={cfg.test_fraction:g} leave "
                        "nothing to train on")  # fmt: skip
    if cfg.val_fraction > 0 or cfg.test_fraction > 0:
        dataset = _held_out(dataset, cfg)
    if cfg.fraction < 1:
        kept, _ = pick(strata(dataset.train), cfg.fraction)
        dataset = replace(dataset, train=dataset.train.subset(kept))
    return dataset


def _held_out(dataset: Dataset, cfg: DataConfig) -> Dataset:
    train, found = dataset.train, hold_out(dataset.train, cfg.val_fraction, cfg.test_fraction)
    dataset = replace(dataset, train=train.subset(found.train))
    held: list[tuple[str, Source, float]] = []
    if cfg.val_fraction > 0:
        if dataset.split == "test":
            dataset = replace(dataset, test=dataset.val, kept="its test images")
        dataset = replace(dataset, val=train.subset(found.val), split="held-out")
        held.append(("held-out", dataset.val, cfg.val_fraction))
    if cfg.test_fraction > 0:
        test = train.subset(found.test)
        if not len(test):
            raise UserError(f"data.test_fraction={cfg.test_fraction:g} keeps no image: every class has too few")
        dataset = replace(dataset, test=test, kept=plural(len(test), "test image"))
        held.append(("test", test, cfg.test_fraction))
    notes = [note for split, source, share in held for note in _unequal(train, dataset.classes, split, source, share)]
    return replace(dataset, notes=(*dataset.notes, *notes))


def _unequal(train: Source, classes: list[str], split: str, held: Source, share: float) -> Iterator[str]:
    """Notes where a part of the training images lacks a class, or is much larger or smaller than asked."""
    counts = [] if has_masks(held) else torch.bincount(held.targets, minlength=len(classes)).tolist()
    missing = [name for name, count in zip(classes, counts, strict=False) if not count]
    if missing and len(held):
        why = "since groups stay whole" if groups_of(held) is not None else "which has too few"
        yield f"no {split} images of class {some(missing)}, {why}"
    got = len(held) / len(train)
    if groups_of(held) is not None and not share / FAR < got < share * FAR:
        yield f"{100 * got:.0f} % of the images are {split} images, not {100 * share:.0f} %, since groups stay whole"


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
    "images": images,
    "t91": t91,
    "faces": faces,
    "people": people,
    "masks": masks,
    "camvid": camvid,
    "voc": voc,
    "sounds": sounds,
    "spoken_digits": spoken_digits,
    "esc50": esc50,
    "speech_commands": speech_commands,
    "arrays": arrays,
    "coco": coco,
    "boxes": boxes,
}
FOLDERS: dict[str, Callable[..., Dataset]] = {"folder": image_folder, "sounds": sounds}  # of the user's own
