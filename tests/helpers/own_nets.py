"""Files with nets of a user's own, and what a fresh process knows of them: nothing."""

from pathlib import Path

import pytest

from cnnbench.models import own_files

NET = """
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(x + self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self, num_classes=10, in_channels=3, width=8, depth=3):
        super().__init__()
        self.name = nn.Conv2d(in_channels, width, 3, padding=1)
        self.stages = nn.ModuleList([Block(width) for _ in range(depth)])
        self.dropout = nn.Dropout(0.1)
        self.dense = nn.Linear(width, num_classes)

    def forward(self, x):
        x = F.relu(self.name(x))
        for block in self.stages:
            x = block(x)
        return self.dense(self.dropout(x.mean((2, 3))))
"""


def write_net(folder: Path, name: str = "mynet.py", text: str = NET) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process in which nobody named a file yet."""
    monkeypatch.setattr(own_files, "GIVEN", {})
