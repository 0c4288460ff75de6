"""Verification: do two images show one person? Trained on other people, judged by pairs of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import models
from cnnbench.config.commands import EvaluateConfig, FinetuneConfig, TrainConfig
from cnnbench.config.sections import Head, HeadConfig, Loss, Strategy
from cnnbench.data import Batch, Dataset, Source
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pairs import Pairs, drawn
from cnnbench.data.sources import image_ids
from cnnbench.models.embedding import EMBEDDING, Embedder
from cnnbench.models.layers import CLASS, Net
from cnnbench.models.meta_kernels import Shapes
from cnnbench.output.tables import csv_text
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Exported, Task
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.metric import Metric
from cnnbench.tasks.verification import AUC, METRICS
from cnnbench.tasks.verification.losses import contrastive_loss, with_margin
from cnnbench.tasks.verification.metrics import PairMeter, distances, judged
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text

if TYPE_CHECKING:
    from cnnbench.tasks.verification.predictor import Verifier

THRESHOLD = "threshold"  # in the `extra` of a net's spec


@dataclass(frozen=True)
class Verification(Task):
    """Nets return scores of the people in training (N, people); where they have no head, and when they are asked,
    embeddings (N, D) of length 1. Targets are the numbers of people."""

    head: HeadConfig
    length: int  # of an embedding
    margin: float | None = None  # of the contrastive loss; None: people are told apart
    label_smoothing: float = 0.0
    pairs: Pairs | None = None  # of the images that are judged
    name = "verification"
    metrics = METRICS
    answers = EMBEDDING
    memorised = 90.0  # percent: of the pairs in its one batch

    @classmethod
    def net_for(cls, cfg: TrainConfig, model: Mapping[str, Any]) -> dict[str, Any]:
        alone = cfg.loss.name is Loss.contrastive
        if alone and cfg.head.name is not Head.softmax:
            raise UserError(
                f"loss=contrastive compares embeddings and has no head: leave head={cfg.head.name.value} out"
            )
        if alone and (cfg.accumulate > 1 or cfg.devices != 1):
            raise UserError("loss=contrastive compares the images of a batch with each other, so a batch stays whole: "
                            "leave accumulate and devices out")  # fmt: skip
        if cfg.freeze == "backbone" or (isinstance(cfg, FinetuneConfig) and cfg.transfer.name is Strategy.head):
            raise UserError("embeddings are what the head is given: a training of the head alone would not change "
                            "them, so use transfer=full or partial, and freeze fewer stages")  # fmt: skip
        return {**model, "embed": "none" if alone else cfg.head.name.value}

    @classmethod
    def create(cls, cfg: TrainConfig, model: nn.Module) -> Self:
        assert isinstance(model, Embedder)
        margin = cfg.loss.margin if cfg.loss.name is Loss.contrastive else None
        return cls(cfg.head, model.length, margin, cfg.label_smoothing)

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(HeadConfig(), int(spec.extra["embedding"]))

    @classmethod
    def adopt(cls, dataset: Dataset, model: Mapping[str, Any]) -> Dataset:
        if dataset.task != cls.name:
            raise UserError(f"task={cls.name} needs people to train on and others: data=people data.root=DIR reads "
                            f"them from folders, but data={dataset.name} is for {dataset.task}")  # fmt: skip
        if "embed" not in model:  # a net that is timed or looked at as a classifier of the people
            return dataset
        return replace(dataset, extra={**dataset.extra, "embedding": sketch(model).length})

    def suited(self, dataset: Dataset, judged: Source, runtime: Runtime) -> Self:
        return replace(self, pairs=pairs_of(judged, dataset.folds))

    @property
    def aim(self) -> Metric:
        return AUC

    # To train

    @classmethod
    def some(cls, source: Source, count: int) -> Tensor:
        """Neighbours, which are mostly images of one person, from all over the source."""
        pairs = min(count, len(source)) // 2
        starts = torch.linspace(0, len(source) - 2, max(1, pairs)).long()
        return torch.stack([starts, starts + 1], dim=1).flatten().unique()

    def check(self, dataset: Dataset) -> None:
        train, val = (set(source.targets.tolist()) for source in (dataset.train, dataset.val))
        if train & val and dataset.split != "memorised":
            raise UserError(f"{len(train & val):,} people are both trained on and judged ({dataset.split} images): "
                            "task=verification is about people whom a net has not seen")  # fmt: skip

    def training_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        scores = outputs.float()
        if self.margin is not None:
            return contrastive_loss(scores, targets, self.margin)
        logits = with_margin(scores, targets, self.head)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Nothing of a batch: the meter has the loss of the pairs. Not a number where the embeddings are none."""
        return 0 * outputs.float().sum()

    def fitted(self, meter: Meter) -> dict[str, Any]:
        """The threshold that suits the pairs of a validation."""
        assert isinstance(meter, PairMeter)
        return {THRESHOLD: {"distance": meter.threshold(), "origin": meter.pairs.origin}}

    # To measure

    def meter(self, runtime: Runtime) -> Meter:
        return Meter(runtime)

    def evaluation(self, runtime: Runtime, spec: ModelSpec) -> PairMeter:
        assert self.pairs is not None
        return PairMeter(runtime, self.pairs, self.length)

    def write_answers(self, kept: Tensor, source: Source, labels: Sequence[str], path: Path) -> None:
        assert self.pairs is not None
        far = distances(kept, self.pairs)
        write_text(path, csv_text([COLUMNS, *answers(far, self.pairs, image_ids(source))]) + "\n")

    @classmethod
    def judging(cls, model: Net, spec: ModelSpec, source: str) -> tuple[Net, ModelSpec, list[str]]:
        """A classifier is judged by the features that its last layer sees."""
        if model.answers != CLASS:
            return super().judging(model, spec, source)
        net = Embedder(model, "none", None)
        extra = {"outputs": net.length, "embedding": net.length}
        arguments = {**spec.model, "embed": "none"}
        note = f"{source} was trained to classify: judged by the {net.length:,} features that its last layer sees"
        return net, replace(spec, task=cls.name, labels=[], model=arguments, extra=extra), [note]

    def measure(self, judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
        from cnnbench.tasks.verification import evaluation

        return evaluation.measure(self, judged[0], runtime)

    def exported(self, spec: ModelSpec) -> Exported:
        steps = ["1 - the dot product of two embeddings is their distance"]
        if known := spec.extra.get(THRESHOLD):
            steps.append(f"up to {known['distance']:.4f} two images show one person ({known['origin']})")
        return Exported("embedding", ["batch", self.length], steps)

    # To show: matplotlib is imported where it is needed

    def draw_batch(self, batch: Batch, labels: Sequence[str], path: Path) -> None:
        from cnnbench.tasks.verification import plots

        plots.draw_batch(batch["image"].cpu(), batch["target"].cpu(), path)

    def draw_validation(self, meter: Any, batch: Batch, answers: Tensor, labels: Sequence[str], folder: Path,
                        title: str) -> None:  # fmt: skip
        from cnnbench.tasks.verification import plots

        plots.draw_distances({"": meter.distances}, meter.pairs, folder / "roc.png", title)

    def predictor(self, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> "Verifier":
        from cnnbench.tasks.verification.predictor import Verifier

        return Verifier(self, model, spec, source, runtime)


COLUMNS = ("first", "second", "same", "distance", "fold", "threshold", "right")


def answers(far: np.ndarray, pairs: Pairs, names: Sequence[str]) -> list[list[Any]]:
    """A row for each pair: COLUMNS."""
    found = judged(far, pairs)
    numbers = np.unique(found.fold)
    ends = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True)
    return [
        [names[first], names[second], int(same), f"{far[place]:.6g}", int(found.fold[place]) + 1,
         f"{found.thresholds[np.searchsorted(numbers, found.fold[place])]:.6g}", int(found.right[place])]
        for place, (first, second, same) in enumerate(ends)
    ]  # fmt: skip


def pairs_of(source: Source, folds: int) -> Pairs:
    """The pairs that a set names for these images; else some that are drawn, always the same, in so many folds."""
    named: Pairs | None = getattr(source, "pairs", None)
    if named is None:
        return drawn(source.targets, folds)
    if not named.same.any() or named.same.all():
        raise UserError(f"{named.origin}: among {len(source):,} of its images both kinds of pairs are needed")
    return named


def sketch(model: Mapping[str, Any]) -> Embedder:
    """The net without memory for its weights."""
    with torch.device("meta"), Shapes():
        net = models.build(**{key: value for key, value in model.items() if value is not None})
    assert isinstance(net, Embedder)
    return net


TASK = Verification
