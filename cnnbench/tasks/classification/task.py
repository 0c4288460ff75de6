"""Image classification: one class for each image, cross-entropy, top-1 and top-5 error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.config.sections import ClassWeights, CropConfig, Sampler
from cnnbench.data import Batch, Dataset, Source, Views
from cnnbench.data.balance import class_counts, class_weights, unequal
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import image_ids
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.classification import BALANCED, METRICS, USUAL, answers
from cnnbench.tasks.classification.metrics import ClassificationMeter, ConfusionMeter
from cnnbench.tasks.measurement import Judged, Measurement, Reading
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.metric import Metric

if TYPE_CHECKING:
    from cnnbench.tasks.classification.predictor import Classifier


@dataclass(frozen=True, eq=False)
class Classification(Task):
    """Nets return logits (N, classes), or (logits, *auxiliary logits) when training.

    aux_weight is the weight of each auxiliary loss (Szegedy et al., 2014: 0.3).
    """

    label_smoothing: float = 0.0
    aux_weight: float = 0.3
    weigh: bool = False  # whether each image counts by the rarity of its class
    balance: bool = False  # whether the training is for the balanced error
    weights: Tensor | None = None  # of the classes (classes,), on the device
    metrics: tuple[Metric, ...] = METRICS
    name = "classification"
    weighs_classes = True
    mixes_classes = True
    linear_head = True
    memorised = 5.0  # percent of errors: one image of 32 may resist

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        weigh = cfg.loss.class_weights is ClassWeights.balanced
        balance = weigh or cfg.data.sampler is Sampler.balanced
        return cls(cfg.label_smoothing, getattr(model, "aux_weight", 0.0), weigh, balance)

    def suited(self, dataset: Dataset, judged: Source, runtime: Runtime) -> Self:
        classes = len(dataset.classes)
        weights = runtime.to_device(class_weights(dataset.train.targets, classes)) if self.weigh else None
        shown = METRICS if unequal(class_counts(judged, classes)) else USUAL
        return replace(self, weights=weights, metrics=shown)

    @property
    def aim(self) -> Metric:
        return BALANCED if self.balance else self.primary

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._smoothed(logits, targets)
        for aux in auxiliary:
            loss = loss + self.aux_weight * self._smoothed(aux, targets)
        return loss

    def _smoothed(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images of each one's smoothed cross-entropy times the weight of its own class. A mixed image
        has that of each of its classes, by their shares.

        torch divides by the sum of the weights of the batch instead: then a step would depend on how its images are
        shared among microbatches and processes.
        """
        if self.weights is None:
            return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        if targets.is_floating_point():
            weighted = targets * self.weights
            weights = weighted.sum(1)
            targets = weighted / weights[:, None]  # the loss is linear in them
        else:
            weights = self.weights[targets]
        each = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing, reduction="none")
        return (each * weights).mean()

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Plain cross-entropy: it compares across smoothing, class weights and auxiliary heads."""
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
