"""A second task: find planted shapes, pixel by pixel. All that it takes, beside a data set and a net for it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import tasks
from cnnbench.data import Arrays, Dataset, datasets
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import IGNORE
from cnnbench.models import MODELS
from cnnbench.models.layers import MASK
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.metric import Metric
from tests.helpers.tiny_fcn import TinyFcn

NAMES, SIDE = ["ground", "square", "bar"], 16


class IouMeter(Meter):
    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.confusion = torch.zeros(len(NAMES), len(NAMES), dtype=torch.int64, device=runtime.device)

    def own(self) -> dict[str, Tensor]:
        return {"confusion": self.confusion}

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        known, answers = targets != IGNORE, outputs.argmax(1)
        pairs = targets[known].long() * len(NAMES) + answers[known]
        self.confusion += torch.bincount(pairs, minlength=len(NAMES) ** 2).view_as(self.confusion)

    def metrics(self) -> dict[str, float]:
        both = self.confusion.diag().double()
        return {"miou": 100 * (both / (self.confusion.sum(0) + self.confusion.sum(1) - both)).nanmean().item()}


class Planted(Task):
    name = "planted"
    metrics = (Metric("miou", "mean IoU", "%", lower_is_better=False),)
    answers = MASK
    memorised = 80.0

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean over the images of the mean over the pixels of each: so microbatches and processes add up."""
        losses = F.cross_entropy(outputs.float(), targets.long(), ignore_index=IGNORE, reduction="none")
        return (losses.sum((1, 2)) / (targets != IGNORE).sum((1, 2))).mean()

    def meter(self, runtime: Runtime) -> Meter:
        return IouMeter(runtime)

    def describe(self, answer: Tensor, spec: ModelSpec) -> dict[str, Any]:
        counts = torch.bincount(answer.argmax(0).flatten(), minlength=len(spec.labels)).tolist()
        return dict(zip(spec.labels, counts, strict=True))


TASK = Planted


def planted(cfg: Any, root: Path) -> Dataset:
    """Gray noise with a bright square and a dark bar in each image, and a mask of both."""
    rng, count = np.random.default_rng(0), 80
    images, masks = rng.integers(100, 156, (count, 1, SIDE, SIDE), np.uint8), np.zeros((count, SIDE, SIDE), np.uint8)
    for image, mask, (y, x, row) in zip(images, masks, rng.integers(0, SIDE - 4, (count, 3)), strict=True):
        for value, label, part in ((230, 1, np.s_[y : y + 4, x : x + 4]), (20, 2, np.s_[row : row + 2, 2:14])):
            image[0][part], mask[part] = value, label
    source = Arrays(torch.from_numpy(images), torch.from_numpy(masks))
    train, val = source.subset(torch.arange(64)), source.subset(torch.arange(64, count))
    return Dataset(name=cfg.name, classes=NAMES, mean=(0.5,), std=(0.2,), image_size=SIDE, crop_ratio=1.0,
                   in_channels=1, train=train, val=val, split="val", task="planted")  # fmt: skip


def register() -> None:
    tasks.TASKS["planted"], datasets.SETS["planted"], MODELS["tiny_fcn"] = __name__, planted, TinyFcn
