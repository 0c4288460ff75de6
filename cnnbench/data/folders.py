"""Data sets of image files: any folder with a subfolder for each class, and ImageNet."""

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.sources import Dataset, Files
from cnnbench.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VAL_NAMES = {"val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_folder(cfg: DataConfig, root: Path) -> Dataset:
    """Data set of ROOT/train and ROOT/val (or valid, validation, test), or of ROOT/CLASS with images held out."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}'.\ndata=folder expects {_expected('DIR')}.")
    if not (root / "train").is_dir():
        inside = [path for path in _subfolders(root) if (path / "train").is_dir()]
        if inside:
            raise UserError(f"'{root}' has no folder train, but '{inside[0]}' has: use data.root={inside[0]}")
        return _tree(cfg, root, None)
    val = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    return _tree(cfg, root / "train", val)


def _expected(root: str) -> str:
    return f"{root}/train/CLASS/*.jpg and {root}/val/CLASS/*.jpg, or {root}/CLASS/*.jpg with data.val_fraction=0.2"


def _tree(cfg: DataConfig, train: Path, val: Path | None) -> Dataset:
    """Data set of class folders. Without a val folder, val is empty until `load_dataset` holds images out."""
    classes = [folder.name for folder in _class_folders(train)]
    if len(classes) == 1:
        raise UserError(f"'{train}' holds one class only, '{classes[0]}': classification needs two folders or more.")
    if val is None and cfg.val_fraction == 0:
        raise UserError(
            f"data={cfg.name} found nothing to validate on: no folder val or test goes with '{train}'.\n"
            "Set data.val_fraction=0.2 to hold out a fifth of the training images."
        )
    files = _scan(train)
    val_files = {} if val is None else _scan(val)
    if val is not None and list(val_files) != classes:
        raise UserError(_difference(train, classes, val, list(val_files)))
    return Dataset(
        name=cfg.name,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_size=224,
        crop_ratio=cfg.crop_ratio,
        in_channels=3,
        train=_source(files),
        val=_source(val_files),
        split="val" if val is None else VAL_NAMES[val.name],
    )


def _source(files: dict[str, list[str]]) -> Files:
    counts = torch.tensor([len(paths) for paths in files.values()], dtype=torch.int64)
    return Files(
        [path for paths in files.values() for path in paths], torch.arange(len(files)).repeat_interleave(counts)
    )


def _difference(train: Path, classes: list[str], val: Path, val_classes: list[str]) -> str:
    text = f"'{train}' and '{val}' have different classes."
    for folder, ours, theirs in ((train, classes, val_classes), (val, val_classes, classes)):
        if only := sorted(set(ours) - set(theirs)):
            text += f"\nonly in '{folder}': {_some(only)}"
    return text


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _class_folders(root: Path) -> list[Path]:
    folders = _subfolders(root)
    if not folders:
        loose = any(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        hint = "holds images, but not in one folder per class" if loose else "has no class folders"
        raise UserError(f"'{root}' {hint}: expected {root}/CLASS/*.jpg")
    return folders


def _scan(root: Path) -> dict[str, list[str]]:
    """Class name -> its image files at any depth, both sorted by name. UserError for an empty class."""
    files = {folder.name: images_below(folder) for folder in _class_folders(root)}
    if empty := [name for name, paths in files.items() if not paths]:
        raise UserError(f"no images in '{root}' for class {_some(empty)} (looked for {' '.join(SUFFIXES)}).")
    return files


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder '{root}': {error.strerror}") from None


def images_below(folder: Path) -> list[str]:
    """Image files by their suffix, at any depth. UserError for a folder that cannot be read.

    Hidden ones are skipped: archives made on a Mac are full of `._photo.jpg`.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder '{error.filename}': {error.strerror}")

    found = []
    for base, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [f"{base}/{name}" for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    return sorted(found)


def imagenet(cfg: DataConfig, root: Path) -> Dataset:
    """ILSVRC 2012 from its train and val folders, which are unpacked from the original archives where missing."""
    home = _imagenet_home(root)
    dataset = _tree(cfg, home / "train", home / "val")
    return replace(dataset, classes=_imagenet_names(home, dataset.classes))


def _imagenet_home(root: Path) -> Path:
    from torchvision.datasets.imagenet import ARCHIVE_META

    homes = [root, root / "imagenet", root / "ILSVRC2012"]
    for home in homes:
        if (home / "train").is_dir() and (home / "val").is_dir():
            return home
    archives = [name for name, _ in ARCHIVE_META.values()]
    for home in homes:
        if any((home / name).is_file() for name in archives):
            _unpack(home)
            return home
    raise UserError(
        f"data=imagenet expects in '{root}' train/ and val/ with a folder per class, or the original archives\n"
        f"{', '.join(archives)} (from image-net.org, after registering).\n"
        "Set data.root=DIR (or $CNNBENCH_DATA) to where they are."
    )


def _unpack(home: Path) -> None:
    """Unpack the archives of the missing folders through torchvision.

    A folder gets its name only when it is complete, so an interrupted one is not mistaken for the whole set.
    """
    from torchvision.datasets import imagenet as tv

    def missing() -> list[str]:
        wanted = {"devkit": home / tv.META_FILE, "train": home / "train", "val": home / "val"}
        return [part for part, path in wanted.items() if not path.exists()]

    absent = [tv.ARCHIVE_META[part][0] for part in missing() if not (home / tv.ARCHIVE_META[part][0]).is_file()]
    if absent:
        raise UserError(f"'{home}' lacks {', '.join(absent)}: put it beside the other ImageNet archives.")
    try:
        with locked(home):
            for part in missing():
                print(f"unpacking {home / tv.ARCHIVE_META[part][0]} (once; ImageNet takes hours)", file=sys.stderr)
                if part == "devkit":
                    tv.parse_devkit_archive(str(home))
                    continue
                partial = home / f"{part}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                parse = tv.parse_train_archive if part == "train" else tv.parse_val_archive
                parse(str(home), folder=partial.name)
                partial.rename(home / part)
    except (OSError, EOFError, RuntimeError, tarfile.TarError) as error:
        raise UserError(f"could not unpack ImageNet in '{home}': {error}") from None


def _imagenet_names(home: Path, wnids: list[str]) -> list[str]:
    """English names of WordNet ids: torchvision's where all 1,000 classes are there, else the unpacked devkit's.

    Published weights use torchvision's names. The devkit's differ in a few places, and some occur twice.
    """
    from torchvision.datasets.imagenet import META_FILE, load_meta_file
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    ids = [wnid for wnid in wnids if re.fullmatch(r"n\d{8}", wnid)]
    if len(ids) == len(wnids) == 1000 and (ids[0], ids[-1]) == ("n01440764", "n15075141"):
        return list(_IMAGENET_CATEGORIES)
    if (home / META_FILE).is_file():
        words = load_meta_file(str(home))[0]
        return [words[wnid][0] if wnid in words else wnid for wnid in wnids]
    return wnids


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock on a folder: ranks and jobs of a sweep start together, and only one of them may unpack."""
    import fcntl

    with (folder / ".cnnbench.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Files of an archive stay in its folder: `..`, absolute paths and links to the outside are refused.
        before = tarfile.TarFile.extraction_filter
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
        try:
            yield
        finally:
            tarfile.TarFile.extraction_filter = before
