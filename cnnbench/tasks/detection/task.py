"""Object detection: boxes with a class and a score, SSD's loss, COCO's mAP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from cnnbench import models
from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.data import Batch, Dataset
from cnnbench.data.boxes import CLASS
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import BOXES, Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Deployed, Exported, Task
from cnnbench.tasks.detection import METRICS
from cnnbench.tasks.detection.decode import OVERLAP, detections
from cnnbench.tasks.detection.matching import as_objects, losses
from cnnbench.tasks.detection.metrics import BoxMeter, check_package
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.meter import Meter
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.tasks.detection.predictor import Detector


@dataclass(frozen=True)
class Detection(Task):
    """Nets return (N, classes + 1 + 8, boxes), as `matching.py` says; targets are tables of boxes (N, rows, 7).

    Nets that compute their loss themselves return (N, 6, rows), as `models/torchvision_rcnn.py` says.
    """

    classes: int
    side: int  # of the net's input, pixels
    overlap: float = OVERLAP  # IoU from which on of two boxes of a class only the likelier one stays
    label_smoothing: float = 0.0
    own_loss: bool = False  # whether the net computes its loss itself
    name = "detection"
    metrics = METRICS
    answers = BOXES
    memorised = 70.0  # percent
    own_keys = ("score",)

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        own_loss = isinstance(model, Net) and model.needs_targets
        if own_loss and (cfg.label_smoothing or cfg.compile):
            what = "label_smoothing is for the loss of SSD" if cfg.label_smoothing else "compile=true is for SSD"
            raise UserError(f"{what}: {model.name} computes its loss itself, from the boxes of each image")
        return cls(0, 0, label_smoothing=cfg.label_smoothing, own_loss=own_loss)

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(len(spec.labels), spec.input.image_size, own_loss=models.needs_targets(**spec.model))

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        check_package()
        return super().adopt(dataset, model)

    def check(self, dataset: Dataset) -> None:
        """UserError where there is no object to be found, or none to be judged by."""
        for split, source in (("training", dataset.train), ("validation", dataset.val)):
            if len(source) and not (source.targets[:, 1:, CLASS] >= 0).any():
                raise UserError(f"data={dataset.name}: no {split} image has a box")

    @property
    def unrecordable(self) -> str:
        return "this net looks at the boxes of each image in its step" if self.own_loss else ""

    def inputs(self, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        return (images, [as_objects(table) for table in targets]) if self.own_loss else (images,)

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        own: Tensor = outputs[1] if self.own_loss else losses(outputs, targets, self.label_smoothing)
        return own.mean()

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return replace(self, label_smoothing=0.0).training_loss(outputs, targets)

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
