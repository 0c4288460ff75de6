"""Task: what a net is trained for. Loops, runs and commands ask it for losses, metrics, pictures and answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.config.sections import CropConfig, Head, Loss
from cnnbench.data import Batch, Dataset, Source, Views, evenly_spaced
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import CLASS, Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.measurement import Judged, Measurement, Reading
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.metric import Metric
from cnnbench.utils.errors import UserError


@dataclass(frozen=True)
class Exported:
    """Exported net of a task whose nets answer with a picture, in words for programs without cnnbench."""

    output: str  # name of what it answers with
    shape: list[str | int]  # of that, for images ["batch", channels, "height", "width"]
    steps: list[str]  # from an image file to the net's input, and from its output to the answer
    input: list[str | int] | None = None  # shape of the input, where it is not for images of any size


class Deployed(NamedTuple):
    """A net with what makes an answer of its output, for one image (1, C, S, S), words for it, and how two answers
    differ."""

    net: nn.Module
    words: Exported
    difference: Callable[[Tensor, Tensor], float]


class Task(ABC):
    """A kind of problem. A new one states its name, metrics, loss and meter; the rest has a default.

    Outputs of a net are a tensor, or in training a tuple of it and auxiliary outputs. `targets` is whatever the data
    set pairs with its images: class numbers (N,), masks (N, H, W).
    """

    name: ClassVar[str]  # stored with the weights, which find their task by it
    metrics: tuple[Metric, ...]  # the first is the primary one: searches, reports. Of a `suited` one, those to be shown
    answers: ClassVar[str] = CLASS  # of its nets: `Net.answers`
    weighs_classes: ClassVar[bool] = False  # whether loss.class_weights has a meaning
    mixes_classes: ClassVar[bool] = False  # whether its loss takes soft targets, as of mixed images
    own_keys: ClassVar[tuple[str, ...]] = ()  # of `evaluate` and `predict`, that it alone takes
    linear_head: ClassVar[bool] = False  # whether an SVM on pooled features is an answer, as some strategies need
    memorised: ClassVar[float]  # primary metric of a net that has memorised its one batch (debug=overfit)

    @classmethod
    def net_for(cls, cfg: TrainConfig, model: Mapping[str, Any]) -> dict[str, Any]:
        """Name and arguments of the net that a training builds: those of `model`, and what the task adds to them.
        UserError for settings of other tasks."""
        if cfg.head.name is not Head.softmax:
            raise UserError(f"head={cfg.head.name.value} is for task=verification, not for {cls.name}: leave it out")
        if cfg.loss.name is not Loss.usual:
            raise UserError(f"loss={cfg.loss.name.value} is for task=verification, not for {cls.name}: leave it out")
        return dict(model)

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        """Task as a training is configured."""
        return cls()

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """Task of a trained net."""
        return cls()

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        """Data set as this task takes it for a net: with its `pair`, `whole`, channels and `extra`. UserError where the
        task and the data do not go together.

        model: name and arguments of the net, `in_channels` among them where they are known.
        """
        if dataset.task == cls.name:
            return dataset
        raise UserError(f"task={cls.name} does not go with data={dataset.name}, which is for {dataset.task}")

    def suited(self, dataset: Dataset, judged: Source, runtime: Runtime) -> Self:
        """The task for these images. It may leave out metrics that say nothing about those that are judged."""
        return self

    @property
    def primary(self) -> Metric:
        return self.metrics[0]

    @property
    def aim(self) -> Metric:
        """Metric by which a training is judged while it lasts: best.pt, early stopping, the better of two nets."""
        return self.primary

    # To train

    @property
    def unrecordable(self) -> str:
        """Why a CUDA graph cannot hold its steps, in words; empty where it can."""
        return ""

    def inputs(self, images: Tensor, targets: Any) -> tuple[Any, ...]:
        """What a net is given of a batch, where there are targets: the images, unless it computes its loss itself."""
        return (images,)

    @classmethod
    def some(cls, source: Source, count: int) -> Tensor:
        """Indices int64 of about so many images from all over a source, for debug=: what a training needs is there."""
        return evenly_spaced(source, count)

    def check(self, dataset: Dataset) -> None:
        """Raise UserError where the data set's targets are not what this task needs."""
        return

    @abstractmethod
    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Loss to minimise: the mean over the images of each image's own loss, float32 whatever the net computed in.

        As a mean of each image's own, it adds up over microbatches and processes of any size.
        """

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Loss to report in validation."""
        return self.training_loss(outputs, targets)

    def answer(self, outputs: Any) -> Tensor:
        """Main output, without the auxiliary ones."""
        answer: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return answer

    def guessing_loss(self, spec: ModelSpec) -> float | None:
        """Loss of a net that guesses; None where that cannot be said."""
        return None

    def fitted(self, meter: Meter) -> dict[str, Any]:
        """Facts that a validation's images tell of a net, for the `extra` of its spec, by the names in `MEASURED`."""
        return {}

    # To measure

    @abstractmethod
    def meter(self, runtime: Runtime) -> Meter:
        """Meter of a training epoch."""

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> Meter:
        """Meter of a validation: it may count more than that of a training epoch, such as a confusion matrix."""
        return self.meter(runtime)

    def views(self, crop: CropConfig, model: Net, spec: ModelSpec) -> Views | None:
        """Views by which a training's last validation is judged; None for the image as every epoch sees it."""
        if crop == CropConfig():
            return None
        raise UserError(f"crop={crop.name}: {self.name} has one way to look at an image, so leave crop out")

    def judge_views(self, views: Views, model: Net, spec: ModelSpec, runtime: Runtime, reading: Reading,
                    advance: Any) -> tuple[dict[str, float], Tensor | None]:  # fmt: skip
        """Metrics by name, `loss` among them, of all images by these views, and what is kept of each answer. All
        processes take part."""
        raise NotImplementedError

    def write_answers(self, kept: Tensor, source: Source, labels: Sequence[str], path: Path) -> None:
        """Write into the file `path` what the net answered to each image. kept: rows of `Meter.answers`, on the CPU."""
        raise NotImplementedError

    def check_measure(self, judged: list[Judged], cfg: EvaluateConfig) -> None:
        """Raise UserError, before any work, where `cnnbench evaluate` is asked for what the task cannot do."""
        if len(judged) > 1 or cfg.shift or cfg.calibrate or cfg.crop != CropConfig():
            raise UserError(
                f"several weights, crop, shift and calibrate are for classification: {self.name} takes none of them"
            )

    @classmethod
    def judging(cls, model: Net, spec: ModelSpec, source: str) -> tuple[Net, ModelSpec, list[str]]:
        """A net, perhaps of another task, as it is judged by data for this one, and what the user should be told.
        source: what to call it."""
        return model, spec, []

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement | None:
        """Measurement for `cnnbench evaluate`. None: the first net's evaluation over every image is all there is."""
        return None

    # To show

    def exported(self, spec: ModelSpec) -> Exported:
        """Words for an exported net whose answer is a picture, for images of any size."""
        raise NotImplementedError

    def deployed(self, model: Net, spec: ModelSpec) -> Deployed | None:
        """The net as programs without cnnbench use it best, in formats that can hold that. None: as it is."""
        return None

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        """Draw the first images of a training batch with their targets into the file `path`."""
        return

    def draw_validation(self, meter: Meter, batch: Batch, answers: Tensor, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        """Draw what a validation found, and some images (N, …) with the net's answers, into files in `folder`."""
        return

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> Any:
        """Predictor of the task's own kind. None: a plain one, which says what `describe` does."""
        return None

    def describe(self, answer: Tensor, spec: ModelSpec) -> dict[str, Any]:
        """Answer to one image, without its batch dimension, as plain values for a table or JSON."""
        raise UserError(f"predict does not know how to say what a {self.name} net answers")
