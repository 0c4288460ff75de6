"""Super-resolution: an image at a multiple of its size, judged beside bicubic interpolation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import models
from cnnbench.config.commands import EvaluateConfig, TrainConfig
from cnnbench.config.sections import AugmentConfig
from cnnbench.data import Arrays, Batch, Dataset, Files, Source, has_spatial_targets
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.photographs import Photographs, check_pair, in_channels, in_squares, is_paired, size_of
from cnnbench.data.sources import image_ids
from cnnbench.models.enlarging import LARGER, Enlarger, reduced, whole_blocks
from cnnbench.models.meta_kernels import Shapes
from cnnbench.output.tables import csv_text
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Exported, Task
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.psnr import PEAK
from cnnbench.tasks.super_resolution import METRICS, checks
from cnnbench.tasks.super_resolution.metrics import PsnrMeter, QualityMeter
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text

if TYPE_CHECKING:
    from cnnbench.tasks.super_resolution.predictor import Enlarging


@dataclass(frozen=True)
class SuperResolution(Task):
    """Nets map small images in 0..1 to large ones. Targets are the true ones, uint8 (N, C, H, W); of pairs of files the
    small ones lie behind them (see `pairing`)."""

    scale: int
    channels: int
    norm: int = 2
    side: int | None = None  # of a training image, where a training is configured
    augment: AugmentConfig | None = None
    name = "super_resolution"
    metrics = METRICS
    answers = LARGER
    memorised = 25.0  # dB

    def __post_init__(self) -> None:
        known = QualityMeter.names_for(self.channels)
        object.__setattr__(self, "metrics", tuple(metric for metric in METRICS if metric.name in known))

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        net = as_enlarger(model)
        side = cfg.data.image_size or net.image_size
        return cls(net.scale, net.in_channels, net.norm, side, cfg.augment)

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(int(spec.extra["scale"]), spec.input.in_channels)

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        if not model:
            return replace(dataset, task=cls.name)
        net = sketch(model)
        if has_spatial_targets(dataset.train):
            raise UserError(f"task={cls.name} does not go with data={dataset.name}, whose images have masks")
        channels, scale = net.in_channels, net.scale
        return replace(
            dataset,
            task=cls.name,
            classes=[],
            in_channels=channels,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            train=prepared(dataset.train, net, cut=True),
            val=prepared(dataset.val, net),
            test=None if dataset.test is None else prepared(dataset.test, net),
            pair=partial(pairing, channels=channels, scale=scale),
            whole=True,
            grid=scale if is_paired(dataset.train) else 1,
            extra={"outputs": channels, "scale": scale},
        )

    # To train

    def check(self, dataset: Dataset) -> None:
        checks.check(dataset, self.scale, self.side or 0, self.augment)

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        truth = targets[:, : self.channels].float() / PEAK
        return (F.l1_loss if self.norm == 1 else F.mse_loss)(outputs.float(), truth)

    # To measure

    def meter(self, runtime: Runtime) -> Meter:
        return PsnrMeter(runtime, self.scale)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> Meter:
        return QualityMeter(runtime, self.scale, self.channels)

    def write_answers(self, kept: Tensor, source: Source, labels: Sequence[str], path: Path) -> None:
        names = QualityMeter.names_for(self.channels)
        rows = [[file, *(f"{value:.6g}" for value in row)] for file, row in
                zip(image_ids(source), kept.tolist(), strict=True)]  # fmt: skip
        write_text(path, csv_text([["image", *names], *rows]) + "\n")

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.super_resolution import evaluation

        return evaluation.measure(self, judged[0], runtime)

    def exported(self, spec: ModelSpec) -> Exported:
        luma = self.channels == 1
        steps = [
            f"read as {'Y of BT.601, from 16 to 235' if luma else 'RGB'}, turned upright as EXIF says, at its own size",
            "divide by 255; channels first",
            f"255 times the answer, rounded, is the image at {self.scale} times its size"
            + (": its Y; Cb and Cr are enlarged by bicubic interpolation" if luma else ""),
        ]
        sides: list[str | int] = [f"{self.scale} * {side}" for side in ("height", "width")]
        return Exported("image", ["batch", self.channels, *sides], steps)

    # To show

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.super_resolution import plots

        plots.draw_pairs(batch["image"], batch["target"][:, : self.channels], path)

    def draw_validation(self, meter: Meter, batch: Batch, answers: Tensor, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.super_resolution import plots

        truth = batch["target"][:, : self.channels]
        plots.draw_comparison(batch["image"], answers, truth, self.scale, folder / "val_predictions.png", title)

    def predictor(self, model: nn.Module, spec: ModelSpec, source: str, runtime: Runtime) -> "Enlarging":
        from cnnbench.tasks.super_resolution.predictor import Enlarging

        return Enlarging(self, model, spec, source, runtime)


def sketch(model: Mapping[str, Any]) -> Enlarger:
    """The net without memory for its weights. UserError where it is none that enlarges."""
    models.check_answers(model, LARGER, SuperResolution.name)
    with torch.device("meta"), Shapes():
        return as_enlarger(models.build(**{key: value for key, value in model.items() if value is not None}))


def as_enlarger(model: nn.Module) -> Enlarger:
    assert isinstance(model, Enlarger)
    return model


def prepared(source: Source, net: Enlarger, cut: bool = False) -> Source:
    """Images in the net's channels. cut: into squares in memory, where the data say so; else files stay whole."""
    if isinstance(source, Arrays):
        return in_channels(source, net.in_channels)
    if not isinstance(source, Files):
        raise UserError("task=super_resolution reads no packed images: leave data.packed out")
    if not isinstance(source, Photographs):
        source = Photographs(source.paths, source.targets)
    source = replace(source, channels=net.in_channels, scale=net.scale)
    for index in range(len(source) if source.low else 0):
        photo = source.item(index)
        check_pair(photo, size_of(photo.path), size_of(photo.low or ""))
    if cut and source.stride:
        if source.low and source.stride % net.scale:
            raise UserError(f"data.stride={source.stride} is not a multiple of model.scale={net.scale}: of pairs, "
                            "squares begin where a pixel of the small image does")  # fmt: skip
        return in_squares(source, source.side or net.image_size, source.stride)
    return source


def pairing(images: Tensor, targets: Any, *, channels: int, scale: int) -> tuple[Tensor, Tensor]:
    """Small images, float32 in 0..255, and the true ones, uint8, of images (N, C, H, W); or of pairs (N, 2 C, H, W), of
    which the second half is the small images, each pixel a block: both halves are then the target."""
    images = whole_blocks(images, scale)
    if images.shape[1] > channels:
        return images[:, channels:, ::scale, ::scale].float(), images
    return reduced(images.float(), scale), images


TASK = SuperResolution
