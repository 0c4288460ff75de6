"""Data sets of images with boxes: Pascal VOC, COCO, and one's own, in YOLO's text files or a CSV.

All label files are read before anything begins: a wrong box is named with its file and line, and not met in the middle
of a training.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig, OnBadImage, Targets
from cnnbench.data import masks
from cnnbench.data.box_files import Box, Labels, read_coco, read_csv, read_voc, read_yolo, yolo_names
from cnnbench.data.boxes import tables
from cnnbench.data.layout import split_of
from cnnbench.data.masks import upright_size
from cnnbench.data.moments import OF_PHOTOGRAPHS
from cnnbench.data.scan import images_below, subfolders
from cnnbench.data.sources import Dataset, Files
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.utils.system import cores

BEYOND = 1.0  # pixels by which a box may end outside of its image, and is cut: label tools round
SIZE = 300  # side of the images given to a net, where nothing else is said
NAMED = 3  # faults that a note names

Parts = dict[str, list[Labels]]
"""Labels of the images of each split."""


@dataclass(frozen=True)
class Checked:
    """Labels that can be used, with the images' sizes, and what was left out."""

    labels: list[Labels]
    sizes: list[tuple[int, int]]
    faults: list[str]


# Pascal VOC


def voc(cfg: DataConfig, root: Path) -> Dataset:
    """Pascal VOC with masks or with boxes, which lie in one folder. Where nothing is said, listed masks."""
    listed = any((home / "ImageSets" / "Segmentation").is_dir() for home in (root, *_homes(root)))
    boxed = any((home / "Annotations").is_dir() for home in (root, *_homes(root)))
    if cfg.targets is Targets.boxes or (cfg.targets is None and boxed and not listed):
        return voc_boxes(cfg, root)
    return masks.voc(cfg, root)


def voc_boxes(cfg: DataConfig, root: Path) -> Dataset:
    """Pascal VOC's layout: JPEGImages, Annotations, lists of names in ImageSets/Main. With VOC2007 and VOC2012 beside
    each other, the usual 07+12: both trainval lists to train on, 2007's test images to judge by."""
    homes = {home.name: home for home in (*_homes(root), root) if (home / "Annotations").is_dir()}
    if not homes:
        raise UserError(
            f"data=voc with boxes expects in '{root}' the folders JPEGImages, Annotations and ImageSets/Main.\n"
            "Set data.root=DIR (or $CNNBENCH_DATA) to where they are."
        )
    if {"VOC2007", "VOC2012"} <= homes.keys():
        both = [*_voc_part(homes["VOC2007"], "trainval"), *_voc_part(homes["VOC2012"], "trainval")]
        return dataset_of(cfg, {"train": both, "test": _voc_part(homes["VOC2007"], "test")})
    home = next(iter(homes.values()))
    splits = [split for split in ("train", "val", "test") if (home / f"ImageSets/Main/{split}.txt").is_file()]
    return dataset_of(cfg, {split: _voc_part(home, split) for split in splits or ["train"]})


def _homes(root: Path) -> list[Path]:
    return [base / name for base in (root, root / "VOCdevkit") for name in ("VOC2007", "VOC2012", "bccd", "BCCD")]


def _voc_part(home: Path, split: str) -> list[Labels]:
    """Labels of a list; without one, of all files of Annotations."""
    listed = home / "ImageSets" / "Main" / f"{split}.txt"
    if listed.is_file():
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    else:
        names = sorted(file.stem for file in (home / "Annotations").glob("*.xml"))
    images = {Path(name).stem: name for name in images_below(home / "JPEGImages").names}
    return [_voc_labels(home, name, images.get(name)) for name in names]


def _voc_labels(home: Path, name: str, image: str | None) -> Labels:
    xml = home / "Annotations" / f"{name}.xml"
    if image is None:
        return Labels(name, fault=f"'{xml}' is for an image '{home / 'JPEGImages' / name}.jpg', which is not there")
    if not xml.is_file():
        return Labels(name, fault=f"the image '{home / 'JPEGImages' / image}' has no '{xml}'")
    return read_voc(xml, f"{home}/JPEGImages/{image}")


# COCO


def coco(cfg: DataConfig, root: Path) -> Dataset:
    """COCO's layout: annotations/instances_train2017.json and the like, images in train2017, images/train2017 or
    images; or train/_annotations.coco.json beside the images."""
    files = _coco_files(root)
    if "train" not in files:
        raise UserError(
            f"data=coco expects in '{root}' annotations/instances_train2017.json (or *train*.json) and the images in "
            "train2017, images/train2017 or images;\nor train/_annotations.coco.json beside the images."
        )
    parts: Parts = {}
    numbers: dict[str, int] = {}
    for split, file in files.items():
        year = file.stem.rpartition("_")[2]
        places = [root / year, root / "images" / year, root / split, root / "images" / split, file.parent]
        parts[split], own = read_coco(file, [*places, root / "images", root])
        if numbers and own != numbers:
            raise UserError(f"'{file}' has other categories than '{files['train']}'")
        numbers = own
    classes = sorted(numbers, key=lambda name: numbers[name])
    return dataset_of(cfg, parts, classes, {"category_ids": [numbers[name] for name in classes]})


