"""Data sets of image files: any folder with a subfolder for each class, and ImageNet."""

import re
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from cnnbench.config.sections import DataConfig, OnBadImage
from cnnbench.data import identity
from cnnbench.data.class_tree import ClassTree, check_classes, check_splits, read_tree, refuse_empty, refuse_odd
from cnnbench.data.flat_split import IMAGES, flat_tree
from cnnbench.data.layout import Layout, expected, find_layout, tables_in
from cnnbench.data.moments import OF_PHOTOGRAPHS, PHOTOGRAPH
from cnnbench.data.scan import subfolders
from cnnbench.data.sources import Dataset, Files
from cnnbench.utils.errors import UserError


def image_folder(cfg: DataConfig, root: Path, *, unsplit: bool = False, test: bool = False) -> Dataset:
    """Data set of ROOT/train, ROOT/val and ROOT/test (under their usual names), or of ROOT/CLASS with images held out.

    unsplit: none need be held out, and one class is enough. test: read the test split too.
    """
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}'.\ndata=folder expects {expected('DIR')}.")
    others = [table for table in tables_in(root) if not (cfg.group or "").startswith(f"{Path(table).name}:")]
    tables = [f"'{table}' is not read: the folders are the labels" for table in others[:1]]
    dataset = _dataset(cfg, find_layout(root), unsplit=unsplit, test=test)
    return replace(dataset, root=str(root), notes=(*dataset.notes, *tables))


def _dataset(cfg: DataConfig, layout: Layout, *, unsplit: bool = False, test: bool = False) -> Dataset:
    """Data set of class folders. Without a val folder, val is empty until `load_dataset` holds images out."""
    train = read_tree(layout.train)
    deeper = check_classes(train, nested=cfg.nested, one=unsplit)
    is_val = not layout.val and cfg.val_fraction == 0  # the test folder, where it is all there is
    judged = layout.test if is_val else layout.val
    kept, unused = _kept(layout, is_val)
    trees = [train]
    if judged:
        trees.append(flat_tree(judged, list(train.found)) or read_tree(judged))
        refuse_empty(trees[1])
        check_splits(*trees)
    tests = _test_tree(train, kept) if kept and test else None
    read = [*trees, *([tests] if tests else [])]
    if cfg.on_error is not OnBadImage.skip:
        for tree in read:
            refuse_odd(tree)
    notes = [*layout.notes, unused, deeper, *(note for tree in read for note in tree.notes())]
    if judged and cfg.val_fraction > 0:
        notes.append(f"data.val_fraction holds out training images: '{judged}' is not used")
    classes = list(train.found)
    return Dataset(
        name=cfg.name,
        classes=classes,
        **OF_PHOTOGRAPHS,
        image_size=PHOTOGRAPH,
        crop_ratio=cfg.crop_ratio,
        train=train.source(classes),
        val=trees[1].source(classes) if judged else Files([], torch.zeros(0, dtype=torch.int64)),
        split="test" if judged and is_val else "val",
        test=tests.source(classes) if tests else None,
        kept=f"'{kept}'" if kept else "",
        identity=identity.of_names(trees),
        left_out=dict(sum((tree.left_out for tree in read), Counter())),
        notes=tuple(filter(None, notes)),
    )


def _kept(layout: Layout, is_val: bool) -> tuple[Path | None, str]:
    """The test folder that stays beside the validation images, and a note where its images have no labels."""
    if not layout.test or is_val:
        return None, ""
    if [folder.name for folder in subfolders(layout.test)] not in ([], [IMAGES]):
        return layout.test, ""
    return None, f"'{layout.test}' has no class folders: not used"


def _test_tree(train: ClassTree, folder: Path) -> ClassTree:
    tree = read_tree(folder)
    check_splits(train, tree, some_classes=True)
    return tree


def imagenet(cfg: DataConfig, root: Path) -> Dataset:
    """ILSVRC 2012 from its train and val folders, which are unpacked from the original archives where missing."""
    home = _imagenet_home(root)
    dataset = _dataset(cfg, Layout(train=home / "train", val=home / "val"))
    return replace(dataset, root=str(home), classes=_imagenet_names(home, dataset.classes))


def _imagenet_home(root: Path) -> Path:
    from torchvision.datasets.imagenet import ARCHIVE_META

    homes = [root, root / "imagenet", root / "ILSVRC2012", root / "ILSVRC/Data/CLS-LOC"]
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
