"""Image classification: one class for each image, cross-entropy, top-1 and top-5 error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.config.sections import CropConfig
from cnnbench.data import Batch, Source, Views
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import image_ids
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.classification import METRICS, answers
from cnnbench.tasks.classification.metrics import ClassificationMeter, ConfusionMeter
from cnnbench.tasks.measurement import Judged, Measurement, Reading
from cnnbench.tasks.meter import Meter

if TYPE_CHECKING:
    from cnnbench.tasks.classification.predictor import Classifier


@dataclass(frozen=True)
class Classification(Task):
    """Nets return logits (N, classes), or (logits, *auxiliary logits) when training.

    aux_weight is the weight of each auxiliary loss (Szegedy et al., 2014: 0.3).
    """

    label_smoothing: float = 0.0
    aux_weight: float = 0.3
    name = "classification"
    metrics = METRICS
    linear_head = True
    memorised = 5.0  # percent of errors: one image of 32 may resist

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        return cls(cfg.label_smoothing, getattr(model, "aux_weight", 0.0))

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        for aux in auxiliary:
            loss = loss + self.aux_weight * F.cross_entropy(aux.float(), targets, label_smoothing=self.label_smoothing)
        return loss

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Plain cross-entropy: it compares across smoothing and auxiliary heads."""
        return F.cross_entropy(self.answer(outputs).float(), targets)

    def guessing_loss(self, spec: ModelSpec) -> float:
        return math.log(len(spec.labels))

    # To measure

    def meter(self, runtime: Runtime) -> Meter:
        return ClassificationMeter(runtime)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> ConfusionMeter:
        return ConfusionMeter(runtime, len(spec.labels))

    def views(self, crop: CropConfig, model: Net, spec: ModelSpec) -> Views | None:
        from cnnbench.tasks.classification import asking

        return None if crop == CropConfig() else asking.views(crop, model, spec)

    def judge_views(self, views: Views, model: Net, spec: ModelSpec, runtime: Runtime, reading: Reading,
                    advance: Any) -> tuple[dict[str, float], Tensor]:  # fmt: skip
        from cnnbench.tasks.classification import evaluation

        return evaluation.judge_views(views, model, spec, runtime, reading, advance)

    def write_answers(self, kept: Tensor, source: Source, labels: Sequence[str], path: Path) -> None:
        answers.write(path, kept, image_ids(source), labels)

    def check_measure(self, judged: list[Judged], cfg: EvaluateConfig) -> None:
        from cnnbench.tasks.classification import evaluation

        evaluation.check(judged, cfg)

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.classification import evaluation

        return evaluation.measure(judged, cfg, runtime)

    # To show: matplotlib and the predictor's threads are imported where they are needed

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.classification import plots

        plots.plot_train_batch(batch["image"].cpu(), batch["target"].cpu(), labels, path)

    def draw_validation(self, meter: Meter, batch: Batch, answers: Tensor, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.classification import plots

        assert isinstance(meter, ConfusionMeter)
        plots.plot_confusion_matrix(meter.confusion.cpu(), labels, folder / "confusion_matrix.png", title)
        probabilities = answers.float().softmax(dim=1).cpu()
        plots.plot_val_predictions(
            batch["image"], batch["target"], probabilities, labels, folder / "val_predictions.png"
        )

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> "Classifier":
        from cnnbench.tasks.classification.predictor import Classifier

        return Classifier(self, model, spec, source, runtime)


TASK = Classification
