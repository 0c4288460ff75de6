"""Data sets of images with masks, a class number in each pixel: any folder of such pairs, CamVid, Pascal VOC.

All masks are read before anything begins: a wrong one is named, and not met in the middle of a training.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig, OnBadImage
from cnnbench.data.geometry import as_tensor
from cnnbench.data.layout import split_of
from cnnbench.data.moments import OF_PHOTOGRAPHS
from cnnbench.data.scan import images_below, subfolders
from cnnbench.data.sources import IGNORE, ORIENTATION, Arrays, Dataset, Files, Source, open_image, read_image, read_mask
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some
from cnnbench.utils.system import cores

IN_MEMORY = 2**29  # bytes: images of one size, if they take less, are read once and kept
ENDINGS = ("", "_mask", "_label", "_L")  # of a mask's name behind that of its image
VOC = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
       "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
       "tv monitor")  # fmt: skip
CAMVID = {"sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
          "pavement": (60, 40, 222), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
          "car": (64, 0, 128), "pedestrian": (64, 64, 0), "cyclist": (0, 128, 192)}  # fmt: skip


@dataclass(frozen=True)
class Pairs:
    """Images and the mask of each, by their paths."""

    images: list[str]
    masks: list[str]
    notes: tuple[str, ...] = ()


class Look(NamedTuple):
    """What a mask holds: whether each value 0..255 occurs, the size (width, height), and what is wrong with it."""

    values: np.ndarray
    size: tuple[int, int]
    fault: str


def masks(cfg: DataConfig, root: Path) -> Dataset:
    """Pairs of ROOT/train/images and ROOT/train/masks, and of ROOT/val and test; or of ROOT/images and ROOT/masks, with
    images held out. The classes' names stand in ROOT/classes.txt, else they are numbered."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}'.\ndata=masks expects {EXPECTED}.")
    homes: dict[str, Path] = {split: folder for folder in subfolders(root) if (split := split_of(folder.name))}
    home = homes.get("train", root)
    if not (home / "images").is_dir() or not (home / "masks").is_dir():
        raise UserError(f"'{home}' has no folders images and masks.\ndata=masks expects {EXPECTED}.")
    names: list[str] = [split for split in ("val", "test") if split in homes and "train" in homes]
    parts: dict[str, Pairs] = {split: paired(homes[split] / "images", homes[split] / "masks") for split in names}
    return dataset_of(
        cfg, {"train": paired(home / "images", home / "masks"), **parts}, named_classes(root / "classes.txt")
    )


EXPECTED = "DIR/train/images, DIR/train/masks, DIR/val/images and DIR/val/masks; or DIR/images and DIR/masks"


def camvid(cfg: DataConfig, root: Path) -> Dataset:
    """CamVid as SegNet's authors split it: 11 classes, and 11 in the masks for what is none of them."""
    homes = (root, root / "camvid", root / "CamVid", root / "camvid240")
    home = next((home for home in homes if (home / "trainannot").is_dir()), None)
    if home is None or not (home / "testannot").is_dir():
        raise UserError(
            f"data=camvid expects in '{root}' the folders train, trainannot, val, valannot, test and testannot\n"
            "(SegNet's version of CamVid). Set data.root=DIR (or $CNNBENCH_DATA) to where they are."
        )
    parts = {split: paired(home / split, home / f"{split}annot") for split in ("train", "val", "test")}
    cfg = replace(cfg, ignore=len(CAMVID) if cfg.ignore is None else cfg.ignore)
    return dataset_of(cfg, parts, list(CAMVID), colors=list(CAMVID.values()))


def voc(cfg: DataConfig, root: Path) -> Dataset:
    """Pascal VOC 2012: the lists of ImageSets/Segmentation; with SegmentationClassAug and trainaug.txt, which add the
    masks of Hariharan et al. (SBD), those."""
    homes = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    home = next((home for home in homes if (home / "ImageSets" / "Segmentation").is_dir()), None)
    if home is None:
        raise UserError(
            f"data=voc expects in '{root}' VOC2012 with JPEGImages, SegmentationClass and ImageSets/Segmentation.\n"
            "Set data.root=DIR (or $CNNBENCH_DATA) to where it is."
        )
    more = (home / "SegmentationClassAug").is_dir() and (home / "ImageSets/Segmentation/trainaug.txt").is_file()
    folder = "SegmentationClassAug" if more else "SegmentationClass"
    train = listed(home, "trainaug" if more else "train", folder)
    if more:
        train = replace(train, notes=(f"training masks: the {len(train.images):,} of SegmentationClassAug",))
    return dataset_of(cfg, {"train": train, "val": listed(home, "val", "SegmentationClass")}, list(VOC))


