"""Spec of a trained net, stored with its weights: one path is enough to load and use it."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from cnnbench.data.sources import Dataset

FITTED = ("temperature",)  # facts that are fitted to a finished net: they say nothing of how it was trained
MEASURED = ("threshold",)  # facts that each validation tells of its net


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Preprocessing of an image. mean and std are per channel, in 0..1."""

    image_size: int  # side of the net's input, pixels
    in_channels: int
    mean: list[float]
    std: list[float]
    crop_ratio: float = 1.0  # side of the centre crop over the shorter side of the resized image
    interpolation: str = "bilinear"  # of that resizing


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Task, net, labels and input of a trained net."""

    task: str = "classification"
    model: dict[str, Any]  # name and arguments
    labels: list[str]  # names of the classes; empty where the task has none
    input: InputSpec
    extra: dict[str, Any] = field(default_factory=dict)  # further facts for the task

    @property
    def outputs(self) -> int:
        """Output channels of the net: one for each label, unless the task says otherwise."""
        return int(self.extra.get("outputs", len(self.labels)))

    @property
    def embeds(self) -> bool:
        """Whether the net answers with an embedding of each image, and has its outputs in training alone."""
        return "embedding" in self.extra

    @property
    def answers(self) -> int:
        """Channels of what the net answers with when it is asked."""
        return int(self.extra["embedding"]) if self.embeds else self.outputs

    @property
    def as_trained(self) -> Self:
        """Spec without what was fitted to the net, or measured with it, afterwards."""
        return replace(self, extra={key: value for key, value in self.extra.items() if key not in (*FITTED, *MEASURED)})

    def as_dict(self) -> dict[str, Any]:
        """Spec as plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Spec from `as_dict()`. TypeError or KeyError for anything else."""
        return cls(**{**content, "input": InputSpec(**content["input"])})

    @property
    def side(self) -> int:
        """Side of the images that the net is given, pixels: less than image_size where `pair` makes them smaller."""
        return self.input.image_size // int(self.extra.get("scale", 1))

    @classmethod
    def of(cls, model: dict[str, Any], dataset: Dataset, image_size: int) -> Self:
        """Spec of a net, by name and arguments, that will be trained on this data set."""
        given = InputSpec(
            image_size=image_size,
            in_channels=dataset.in_channels,
            mean=list(dataset.mean),
            std=list(dataset.std),
            crop_ratio=dataset.crop_ratio,
            interpolation=dataset.interpolation,
        )
        return cls(task=dataset.task, model=model, labels=list(dataset.classes), input=given, extra=dataset.extra)
