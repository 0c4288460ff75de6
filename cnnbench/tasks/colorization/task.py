"""Colorization: lightness in, colours out, as classes of 313 bins of ab or as ab itself (Zhang et al., 2016)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.data import Batch, Dataset, Source
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.colorization import COLOURS
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Exported, Task
from cnnbench.tasks.colorization import METRICS
from cnnbench.tasks.colorization.bins import COUNT, RANGES, STEP, TEMPERATURE, centres, rarity, soft_encode
from cnnbench.tasks.colorization.colours import check_colours, checked_prior, prior, without_gray
from cnnbench.tasks.colorization.lab import rgb_to_lab
from cnnbench.tasks.colorization.metrics import SCALE, AucMeter, ColourMeter, ab_of, enlarged
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.tasks.colorization.predictor import Colorizer

DEFAULT_LOSS = "class_rebalanced"  # of nets that do not say which
MEAN, STD = (0.5,), (1.0,)  # of lightness in 0..1: the authors' net takes (L - 50) / 100


@dataclass(frozen=True)
class Colorization(Task):
    """Nets return logits (N, 313, h, w), or with loss=l2 ab over 110 (N, 2, h, w); targets are Lab (N, 3, H, W)."""

    prior: tuple[float, ...]
    loss_name: str = DEFAULT_LOSS
    name = "colorization"
    answers = COLOURS
    metrics = METRICS
    memorised = 75.0
    own_keys = ("judge", "temperature")

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        return cls((), getattr(model, "loss", DEFAULT_LOSS))

    def suited(self, dataset: Dataset, judged: Source, runtime: Runtime) -> Self:
        return self if self.prior else replace(self, prior=tuple(dataset.extra["prior"]))

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(checked_prior(spec.extra.get("prior"), spec.model["name"]), loss_of(spec.model))

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        """Any colour images: lightness is the input, Lab the target, whatever they were labelled with."""
        if dataset.in_channels != 3:
            raise UserError(f"task=colorization needs images in colour, but those of data={dataset.name} are gray")
        dataset = without_gray(dataset) if dataset.skips else dataset
        outputs = 2 if loss_of(model) == "l2" else COUNT
        extra = {"outputs": outputs, "prior": prior(dataset), "classes": dataset.classes}
        return replace(dataset, task=cls.name, classes=[], in_channels=1, mean=MEAN, std=STD, extra=extra,
                       pair=lightness_and_lab)  # fmt: skip

    @property
    def mean_ab(self) -> Tensor:
        """Mean colour ab (1, 2, 1, 1) of the training images."""
        return (torch.tensor(self.prior) @ centres()).view(1, 2, 1, 1)

    # To train

    def check(self, dataset: Dataset) -> None:
        check_colours(dataset)

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        answer = self.answer(outputs).float()
        ab = F.interpolate(targets[:, 1:], size=answer.shape[2:], mode="nearest-exact")
        if self.loss_name == "l2":
            return (answer - ab / SCALE).square().sum(1).mean()
        bins, shares = soft_encode(ab.permute(0, 2, 3, 1).reshape(-1, 2))
        logits = answer.permute(0, 2, 3, 1).reshape(-1, COUNT)
        losses = -(shares * logits.log_softmax(1).gather(1, bins)).sum(1)
        if self.loss_name == "class_rebalanced":
            losses = losses * weights_of_bins(self.prior, losses.device)[bins[:, 0]]
        return losses.mean()  # each image has as many pixels

    def guessing_loss(self, spec: ModelSpec) -> float:
        """Loss of gray for all pixels (l2), or of 313 equal shares."""
        if self.loss_name == "l2":
            squares = (centres() / SCALE).square().sum(1)
            return float((torch.tensor(self.prior) * squares).sum())
        return float(torch.tensor(COUNT).log())

    # To measure

    def meter(self, runtime: Runtime) -> AucMeter:
        return AucMeter(runtime)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> ColourMeter:
        return ColourMeter(runtime)

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.colorization import evaluation

        return evaluation.measure(self, judged[0], cfg, runtime)

    def exported(self, spec: ModelSpec) -> Exported:
        l2 = self.loss_name == "l2"
        ranges = ", ".join(f"{a}: {first}..{last}" for a, (first, last) in RANGES.items())
        said = f"{SCALE:g} times the answer is ab" if l2 else (
            f"the softmax of the logits over {TEMPERATURE} weighs {COUNT} colours, of which it gives the mean: by a, "
            f"the first and the last b in steps of {STEP} are {ranges}; so ab is found"
        )  # fmt: skip
        steps = [
            "lightness L of CIE Lab (D65), turned upright as EXIF says, with sides that are multiples of 8",
            "divide by 100, subtract 0.5",
            f"{said}, at a quarter of the size: enlarged to the image's and joined with its own L",
        ]
        return Exported("ab" if l2 else "logits", ["batch", spec.outputs, "height / 4", "width / 4"], steps)

    # To show

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.colorization import plots

        plots.plot_batch(batch["target"].cpu(), path)

    def draw_validation(self, meter: Any, batch: Batch, answers: Tensor, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.colorization import plots

        lab = batch["target"].cpu()
        ab = enlarged(ab_of(answers), *lab.shape[2:]).cpu()
        plots.plot_answers(lab, ab, folder / "val_predictions.png", title)
        plots.plot_errors(meter.errors, folder / "errors.png", title)
        plots.plot_colours(meter.errors.sum(1), meter.answered, folder / "colours.png", title)

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> "Colorizer":
        from cnnbench.tasks.colorization.predictor import Colorizer

        return Colorizer(self, model, spec, source, runtime)


def loss_of(model: Mapping[str, Any]) -> str:
    """The loss that a net's arguments name."""
    return str(model["loss"]) if model.get("loss") else DEFAULT_LOSS


def lightness_and_lab(images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
    """Input and target of a batch uint8 (N, 3, H, W): L float32 (N, 1, H, W) in 0..255, and Lab (N, 3, H, W)."""
    lab = rgb_to_lab(images)
    return lab[:, :1] * 2.55, lab


@cache
def weights_of_bins(prior: tuple[float, ...], device: torch.device) -> Tensor:
    return rarity(torch.tensor(prior, dtype=torch.float64)).float().to(device)


TASK = Colorization