def listed(home: Path, split: str, folder: str) -> Pairs:
    """Pairs of a list of names."""
    file = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not file.is_file():
        raise UserError(f"data=voc: there is no file '{file}'")
    names = file.read_text().split()
    return Pairs([f"{home}/JPEGImages/{name}.jpg" for name in names], [f"{home}/{folder}/{name}.png" for name in names])


def paired(images: Path, masks: Path) -> Pairs:
    """Pairs of two folders, by the images' names. UserError for an image without a mask."""
    found, known = images_below(images), {name.rpartition(".")[0]: name for name in images_below(masks).names}
    stems = {name: name.rpartition(".")[0] for name in found.names}
    own = {
        name: next((known[stem + end] for end in ENDINGS if stem + end in known), "") for name, stem in stems.items()
    }
    if not own:
        raise UserError(f"'{images}' holds no images")
    if missing := [name for name, mask in own.items() if not mask]:
        first = stems[missing[0]]
        raise UserError(f"{plural(len(missing), 'image')} in '{images}' without a mask: "
                        f"{some(missing, 3)}; '{masks / first}.png' is expected, for one")  # fmt: skip
    unused = len(known) - len(set(own.values()))
    notes = [f"masks without an image in '{masks}': {unused:,}"] if unused else []
    return Pairs([f"{images}/{name}" for name in own], [f"{masks}/{mask}" for mask in own.values()], tuple(notes))


def named_classes(file: Path) -> list[str]:
    """Names in a text file, one in each line; none where there is no file."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def dataset_of(
    cfg: DataConfig, parts: dict[str, Pairs], classes: list[str], *, colors: Sequence[tuple[int, int, int]] = ()
) -> Dataset:
    """Data set of the pairs of each split, checked. Without names of classes, these are the numbers in the masks."""
    found = {split: checked(cfg, pairs, len(classes)) for split, pairs in parts.items()}
    looks = [look for _, of_split in found.values() for look in of_split]
    classes = classes or numbered(cfg, looks)
    sizes = {look.size for look in looks}
    kept = len(sizes) == 1 and sum(width * height * 4 for width, height in sizes) * len(looks) <= IN_MEMORY
    sources = {split: source_of(pairs, kept, cfg.ignore) for split, (pairs, _) in found.items()}
    colors = colors or palette_in(found["train"][0].masks[0])
    split = next((split for split in ("val", "test") if split in found), "val")
    return Dataset(
        name=cfg.name,
        classes=classes,
        **OF_PHOTOGRAPHS,
        image_size=min(min(size) for size in sizes),
        crop_ratio=cfg.crop_ratio,
        train=sources["train"],
        val=sources.get(split, Files([], [])),
        split=split,
        test=sources.get("test") if split == "val" else None,
        kept=plural(len(sources["test"]), "test image") if split == "val" and "test" in sources else "",
        task="segmentation",
        whole=True,
        pair=None if kept or cfg.ignore is None else partial(ignoring, cfg.ignore),
        extra={"colors": [list(color) for color in colors[: len(classes)]]} if colors else {},
        identity=identity(classes, [pairs for name, (pairs, _) in found.items() if name in ("train", split)]),
        notes=tuple(note for pairs, _ in found.values() for note in pairs.notes),
    )


def identity(classes: list[str], parts: Iterable[Pairs]) -> str:
    """Hash over the classes and the images' names, each with its folder's."""
    names = ["/".join(Path(path).parts[-2:]) for part in parts for path in (*part.images, "")]
    return hashlib.sha256("\0".join([*classes, "", *names]).encode(errors="surrogateescape")).hexdigest()


def source_of(pairs: Pairs, kept: bool, ignore: int | None) -> Source:
    """The pairs, read where they are kept in memory."""
    if not kept:
        return Files(pairs.images, pairs.masks)
    with ThreadPoolExecutor(cores()) as pool:
        images = torch.stack(list(pool.map(lambda path: as_tensor(read_image(path, quietly=False)), pairs.images)))
        found = torch.stack(list(pool.map(read_mask, pairs.masks)))
    return Arrays(images, found if ignore is None else ignoring(ignore, images, found)[1], tuple(pairs.images))


def ignoring(value: int, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Images and their masks, in which this value is not counted either."""
    return images, masks.masked_fill(masks == value, IGNORE)


