"""Semantic segmentation: a class for each pixel, cross-entropy, mean IoU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import models
from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.config.sections import ClassWeights
from cnnbench.data import Batch, Dataset, Source
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import IGNORE, image_ids
from cnnbench.models.layers import MASK, Net, output_layer
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Exported, Task
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.segmentation import METRICS, report
from cnnbench.tasks.segmentation.balance import class_pixels, class_weights
from cnnbench.tasks.segmentation.metrics import ImagesMeter, MaskMeter, best, pixels_counted
from cnnbench.tasks.segmentation.palette import Colors, colors_of

if TYPE_CHECKING:
    from cnnbench.tasks.segmentation.predictor import Segmenter


@dataclass(frozen=True)
class Segmentation(Task):
    """Nets return scores (N, classes, H, W), or (scores, *auxiliary scores) when training; targets are masks uint8
    (N, H, W), of which pixels of the value IGNORE count nowhere."""

    classes: int
    colors: Colors = field(default_factory=lambda: colors_of({}))
    label_smoothing: float = 0.0
    net: Net | None = None  # in training, with the weight of its auxiliary losses
    weigh: bool = False  # whether pixels count by the rarity of their class
    weights: Tensor | None = None  # of the classes (classes,), on the device
    name = "segmentation"
    metrics = METRICS
    answers = MASK
    weighs_classes = True
    memorised = 70.0  # percent: the borders of objects resist

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        assert isinstance(model, Net)
        return cls(
            output_layer(model).weight.shape[0],
            label_smoothing=cfg.label_smoothing,
            net=model,
            weigh=cfg.loss.class_weights is ClassWeights.balanced,
        )

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(len(spec.labels), colors_of(spec.extra))

    def suited(self, dataset: Dataset, judged: Source, runtime: Runtime) -> Self:
        """With the data set's colours, for the pictures of a training, and the weights of its classes."""
        weights = runtime.to_device(class_weights(class_pixels(dataset, self.classes))) if self.weigh else None
        return replace(self, colors=colors_of(dataset.extra), weights=weights)

    def check(self, dataset: Dataset) -> None:
        """UserError where the net cannot take the smallest image; the masks were checked as they were read."""
        if self.net and dataset.whole:
            models.check_image_size(self.net, dataset.image_size)

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        scores, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(scores, targets, self.label_smoothing, self.weights)
        for other in auxiliary:
            assert self.net is not None
            loss = loss + self.net.aux_weight * self._cross_entropy(other, targets, self.label_smoothing, self.weights)
        return loss

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Plain cross-entropy: it compares across smoothing and auxiliary heads."""
        return self._cross_entropy(self.answer(outputs), targets)

    def _cross_entropy(self, scores: Tensor, masks: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
                       ) -> Tensor:  # fmt: skip
        """Mean over the images of the mean over the pixels of each that count, 0 where none does.

        Image by image: a sum takes half the time of `reduction="none"`, which keeps each pixel's loss.
        """
        sums = [
            F.cross_entropy(one[None].float(), mask[None].long(), weights, ignore_index=IGNORE,
                            label_smoothing=smoothing, reduction="sum")
            for one, mask in zip(scores, masks, strict=True)
        ]  # fmt: skip
        return (torch.stack(sums) / pixels_counted(masks).clamp(min=1)).mean()

    def guessing_loss(self, spec: ModelSpec) -> float:
        return math.log(len(spec.labels))

    # To measure

    def meter(self, runtime: Runtime) -> Meter:
        return MaskMeter(runtime, self.classes)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> ImagesMeter:
        return ImagesMeter(runtime, self.classes)

    def write_answers(self, kept: Tensor, source: Source, labels: Sequence[str], path: Path) -> None:
        report.write_answers(kept, image_ids(source), path)

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.segmentation import evaluation

        return evaluation.measure(self, judged[0], runtime)

    def exported(self, spec: ModelSpec) -> Exported:
        read = "RGB" if spec.input.in_channels == 3 else "gray"
        steps = [
            f"read as {read}, turned upright as EXIF says, at its own size",
            "divide by 255, subtract mean, divide by std, channel by channel; channels first",
            "the class of a pixel is that of its largest score",
        ]
        return Exported("scores", ["batch", len(spec.labels), "height", "width"], steps)

    # To show: matplotlib is imported where it is needed

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.segmentation import plots

        plots.plot_train_batch(batch["image"].cpu(), batch["target"].cpu(), labels, self.colors, path)

    def draw_validation(self, meter: Meter, batch: Batch, answers: Any, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.segmentation import plots

        assert isinstance(meter, ImagesMeter)
        plots.plot_classes(meter.confusion, labels, self.colors, folder / "classes.png", title)
        plots.plot_confusion(meter.confusion, labels, folder / "confusion_matrix.png", title)
        shown = [plots.Shown(image, mask, best(one[None])[0].cpu())
                 for image, mask, one in zip(batch["image"], batch["target"], answers, strict=True)]  # fmt: skip
        plots.plot_answers(shown[: plots.ROWS], labels, self.colors, folder / "val_predictions.png", title)

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> "Segmenter":
        from cnnbench.tasks.segmentation.predictor import Segmenter

        return Segmenter(self, model, spec, source, runtime)


TASK = Segmentation
