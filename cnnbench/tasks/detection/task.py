"""Object detection: boxes with a class and a score, SSD's loss, COCO's mAP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.data import Batch, Dataset
from cnnbench.data.boxes import CLASS
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import BOXES, Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Deployed, Exported, Task
from cnnbench.tasks.detection import METRICS
from cnnbench.tasks.detection.decode import OVERLAP, detections
from cnnbench.tasks.detection.matching import losses
from cnnbench.tasks.detection.metrics import BoxMeter, check_package
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.meter import Meter
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.tasks.detection.predictor import Detector


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
    own_keys = ("score",)

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

    def check(self, dataset: Dataset) -> None:
        """UserError where there is no object to be found, or none to be judged by."""
        for split, source in (("training", dataset.train), ("validation", dataset.val)):
            if len(source) and not (source.targets[:, 1:, CLASS] >= 0).any():
                raise UserError(f"data={dataset.name}: no {split} image has a box")

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses(outputs, targets, self.label_smoothing).mean()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return losses(outputs, targets).mean()

    def meter(self, runtime: Runtime) -> Meter:
        return Meter(runtime)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> BoxMeter:
        return BoxMeter(runtime, len(spec.labels), spec.input.image_size, self.overlap)

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.detection import evaluation

        return evaluation.measure(self, judged[0], runtime)

    def exported(self, spec: ModelSpec) -> Exported:
        from cnnbench.tasks.detection import deployed

        return deployed.raw(spec)

    def deployed(self, model: Net, spec: ModelSpec) -> Deployed:
        from cnnbench.tasks.detection import deployed

        return deployed.finished(model, spec, self.overlap)

    # To show: matplotlib is imported where it is needed

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.detection import plots

        plots.plot_train_batch(batch["image"].cpu(), batch["target"].cpu(), labels, path)

    def draw_validation(self, meter: Meter, batch: Batch, answers: Any, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.detection import evaluation, plots
        from cnnbench.tasks.detection.verdicts import judge

        assert isinstance(meter, BoxMeter)
        found, truth = (rows.cpu() for rows in meter.rows())
        plots.plot_curves(judge(found, truth, len(labels)), labels, folder / "precision_recall.png", title)
        shown = detections(answers[: plots.SHOWN], meter.side, overlap=self.overlap).cpu()
        images, tables = batch["image"][: plots.SHOWN].cpu(), batch["target"][: plots.SHOWN].cpu()
        plots.plot_answers(images, tables, shown, labels, evaluation.SURE, folder / "val_predictions.png", title)

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> "Detector":
        from cnnbench.tasks.detection.predictor import Detector

        return Detector(self, model, spec, source, runtime)


TASK = Detection
