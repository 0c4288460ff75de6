"""MNIST, Fashion-MNIST, SVHN and STL-10, from the files as they are given out; torchvision fetches what is missing.

- MNIST: LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition".
- Fashion-MNIST: Xiao, Rasul & Vollgraf (2017), arXiv 1708.07747; the files have the names of MNIST's.
- SVHN, its cropped digits: Netzer et al. (2011), "Reading digits in natural images with unsupervised feature learning".
- STL-10: Coates, Lee & Ng (2011), "An analysis of single-layer networks in unsupervised feature learning".
"""

import gzip
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.assembly import dataset_of
from cnnbench.data.folders import locked
from cnnbench.data.sources import Arrays, Dataset
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

DIGITS = tuple("0123456789")
BYTES = 8  # the type of an IDX file whose values are unsigned bytes
Split = tuple[np.ndarray, np.ndarray]  # images uint8 (N, C, H, W) and labels (N,)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A set: where its files may lie, and how they are read."""

    homes: Sequence[str]  # below data.root; the first of them that has the files
    files: Sequence[str]  # of the training images and labels, by which a home is known
    read: Callable[[Path, str], Split]
    classes: Sequence[str]
    fetch: Sequence[Mapping[str, Any]]  # arguments of torchvision's class, for each part that it fetches
    name: str  # of torchvision's class
    megabytes: int  # to be fetched


def small_images(cfg: DataConfig, root: Path) -> Dataset:
    """Data set of a name in SETS, in memory. UserError where its files are missing or damaged."""
    known = SETS[cfg.name]
    home = _home(cfg, known, root)
    if home is None and cfg.download:
        _fetch(cfg, known, root)
        home = _home(cfg, known, root)
    if home is None:
        raise UserError(f"data={cfg.name} expects in '{root / known.homes[0]}' {' and '.join(known.files)}, and those "
                        "of the test images.\nSet data.root=DIR (or $CNNBENCH_DATA) to where they are, or "
                        f"data.download=true to fetch them (about {known.megabytes:,} MB).")  # fmt: skip
    train, test = (_arrays(known, home, part) for part in ("train", "test"))
    return dataset_of(cfg, {"train": train, "test": test}, known.classes)


def _home(cfg: DataConfig, known: Known, root: Path) -> Path | None:
    homes = [root / home for home in known.homes if home or cfg.root]  # elsewhere other sets' files have the same names
    return next((home for home in homes if all(_file(home, name) for name in known.files)), None)


def _file(home: Path, name: str) -> Path | None:
    """The file of a name, as it is or packed; some write `train-images.idx3-ubyte`."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    return next((home / one for one in names if (home / one).is_file()), None)


def _arrays(known: Known, home: Path, part: str) -> Arrays:
    try:
        images, labels = known.read(home, part)
    except Exception as error:  # of scipy, zlib and numpy
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"cannot read the {part} images in '{home}': {reason}") from None
    if len(images) != len(labels):
        raise UserError(f"the {part} images in '{home}' are {len(images):,}, but they have "
                        f"{plural(len(labels), 'label')}: a file is damaged")  # fmt: skip
    return Arrays(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _fetch(cfg: DataConfig, known: Known, root: Path) -> None:
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            if _home(cfg, known, root) is None:  # another process may have fetched it meanwhile
                for arguments in known.fetch:
                    getattr(datasets, known.name)(str(root), download=True, **arguments)
    except (OSError, EOFError, RuntimeError) as error:
        raise UserError(f"could not fetch {known.name} into '{root}': {error}") from None


# The formats


def read_idx(path: Path) -> np.ndarray:
    """Values uint8 of an IDX file, gzip or not. ValueError where it is none."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != BYTES:
        raise ValueError(f"'{path.name}' is no IDX file of bytes")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) != start + math.prod(shape):
        raise ValueError(f"'{path.name}' has {len(content):,} bytes, but should have {start + math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _mnist(home: Path, part: str) -> Split:
    names = [f"{'t10k' if part == 'test' else part}-{name}" for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = (read_idx(_file(home, name) or home / name) for name in names)
    return images[:, None], labels


def _svhn(home: Path, part: str) -> Split:
    """Cropped digits; in the files the label of a 0 is 10."""
    from scipy.io import loadmat

    held = loadmat(home / f"{part}_32x32.mat")
    return np.ascontiguousarray(held["X"].transpose(3, 2, 0, 1)), held["y"].reshape(-1) % 10


def _stl10(home: Path, part: str) -> Split:
    """The labelled images, each stored column by column; labels begin at 1."""
    images = np.fromfile(home / f"{part}_X.bin", np.uint8).reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(images), np.fromfile(home / f"{part}_y.bin", np.uint8).astype(np.int64) - 1


IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
SETS = {
    "mnist": Known(homes=("MNIST/raw", "MNIST", "mnist", ""), files=IDX, read=_mnist, classes=DIGITS, name="MNIST",
                   fetch=[{}], megabytes=11),
    "fashion_mnist": Known(
        homes=("FashionMNIST/raw", "FashionMNIST", "fashion_mnist", "fashion-mnist", ""), files=IDX, read=_mnist,
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                 "Ankle boot"),
        name="FashionMNIST", fetch=[{}], megabytes=31,
    ),
    "svhn": Known(homes=("", "svhn", "SVHN"), files=("train_32x32.mat",), read=_svhn, classes=DIGITS, name="SVHN",
                  fetch=[{"split": "train"}, {"split": "test"}], megabytes=246),
    "stl10": Known(
        homes=("stl10_binary", "stl10", "STL10", ""), files=("train_X.bin", "train_y.bin"), read=_stl10,
        classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        name="STL10", fetch=[{}], megabytes=2640,
    ),
}  # fmt: skip
