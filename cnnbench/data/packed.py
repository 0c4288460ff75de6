"""Opens a packed data set that `cnnbench prepare` wrote, and checks its files against their record."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.shards import RECORD, Packed
from cnnbench.data.sources import Dataset
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import typed_path

ABOUT = "dataset.json"
FORMAT, VERSION = "cnnbench packed images", 1


def load_packed(cfg: DataConfig) -> Dataset:
    """Packed data set. UserError where it is another data set or incomplete, or where a shard or table is damaged."""
    folder = typed_path(cfg.packed or "")
    about = read_about(folder)
    if about["name"] != cfg.name:
        raise UserError(f"'{folder}' was packed from data={about['name']}, not from data={cfg.name}")
    if cfg.val_fraction > 0 and about["split"] == "held-out":
        raise UserError(
            f"'{folder}' has its own held-out images: leave data.val_fraction={cfg.val_fraction:g} out, "
            "which would hold out others"
        )
    test = about["splits"].get("test")  # few sets have one
    return Dataset(
        name=cfg.name,
        classes=about["classes"],
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        image_size=about["image_size"],
        crop_ratio=cfg.crop_ratio,
        in_channels=about["in_channels"],
        train=_source(folder, about["splits"]["train"]),
        val=_source(folder, about["splits"]["val"]),
        split=about["split"],
        test=test and _source(folder, test),
        kept="its test images" if test else "",
        root=str(folder),
        identity=_identity(about),
    )


def _identity(about: dict[str, Any]) -> str:
    """Hash over the classes and the tables, which hold each image's checksum, of what a training looks at."""
    tables = [about["splits"][split]["sha256"] for split in ("train", "val")]
    return hashlib.sha256(json.dumps([about["classes"], tables]).encode()).hexdigest()


def read_about(folder: Path) -> dict[str, Any]:
    """Content of dataset.json. UserError where it is missing or of another version."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = (folder / ".parts").is_dir()
        raise UserError(
            f"data.packed='{folder}': `cnnbench prepare` has not finished this folder: run the same command again"
            if begun
            else f"data.packed='{folder}': not a folder that `cnnbench prepare` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / ABOUT}: {error}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("version") != VERSION:
        raise UserError(f"{folder / ABOUT} has a format that this version cannot read: prepare the images again")
    return about


def _source(folder: Path, split: dict[str, Any]) -> Packed:
    path = folder / split["table"]
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != split["sha256"]:
                raise UserError(f"{path} is damaged: its checksum is wrong")
        table = np.load(path, mmap_mode="r")
        for shard in split["shards"]:
            if (size := (folder / shard["file"]).stat().st_size) != shard["bytes"]:
                raise UserError(f"{folder / shard['file']} has {size:,} bytes instead of {shard['bytes']:,}")
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data.packed: cannot read {getattr(error, 'filename', None) or path}: {error}") from None
    assert table.dtype == RECORD
    shards = [str(folder / shard["file"]) for shard in split["shards"]]
    return Packed(shards, table, torch.from_numpy(table["target"].astype(np.int64)), _groups(path, len(table)))


def _groups(table: Path, images: int) -> Tensor | None:
    """Group of each image, where the packed data had groups."""
    path = table.with_suffix(".groups.npy")
    if not path.exists():
        return None
    try:
        groups = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"data.packed: cannot read {path}: {error}") from None
    if groups.shape != (images,):
        raise UserError(f"{path} is damaged: it has {groups.shape} groups of {images:,} images")
    return torch.from_numpy(groups.astype(np.int64))
