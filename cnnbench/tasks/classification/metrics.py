"""Metrics of a classifier: exact counts, kept on the device and divided once at the end."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.runtime.device import Runtime
from cnnbench.tasks.classification import BALANCED, MACRO_F1, TOP1, TOP5
from cnnbench.tasks.classification.coverage import Coverage, coverage
from cnnbench.tasks.meter import Meter

TOP_K = 5
BINS = 15  # of the calibration error (Guo et al., 2017)


class ClassificationMeter(Meter):
    """Top-1 and top-5 error in percent of the images. outputs: logits (N, classes); targets: int64 (N,), or soft
    targets float32 (N, classes): the class of a mixed image is that with the largest share."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.correct = torch.zeros(2, dtype=torch.int64, device=runtime.device)
        self.classes: int | None = None  # None: no batch was seen yet

    def own(self) -> dict[str, Tensor]:
        return {"correct": self.correct}

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.correct += correct_counts(outputs, targets.argmax(1) if targets.is_floating_point() else targets)
        self.classes = outputs.shape[1]

    def learn_of(self, other: Meter) -> None:
        assert isinstance(other, ClassificationMeter)
        self.classes = other.classes

    def metrics(self) -> dict[str, float]:
        top1, top5 = (100 * (self.n - correct) / max(self.n, 1) for correct in self.correct.tolist())
        return errors(top1, top5, self.classes)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "classes": self.classes or 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.classes = state.get("classes") or None  # early versions did not keep it


class ConfusionMeter(ClassificationMeter):
    """The errors, and how often each class was taken for each other one."""

    def __init__(self, runtime: Runtime, classes: int) -> None:
        super().__init__(runtime)
        self.classes = classes
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=runtime.device)
        self.kept = [torch.zeros(0, kept_numbers(classes), device=runtime.device)]

    def own(self) -> dict[str, Tensor]:
        return {**super().own(), "confusion": self.confusion}

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs, targets)
        self.confusion += confusion_counts(outputs, targets)
        self.kept.append(kept_answers(outputs, targets))

    def metrics(self) -> dict[str, float]:
        return super().metrics() | balanced(self.confusion)

    def answers(self) -> Tensor:
        return torch.cat(self.kept)


def answers(logits: Tensor) -> Tensor:
    """Classes of the five largest logits, best first: int64 (N, 5), or (N, classes) where there are fewer.

    The one place that decides between equal logits, so that every count made of the answers agrees with the others.
    """
    return logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices


