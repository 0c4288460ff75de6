"""Several processes: a net without BatchNorm or dropout for them to train, and how tests watch them."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
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


def until(what: str, met: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what another process does. The bound is for a hang: a loaded machine keeps within it."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.01)


def wait_for(file: Path) -> None:
    until(f"{file} is written", file.exists)


def free_port() -> int:
    """Below those that the system gives to whoever asks for any."""
    for port in SystemRandom().sample(range(10_000, 20_000), 1000):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings in processes of their own wait in mid-epoch within this block: see children/sitecustomize.py."""
    monkeypatch.setenv("HOLD", str(folder / "hold"))
    (folder / "hold").touch()
    try:
        yield
    finally:
        (folder / "hold").unlink()


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
