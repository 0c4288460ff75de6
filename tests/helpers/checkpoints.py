"""The least that a checkpoint holds, checkpoints as earlier versions wrote them, and how a file is damaged."""

from pathlib import Path
from typing import Any

import torch

from cnnbench import models
from cnnbench.utils.files import write_zip_with_checksum
from cnnbench.weights import checkpoint

CONFIG: dict[str, Any] = {
    "data": {},
    "augment": {},
    "optim": {},
    "schedule": {},
    "precision": "auto",
    "epochs": 1,
    "batch_size": 1,
}
INPUT: dict[str, Any] = {"image_size": 32, "in_channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
PROGRESS: dict[str, Any] = {"epoch": 1, "batch": 0, "seconds": 0.0, "best_epoch": 1}
NET = {"model": models.build("resnet8", num_classes=2).state_dict(), "config": CONFIG}
NEEDED: dict[str, Any] = {
    **NET,
    "spec": {"model": {"name": "resnet8"}, "labels": ["a", "b"], "input": INPUT},
    "progress": {**PROGRESS, "best": 0.5},
}
NEEDED_BEFORE: dict[str, Any] = {  # formats 1 and 2
    **NET,
    "inference": {"model": {"name": "resnet8"}, "classes": ["a", "b"], **INPUT},
    "progress": {**PROGRESS, "best_top1_error": 0.5},
}


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


def write_as_format(number: int, file: Path) -> None:
    """Rewrite a classifier's checkpoint as the versions with format 1 or 2 wrote it: its names, and no others."""
    now = checkpoint.load(file)
    spec, progress, meter = now["spec"], now["progress"], now["meter"]
    images = spec["input"]
    before = {
        "format": 1,
        "cnnbench": "0.1.0",
        "torch": now["torch"],
        "config": now["config"],
        "inference": {
            "model": spec["model"],
            "classes": spec["labels"],
            **{key: images[key] for key in ("mean", "std", "image_size", "in_channels")},
        },
        "images": now["images"],
        "progress": {
            "epoch": progress["epoch"],
            "batch": progress["batch"],
            "seconds": progress["seconds"],
            "best_top1_error": progress["best"],
            "best_epoch": progress["best_epoch"],
        },
        "rows": now["rows"],
        "sums": {key: meter[key] for key in ("loss", "correct", "n")},
        **{key: now[key] for key in ("batch_size", "model", "ema", "optimizer", "scaler", "step")},
    }
    if number == 1:
        torch.save(before, file)
        return
    before["format"] = 2
    before["inference"] |= {key: images[key] for key in ("crop_ratio", "interpolation")}
    before["progress"]["pruned"] = progress["pruned"]
    before["sums"]["left_out"] = meter["left_out"]
    before |= {key: now[key] for key in ("warned", "images_per_second", "versions", "accumulate", "skipped")}
    write_zip_with_checksum(file, lambda sealed: torch.save(before, sealed))  # type: ignore[arg-type]