def surest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest class of each image, int64 (N,), and its probability, float64 (N,)."""
    best = answers(logits)[:, 0]
    return best, logits.double().softmax(dim=1).gather(1, best[:, None])[:, 0]


def errors(top1: float, top5: float, classes: int | None) -> dict[str, float]:
    """Metrics by name. Of at most five classes, the truth is always among the five best: that is no measurement."""
    return {TOP1.name: top1, **({TOP5.name: top5} if classes is None or classes > TOP_K else {})}


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """Figures of each class (classes,), in percent; not a number where there is nothing to divide by."""

    n: np.ndarray  # images
    precision: np.ndarray  # of the answers with this class, how many are right
    recall: np.ndarray  # of the images of this class, how many are answered right
    f1: np.ndarray  # harmonic mean of the two

    def macro(self, of: np.ndarray) -> float:
        """Mean over the classes that have images, each counted once; a class that is never answered counts as 0."""
        return float(np.nan_to_num(of[self.n > 0]).mean()) if self.n.any() else 0.0


def class_figures(confusion: Tensor) -> ClassFigures:
    """Figures of the classes from the counts, the true classes in rows."""
    counts = confusion.cpu().numpy()
    n, answered, right = counts.sum(1), counts.sum(0), counts.diagonal()
    with np.errstate(invalid="ignore"):
        return ClassFigures(n, 100 * right / answered, 100 * right / n, 200 * right / (n + answered))


def balanced(confusion: Tensor) -> dict[str, float]:
    """Metrics by name in which each class that has images counts once, however many it has."""
    of = class_figures(confusion)
    return {
        BALANCED.name: 100 - of.macro(of.recall),
        MACRO_F1.name: of.macro(of.f1),
        "macro_precision": of.macro(of.precision),
    }


def kept_numbers(classes: int) -> int:
    """Numbers that `kept_answers` keeps of each image."""
    return 3 + 2 * min(TOP_K, classes)


def kept_answers(logits: Tensor, targets: Tensor) -> Tensor:
    """What answers.csv says of each image, float32 (N, 3 + 2k), on the logits' device: the truth, its rank from 1 on
    and its log-probability; the k best classes, five or all; their log-probabilities."""
    best, truth, logs = answers(logits), targets[:, None], logits.float().log_softmax(dim=1)
    hits, above = best == truth, (logits > logits.gather(1, truth)).sum(dim=1)
    rank = 1 + torch.where(hits.any(dim=1), hits.int().argmax(dim=1), above.clamp(min=best.shape[1]))
    return torch.cat([truth, rank[:, None], logs.gather(1, truth), best, logs.gather(1, best)], dim=1)


def correct_counts(logits: Tensor, targets: Tensor) -> Tensor:
    """Counts int64 (2,) of targets that are the largest logit, and that are among the five largest.

    With fewer than five classes every answer is among the first five.
    """
    hits = answers(logits) == targets[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])


def confusion_counts(logits: Tensor, targets: Tensor) -> Tensor:
    """int64 (classes, classes): how often class i (row) was taken for class j (column)."""
    classes = logits.shape[1]
    return torch.bincount(targets * classes + answers(logits)[:, 0], minlength=classes**2).view(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """Calibration: confidence of the net against how often it is right, in bins of equal width over 0..1.

    counts, confidence and accuracy (each in 0..1) by bin; error is their mean difference weighted by the counts, in
    percent: the expected calibration error.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    error: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of the answers to n images. Errors are in percent."""

    n: int
    top1_wrong: int
    top5_wrong: int
    loss: float
    calibration: Calibration
    confusion: Tensor  # int64 (classes, classes), the true classes in rows
    coverage: Coverage

    @property
    def top1_error(self) -> float:
        return 100 * self.top1_wrong / self.n

    @property
    def top5_error(self) -> float:
        return 100 * self.top5_wrong / self.n

    @property
    def errors(self) -> dict[str, float]:
        """Metrics by name."""
        return errors(self.top1_error, self.top5_error, len(self.confusion)) | balanced(self.confusion)


def evaluate_scores(logits: Tensor, targets: Tensor) -> Evaluation:
    """Evaluation of logits, or log-probabilities, (N, classes) float32 for targets int64 (N,)."""
    top1, top5 = correct_counts(logits, targets).tolist()
    best, confidence = surest(logits)
    right = best == targets
    return Evaluation(
        n=len(targets),
        top1_wrong=len(targets) - top1,
        top5_wrong=len(targets) - top5,
        loss=F.cross_entropy(logits.double(), targets).item(),
        calibration=calibration(confidence, right),
        confusion=confusion_counts(logits, targets),
        coverage=coverage(confidence, ~right),
    )


def calibration(confidence: Tensor, is_right: Tensor, bins: int = BINS) -> Calibration:
    """Calibration of answers by their confidence float64 (N,), and whether they are right, bool (N,)."""
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are (a, b], as in the paper
    counts = torch.bincount(index, minlength=bins)
    sums = torch.bincount(index, weights=confidence, minlength=bins)
    right = torch.bincount(index, weights=is_right.double(), minlength=bins)
    n = counts.clamp(min=1)
    error = 100 * (sums - right).abs().sum().item() / max(len(confidence), 1)
    return Calibration(counts, sums / n, right / n, error)


def worst_mistakes(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """Indices of the k wrong answers of the highest confidence, the most confident first; fewer where fewer are wrong.

    The one ranking of mistakes: by the probability of the class that the net took the image for.
    """
    best, confidence = surest(logits)
    wrong = (best != targets).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:k]]