# Checks


def checked(cfg: DataConfig, pairs: Pairs, classes: int) -> tuple[Pairs, list[Look]]:
    """The pairs and what each mask holds. UserError that names a wrong one, which data.on_error=skip leaves out."""
    look = partial(look_at, classes=classes, ignore=cfg.ignore)
    with ThreadPoolExecutor(cores()) as pool:
        return without_faults(cfg, pairs, list(pool.map(look, pairs.images, pairs.masks)))


def look_at(image: str, mask: str, *, classes: int, ignore: int | None) -> Look:
    """What a mask holds. classes: how many there are; 0 where that is not known."""
    values = np.zeros(256, dtype=bool)
    try:
        size, found = upright_size(image), read_mask(mask)
    except UserError as error:
        return Look(values, (0, 0), str(error))
    values[np.unique(found.numpy())] = True
    if ignore is not None:
        values[ignore] = False
    values[IGNORE] = False
    here = found.shape[1], found.shape[0]
    top = int(values.nonzero()[0].max(initial=-1))
    fault = ""
    if here != size:
        fault = f"the mask '{mask}' has {here[0]} x {here[1]} pixels, its image {size[0]} x {size[1]}"
    elif top < 0 and classes:
        fault = f"the mask '{mask}' marks no pixel: all of them are ignored"
    elif classes and top >= classes:
        fault = f"the mask '{mask}' has class {top}, but the {plural(classes, 'class')} are 0 to {classes - 1}"
    return Look(values, size, fault)


def upright_size(path: str) -> tuple[int, int]:
    """Width and height of an image, turned upright by its EXIF; only its head is read."""
    with open_image(path, path, quietly=False) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)


def without_faults(cfg: DataConfig, pairs: Pairs, looks: list[Look]) -> tuple[Pairs, list[Look]]:
    """The pairs without wrong ones, where data.on_error=skip leaves them out. Else UserError that names one."""
    faults = [look.fault for look in looks if look.fault]
    if not faults:
        return pairs, looks
    if cfg.on_error is not OnBadImage.skip:
        more = f" (and {len(faults) - 1:,} more masks are wrong)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")
    good = [number for number, look in enumerate(looks) if not look.fault]
    note = f"data.on_error=skip: {plural(len(faults), 'mask')} wrong and left out with their images: {some(faults, 3)}"
    images, masks = ([paths[number] for number in good] for paths in (pairs.images, pairs.masks))
    return Pairs(images, masks, (*pairs.notes, note)), [looks[number] for number in good]


def numbered(cfg: DataConfig, looks: list[Look]) -> list[str]:
    """Names for the classes of masks that nothing names: 0 to the largest number. UserError for less than two."""
    top = max(int(look.values.nonzero()[0].max(initial=0)) for look in looks)
    if top == 0:
        raise UserError(
            f"data={cfg.name}: the masks hold no class but 0, as {IGNORE} is for pixels that are not counted: write the"
            " class as 1"
        )
    return [f"class {number}" for number in range(top + 1)]


def palette_in(mask: str) -> list[tuple[int, int, int]]:
    """Colours of a mask's own palette; none where it has none."""
    with open_image(mask, mask) as image:
        flat = (image.getpalette("RGB") or []) if image.mode == "P" else []
    return list(batched_colors(flat))


def batched_colors(flat: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    for start in range(0, len(flat) - 2, 3):
        yield flat[start], flat[start + 1], flat[start + 2]
