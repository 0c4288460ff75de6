"""Object detection: boxes with a class and a score, SSD's loss, COCO's mAP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from cnnbench.config.commands import TrainConfig
from cnnbench.data import Dataset
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import BOXES
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.detection import METRICS
from cnnbench.tasks.detection.decode import OVERLAP
from cnnbench.tasks.detection.matching import losses
from cnnbench.tasks.detection.metrics import BoxMeter, check_package
from cnnbench.tasks.meter import Meter


@dataclass(frozen=True)
class Detection(Task):
    """Nets return (N, classes + 1 + 8, boxes), as `matching.py` says; targets are tables of boxes (N, rows, 7)."""

    classes: int
    side: int  # of the net's input, pixels
    overlap: float = OVERLAP  # IoU from which on of two boxes of a class only the likelier one stays
    label_smoothing: float = 0.0
    name = "detection"
    metrics = METRICS
    answers = BOXES
    memorised = 70.0  # percent

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        return cls(0, 0, label_smoothing=cfg.label_smoothing)

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(len(spec.labels), spec.input.image_size)

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        check_package()
        return super().adopt(dataset, model)

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses(outputs, targets, self.label_smoothing).mean()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses(outputs, targets).mean()

    def meter(self, runtime: Runtime) -> Meter:
        return Meter(runtime)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> BoxMeter:
        return BoxMeter(runtime, len(spec.labels), spec.input.image_size, self.overlap)


TASK = Detection
