"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as their author packed them: pickled batches of 32 x 32 pixels.

Only files with the known checksums are opened, since a pickle can run any code. They are read without torchvision,
whose import takes longer than the reading; torchvision only fetches and unpacks the archives.
"""

import hashlib
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.folders import locked
from cnnbench.data.sources import Arrays, Dataset
from cnnbench.utils.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """One of the two sets: its files with their MD5 sums, and the keys of their contents."""

    folder: str
    archive: str
    archive_md5: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: str
    label_names: str
    # Over all pixels of the 50,000 training images. (The .202 that is often quoted as CIFAR-10's std is the mean of the
    # stds of single images.)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str = URL


SETS = {
    "cifar10": Cifar(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        labels="labels",
        label_names="label_names",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Cifar(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        labels="fine_labels",
        label_names="fine_label_names",
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
}


def cifar(cfg: DataConfig, root: Path) -> Dataset:
    """Data set from its folder in `root`, or `root` itself. UserError where it is missing, incomplete or damaged."""
    known = SETS[cfg.name]
    root = root.parent if root.name == known.folder else root
    batches = _read(root, known)
    if batches is None and (cfg.download or not (root / known.folder).is_dir()):
        _fetch(cfg, known, root)
        batches = _read(root, known)
    if batches is None:
        raise UserError(
            f"{root / known.folder} is incomplete or damaged: a file's checksum is wrong.\n"
            "Unpack the archive again, or add data.download=true."
        )
    (meta,) = (batches[name] for name in known.meta)
    return Dataset(
        name=cfg.name,
        classes=list(meta[known.label_names]),
        mean=known.mean,
        std=known.std,
        image_size=32,
        crop_ratio=cfg.crop_ratio,
        in_channels=3,
        train=_arrays([batches[name] for name in known.train], known),
        val=_arrays([batches[name] for name in known.test], known),
        split="test",
    )


def _read(root: Path, known: Cifar) -> dict[str, dict[str, Any]] | None:
    """Content of each file; None where one is missing or has another checksum. Checksums are computed in parallel."""
    expected = {**known.train, **known.test, **known.meta}

    def content(name: str) -> bytes:
        data = (root / known.folder / name).read_bytes()
        return data if hashlib.md5(data, usedforsecurity=False).hexdigest() == expected[name] else b""

    try:
        with ThreadPoolExecutor() as pool:
            files = dict(zip(expected, pool.map(content, expected), strict=True))
    except OSError:
        return None
    return (
        {name: pickle.loads(data, encoding="latin1") for name, data in files.items()} if all(files.values()) else None
    )


def _arrays(batches: list[dict[str, Any]], known: Cifar) -> Arrays:
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    targets = [target for batch in batches for target in batch[known.labels]]
    return Arrays(torch.from_numpy(pixels), torch.tensor(targets))


def _fetch(cfg: DataConfig, known: Cifar, root: Path) -> None:
    """Unpack the archive in root; with data.download=true fetch it first."""
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    archive = root / known.archive
    if not cfg.download and not archive.is_file():
        raise UserError(
            f"data={cfg.name} expects the folder {known.folder} or {known.archive} in '{root}'.\n"
            "Set data.root=DIR (or $CNNBENCH_DATA) to where it is, or data.download=true to fetch it (about 165 MB)."
        )
    if not cfg.download and not check_integrity(str(archive), known.archive_md5):
        raise UserError(f"{archive} is damaged: its checksum is wrong. Add data.download=true to fetch it again.")
    url = known.url + known.archive
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            if _read(root, known) is None:  # another process may have unpacked it meanwhile
                download_and_extract_archive(url, str(root), filename=known.archive, md5=known.archive_md5)
    except (OSError, EOFError, RuntimeError, tarfile.TarError) as error:
        raise UserError(f"could not fetch {url} into '{root}': {error}") from None
