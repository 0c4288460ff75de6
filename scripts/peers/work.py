"""The work that all the peers do, said once: what `bench_peers.py` compares is everything else.

ResNet-18 with the ImageNet stem (7x7/2 and a pool; torchvision's and timm's `resnet18`), 10 classes, at 32 px; the
first so many images of each class of CIFAR-10's training set, shifted by up to 4 pixels (timm: its own crop) and
mirrored; its 10,000 test images after each epoch; SGD with momentum 0.9, weight decay 5e-4, cosine; channels last.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

BATCH, LR, MOMENTUM, DECAY, WORKERS, CLASSES = 128, 0.05, 0.9, 5e-4, 2, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Work:
    data: Path  # holds cifar-10-batches-py
    out: Path  # an empty folder for what the peer leaves behind
    images: int
    epochs: int
    compile: bool
    precision: str  # bf16 or fp32


def arguments() -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5120)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    return Work(**vars(parser.parse_args()))


def chosen(targets: list[int], images: int) -> list[int]:
    """The indices of the first images of each class, equally many of each."""
    left = dict.fromkeys(range(CLASSES), images // CLASSES)
    found = []
    for index, target in enumerate(targets):
        if left[target]:
            left[target] -= 1
            found.append(index)
    return found