def _coco_files(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in subfolders(root) if root.is_dir() else []:
        if (split := split_of(folder.name)) and (file := folder / "_annotations.coco.json").is_file():
            found[split] = file
    jsons = sorted((root / "annotations").glob("*.json")) or sorted(root.glob("*.json"))
    for split in ("train", "val", "test"):
        named = [file for file in jsons if split in file.stem and not file.stem.startswith(("captions", "person"))]
        if named and split not in found:
            found[split] = named[0]
    return {split: found[split] for split in ("train", "val", "test") if split in found}


# One's own


def boxes(cfg: DataConfig, root: Path) -> Dataset:
    """YOLO's text files beside images, or a CSV with a box in each row."""
    if tables_found := _csv_files(root):
        parts = {split: read_csv(file, [root, root / "images", root / split, root / "images" / split])
                 for split, file in tables_found.items()}  # fmt: skip
        return dataset_of(cfg, parts)
    places = _yolo_places(root)
    if "train" not in places:
        raise UserError(f"data=boxes found no labels in '{root}'.\nIt expects {EXPECTED}.")
    names = yolo_names(root)
    return dataset_of(cfg, {split: _yolo_part(*place, names) for split, place in places.items()}, names)


EXPECTED = (
    "YOLO's text files, in DIR/labels/train for DIR/images/train, or in DIR/train/labels for DIR/train/images;\n"
    "or a table DIR/train.csv (and val.csv) or DIR/boxes.csv with columns image, class, xmin, ymin, xmax, ymax"
)


def _csv_files(root: Path) -> dict[str, Path]:
    found = {split: root / f"{split}.csv" for split in ("train", "val", "test") if (root / f"{split}.csv").is_file()}
    if "train" in found:
        return found
    single = [root / f"{name}.csv" for name in ("boxes", "labels", "annotations") if (root / f"{name}.csv").is_file()]
    return {"train": single[0]} if single else {}


def _yolo_places(root: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of the images and of their labels, for each split."""
    found: dict[str, tuple[Path, Path]] = {}
    for labels in subfolders(root / "labels") if (root / "labels").is_dir() else []:
        if (split := split_of(labels.name)) and (root / "images" / labels.name).is_dir():
            found[split] = root / "images" / labels.name, labels
    for home in subfolders(root) if root.is_dir() else []:
        if (split := split_of(home.name)) and (home / "labels").is_dir() and (home / "images").is_dir():
            found[split] = home / "images", home / "labels"
    if not found and (root / "labels").is_dir() and (root / "images").is_dir():
        found["train"] = root / "images", root / "labels"
    return found


def _yolo_part(images: Path, labels: Path, names: Sequence[str]) -> list[Labels]:
    stems = {name.rpartition(".")[0]: name for name in images_below(images).names}
    texts = {str(file.relative_to(labels).with_suffix("")): file for file in sorted(labels.rglob("*.txt"))}
    texts.pop("classes", None)
    found = [read_yolo(texts[stem], f"{images}/{name}", names) if stem in texts else
             Labels(name, fault=f"the image '{images / name}' has no label file '{labels / stem}.txt' (an empty one: "
                    "no boxes)") for stem, name in stems.items()]  # fmt: skip
    alone = [file for stem, file in texts.items() if stem not in stems]
    return [*found, *(Labels("", fault=f"the label file '{file}' has no image in '{images}'") for file in alone)]


# The data set


def dataset_of(cfg: DataConfig, parts: Parts, classes: Sequence[str] = (), extra: dict[str, Any] | None = None
               ) -> Dataset:  # fmt: skip
    """Data set of the labels of each split, checked. Without names of classes, these are the names of the boxes."""
    found = {split: checked(labels) for split, labels in parts.items()}
    notes = complaints(cfg, [fault for part in found.values() for fault in part.faults])
    counts = Counter(box.name for part in found.values() for one in part.labels for box in one.boxes)
    names = list(classes) or sorted(counts)
    if not names:
        raise UserError(f"data={cfg.name} has no box in any image")
    sources = {split: source_of(part, names) for split, part in found.items()}
    split = next((split for split in ("val", "test") if split in found), "val")
    beside = split == "val" and "test" in sources
    return Dataset(
        name=cfg.name,
        classes=names,
        **OF_PHOTOGRAPHS,
        image_size=SIZE,
        crop_ratio=1.0,
        train=sources["train"],
        val=sources.get(split, sources["train"].subset(torch.zeros(0, dtype=torch.int64))),
        split=split,
        test=sources["test"] if beside else None,
        kept=plural(len(sources["test"]), "test image") if beside else "",
        task="detection",
        extra=extra or {},
        identity=identity(names, [part for name, part in found.items() if name in ("train", split)]),
        notes=tuple(notes),
    )


def source_of(part: Checked, classes: Sequence[str]) -> Files:
    """Images of a split with tables of their boxes."""
    numbers = {name: number for number, name in enumerate(classes)}
    rows = [rows_of(one.boxes, numbers) for one in part.labels]
    return Files([one.image for one in part.labels], tables(rows, part.sizes))


def rows_of(boxes: Sequence[Box], numbers: dict[str, int]) -> Tensor:
    """Rows (n, 7) of a table."""
    rows = []
    for box in boxes:
        left, top, right, bottom = box.corners
        area = (right - left) * (bottom - top) if box.area is None else box.area
        rows.append([numbers[box.name], left, top, right, bottom, box.kind, area])
    return torch.tensor(rows, dtype=torch.float32) if rows else torch.zeros(0, 7)


def identity(classes: Sequence[str], parts: Iterable[Checked]) -> str:
    """Hash over the classes, the images' names and their boxes."""
    total = hashlib.sha256("\0".join(classes).encode(errors="surrogateescape"))
    for part in parts:
        for one in part.labels:
            said = "/".join(Path(one.image).parts[-2:]), [(box.name, box.corners, box.kind) for box in one.boxes]
            total.update(repr(said).encode(errors="surrogateescape"))
    return total.hexdigest()


# Checks


def checked(labels: Sequence[Labels]) -> Checked:
    """The labels that can be used, boxes in pixels, and what is wrong with the others."""
    with ThreadPoolExecutor(cores()) as pool:
        sizes = list(pool.map(_size, labels))
    found, faults = Checked([], [], []), list[str]()
    for one, (size, fault) in zip(labels, sizes, strict=True):
        if fault:
            faults.append(fault)
            continue
        good = [_in_pixels(box, size) if one.relative else box for box in one.boxes]
        wrong = [fault_of(box, size) for box in good]
        faults += [f"{box.where}: {fault}" for box, fault in zip(good, wrong, strict=True) if fault]
        kept = [_cut(box, size) for box, fault in zip(good, wrong, strict=True) if not fault]
        found.labels.append(replace(one, boxes=kept))
        found.sizes.append(size)
    return replace(found, faults=faults)


def _size(one: Labels) -> tuple[tuple[int, int], str]:
    """Size of an image, and what is wrong with it."""
    if one.fault:
        return (0, 0), one.fault
    try:
        size = upright_size(one.image)
    except UserError as error:
        return (0, 0), str(error)
    if one.size is not None and one.size != size and one.boxes:
        told, real = (f"{width} x {height}" for width, height in (one.size, size))
        return size, f"the image '{one.image}' has {real} pixels, its labels are for {told}"
    return size, ""


def fault_of(box: Box, size: tuple[int, int]) -> str:
    """What is wrong with a box of an image of this size; empty where nothing is."""
    left, top, right, bottom = box.corners
    across, down = f"x {left:g} to {right:g}", f"y {top:g} to {bottom:g}"
    if box.fault:
        return box.fault
    if right < left or bottom < top:
        return f"the box of {box.name} has its corners swapped: {across}, {down}"
    if right - left <= 0 or bottom - top <= 0:
        return f"the box of {box.name} has no area: {across}, {down}"
    if left < -BEYOND or top < -BEYOND or right > size[0] + BEYOND or bottom > size[1] + BEYOND:
        return f"the box of {box.name} is not inside the image of {size[0]} x {size[1]}: {across}, {down}"
    return ""


def _cut(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box.corners
    return replace(box, corners=(max(left, 0.0), max(top, 0.0), min(right, size[0]), min(bottom, size[1])))


def _in_pixels(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box.corners
    width, height = size
    return replace(box, corners=(left * width, top * height, right * width, bottom * height))


def complaints(cfg: DataConfig, faults: list[str]) -> list[str]:
    """Note on what data.on_error=skip left out. Without it, UserError that names the first fault."""
    if not faults:
        return []
    if cfg.on_error is not OnBadImage.skip:
        more = f" (and {len(faults) - 1:,} more; data.on_error=skip leaves them out)" if len(faults) > 1 else (
            "\ndata.on_error=skip leaves it out")  # fmt: skip
        raise UserError(f"{faults[0]}{more}")
    shown = "; ".join(faults[:NAMED]) + ("; …" if len(faults) > NAMED else "")
    return [f"data.on_error=skip: {plural(len(faults), 'label')} wrong and left out: {shown}"]
