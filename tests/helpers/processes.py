"""Several processes: a net without BatchNorm or dropout for them to train, and how tests watch them."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench.models.layers import Net


class Bare(Net):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1), nn.Linear(128, num_classes)
        self.name, self.image_size = "resnet14", 8

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.conv], "head": [self.fc]}

    def forward(self, images: torch.Tensor) -> Any:
        return self.fc(self.conv(images).relu().flatten(1))


def bare(num_classes: int, in_channels: int, shortcut: str, shortcut_pad: str, zero_init_residual: bool) -> Net:
    return Bare(num_classes, in_channels)


def without_dropout() -> None:
    """Each process draws its own."""
    setattr(nn.Dropout, "forward", lambda self, x: x)  # noqa: B010


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, file
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
