"""Data sets by name: where each is found, how it is read, its classes, and the mean and std of its channels."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cnnbench.config.sections import DataConfig, Identity, OnBadImage
from cnnbench.data import packed
from cnnbench.data.box_sets import boxes, coco, voc
from cnnbench.data.cifar import cifar
from cnnbench.data.faces import faces
from cnnbench.data.folders import image_folder, imagenet
from cnnbench.data.grids import arrays
from cnnbench.data.groups import grouped
from cnnbench.data.identity import of_content
from cnnbench.data.lists import image_list
from cnnbench.data.masks import camvid, masks
from cnnbench.data.no_files import digits, synthetic
from cnnbench.data.overlap import in_both, shared_files
from cnnbench.data.own_sources import own_source
from cnnbench.data.parts import held_out_part, with_parts
from cnnbench.data.people import people
from cnnbench.data.photographs import images, t91
from cnnbench.data.small_images import small_images
from cnnbench.data.sound_sets import esc50, sounds, speech_commands, spoken_digits
from cnnbench.data.sounds import heard
from cnnbench.data.sources import Dataset, Source, has_spatial_targets, image_names
from cnnbench.data.torchvision_sets import torchvision_set
from cnnbench.data.unreadable import without_unreadable
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores

SPOKEN = {"train": "training"}
Tell = Callable[[str], object]


def load_dataset(
    cfg: DataConfig, tell: Tell = warn, *, read_all: bool = True, unsplit: bool = False, test: bool = False
) -> Dataset:
    """Data set of a configuration. UserError, before anything slow, where it is missing, damaged or does not fit.

    tell: takes each sentence on what was guessed or left out. read_all: whether data.on_error=skip looks for images
    that cannot be read. unsplit: a set with nothing to validate on is no mistake; its val is then empty. test: the
    test split is wanted too; trainings do without it.
    """
    kind = cfg.source or cfg.name
    if kind not in SETS:
        raise unknown("data set", kind, SETS)
    root = typed_path(cfg.root or os.environ.get("CNNBENCH_DATA") or "data")
    if cfg.packed:
        dataset = packed.load_packed(cfg)
    elif (folders := FOLDERS.get(kind)) is not None:
        dataset = folders(cfg, root, unsplit=unsplit, test=test)
    else:
        dataset = SETS[kind](cfg, root)
    workers = cores() if cfg.workers is None else cfg.workers
    if cfg.on_error is OnBadImage.skip and read_all:
        dataset = replace(without_unreadable(dataset, workers), skips=True)
    if cfg.identity is Identity.content:
        dataset = replace(dataset, identity=of_content(dataset, workers))
    if cfg.group is not None:
        dataset = grouped(dataset, cfg.group)
    dataset = with_parts(dataset, cfg, root, unsplit=unsplit)
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
    if (
        (cfg.source or cfg.name) not in FOLDERS
        or cfg.packed
        or divides
        or not {"data", "data.root", "data.file"} & typed
    ):
        dataset = load_dataset(cfg, tell, test=test)
        if trained is not None and divides and (dataset.name, dataset.identity) == (trained.name, identity):
            tell_of_other_parts(cfg, trained, tell, alone=dataset.alone)
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


def tell_of_other_parts(cfg: DataConfig, trained: DataConfig, tell: Tell, *, alone: bool) -> None:
    """Say where a set is divided otherwise than in the training, which then has seen what is judged."""
    val = tuple(held_out_part(one.val_fraction, alone=alone) for one in (cfg, trained))
    test = (cfg.test_fraction, trained.test_fraction)
    for key, (now, then) in (("val_fraction", val), ("test_fraction", test)):
        if now != then:
            tell(f"data.{key}={now:g}, but {then:g} in the training: it has seen images that are judged now")


def _check_labels(dataset: Dataset) -> None:
    """UserError for a label that is not a class: in a training step, the error on a GPU would say nothing."""
    for split, source in dataset.splits.items():
        if has_spatial_targets(source) or not dataset.classes:  # their task looks into them, or there are no labels
            continue
        outside = ((source.targets < 0) | (source.targets >= len(dataset.classes))).nonzero().flatten()
        if len(outside):
            shown = f"{image_names(source, outside[:1])[0]} has {int(source.targets[outside[0]])}"
            raise UserError(
                f"data={dataset.name} has {plural(len(dataset.classes), 'class')}, but "
                f"{plural(len(outside), f'{SPOKEN.get(split, split)} image')} with another label: {shown}"
            )


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


SETS: dict[str, Callable[[DataConfig, Path], Dataset]] = {
    "digits": digits,
    "cifar10": cifar,
    "cifar100": cifar,
    "mnist": small_images,
    "fashion_mnist": small_images,
    "svhn": small_images,
    "stl10": small_images,
    "imagenet": imagenet,
    "folder": image_folder,
    "list": image_list,
    "torchvision": torchvision_set,
    "python": own_source,
    "synthetic": synthetic,
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
FOLDERS: dict[str, Callable[..., Dataset]] = {
    "folder": image_folder,
    "list": image_list,
    "sounds": sounds,
}  # of the user's own
