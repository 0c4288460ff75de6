"""Parts of a data set's training images: held out for validation, kept for the test, or a fraction to train on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.layout import refuse_part_alone
from cnnbench.data.sources import Dataset, Source, has_spatial_targets
from cnnbench.data.splits import groups_of, hold_out, sample
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some

FAR = 1.5  # a part this many times as large or small as asked is mentioned
HELD_OUT = 0.2  # of data that come in one part, where no other part is asked for


def held_out_part(asked: float, *, alone: bool) -> float:
    """Part that is held out where `data.val_fraction` asks for so much. alone: the data come in one part."""
    return asked or (HELD_OUT if alone else 0.0)


def with_parts(dataset: Dataset, cfg: DataConfig, root: Path, *, unsplit: bool) -> Dataset:
    """Data set with `val_fraction` and `test_fraction` of the training images held out and `fraction` of the others
    kept. Of data in one part a fifth is held out, and that is said, unless they may stay whole (unsplit). UserError
    where nothing is left to train on, or where the set has test images of its own."""
    if dataset.parted:
        cfg = replace(cfg, val_fraction=0.0, test_fraction=0.0)
    elif not len(dataset.val):
        dataset = replace(dataset, alone=not dataset.kept)
        if cfg.val_fraction == 0 and not unsplit:
            refuse_part_alone(root)
            cfg = replace(cfg, val_fraction=HELD_OUT)
            dataset = replace(dataset, notes=(*dataset.notes, _said(dataset, cfg)))
    if cfg.test_fraction > 0 and (dataset.split == "test" or dataset.kept):
        raise UserError(f"{dataset.kept or f'data={cfg.name}'} has test images: leave data.test_fraction="
                        f"{cfg.test_fraction:g} out, which would keep others")  # fmt: skip
    if cfg.val_fraction + cfg.test_fraction >= 1:
        raise UserError(f"data.val_fraction={cfg.val_fraction:g} and data.test_fraction={cfg.test_fraction:g} leave "
                        "nothing to train on")  # fmt: skip
    if cfg.val_fraction > 0 or cfg.test_fraction > 0:
        dataset = _held_out(dataset, cfg)
    if cfg.fraction < 1:
        dataset = _sampled(dataset, cfg.fraction)
    return dataset


def _sampled(dataset: Dataset, fraction: float) -> Dataset:
    whole = dataset.train
    train = whole.subset(sample(whole, fraction))
    notes = _unequal(whole, dataset.classes, "training", train, fraction)
    return replace(dataset, train=train, notes=(*dataset.notes, *notes))


def _said(dataset: Dataset, cfg: DataConfig) -> str:
    left = 100 * (1 - cfg.val_fraction - cfg.test_fraction)
    return (f"data={dataset.name} is not divided: {left:g} % are trained on, {100 * cfg.val_fraction:g} % held out to "
            f"validate on, drawn with seed 0 (as by data.val_fraction={cfg.val_fraction:g})")  # fmt: skip


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
    counts = [] if has_spatial_targets(held) else torch.bincount(held.targets, minlength=len(classes)).tolist()
    missing = [name for name, count in zip(classes, counts, strict=False) if not count]
    if missing and len(held):
        why = "since groups stay whole" if groups_of(held) is not None else "which has too few"
        yield f"no {split} images of class {some(missing)}, {why}"
    got = len(held) / len(train)
    if groups_of(held) is not None and not share / FAR < got < share * FAR:
        yield f"{100 * got:.0f} % of the images are {split} images, not {100 * share:.0f} %, since groups stay whole"
