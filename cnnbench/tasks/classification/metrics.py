"""Exact metrics: integer counts and sums on the device, divided once at the end."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from cnnbench.runtime.distributed import ProcessGroup

TOP_K = 5
BINS = 15  # of the calibration error (Guo et al., 2017)


@dataclass(frozen=True)
class Metrics:
    """loss: mean over the images; top1_error and top5_error: percent of the n images."""

    loss: float
    top1_error: float
    top5_error: float
    n: int


class Sums:
    """Sums over a pass, kept on the device: no batch is waited for, and any batch sizes give the same integers."""

    def __init__(self, device: torch.device, sum_dtype: torch.dtype = torch.float64) -> None:
        self.loss = torch.zeros((), dtype=sum_dtype, device=device)
        self.correct = torch.zeros(2, dtype=torch.int64, device=device)
        self.left_out = torch.zeros((), dtype=torch.int64, device=device)  # images that the mean loss is not over
        self.n = 0

    def add(self, mean_loss: Tensor, logits: Tensor, targets: Tensor, *, finite_only: bool = False) -> None:
        """mean_loss of the batch, logits (N, classes), targets (N,).

        finite_only: leave a loss that is not finite out of the mean. For training, where such a step is skipped; a
        measurement must show it.
        """
        loss = mean_loss.detach().to(self.loss.dtype) * len(targets)
        if finite_only:
            finite = loss.isfinite()
            self.left_out += ~finite * len(targets)
            loss = torch.where(finite, loss, 0.0)
        self.loss += loss
        self.correct += correct_counts(logits.detach(), targets)
        self.n += len(targets)

    def over(self, group: "ProcessGroup") -> None:
        """Add up over all processes; each then has the sums of all."""
        if not group.alone:
            group.all_reduce_sum(self.loss, self.correct, self.left_out)
            self.n = int(group.all_reduce_numbers(self.n)[0])

    def compute(self) -> Metrics:
        """The metrics so far. Waits for the device."""
        top1, top5 = self.correct.tolist()
        n = max(self.n, 1)
        counted = self.n - int(self.left_out)
        loss = self.loss.item() / counted if counted else math.nan if self.n else 0.0
        return Metrics(loss, 100 * (self.n - top1) / n, 100 * (self.n - top5) / n, self.n)

    def state_dict(self) -> dict[str, object]:
        return {"loss": self.loss.cpu(), "correct": self.correct.cpu(), "left_out": self.left_out.cpu(), "n": self.n}

    def load_state_dict(self, state: dict) -> None:
        self.loss.copy_(state["loss"])
        self.correct.copy_(state["correct"])
        self.left_out.copy_(state.get("left_out", torch.zeros(())))
        self.n = state["n"]


def answers(logits: Tensor) -> Tensor:
    """The classes of the five largest logits, best first: int64 (N, 5), or (N, classes) where there are fewer.

    The one place that decides between equal logits, so that every count made of the answers agrees with the others.
    """
    return logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices


def correct_counts(logits: Tensor, targets: Tensor) -> Tensor:
    """How many targets are the largest logit, and how many among the five largest: int64 (2,).

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
    """How far the net's confidence is from how often it is right, in bins of equal width over 0..1.

    counts, confidence and accuracy (each in 0..1) by bin; error is their mean difference weighted by the counts, in
    percent: the expected calibration error.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    error: float


@dataclass(frozen=True)
class Verdict:
    """What a net's answers to n images are worth. Errors are in percent, their intervals those of `wilson`."""

    n: int
    top1_wrong: int
    top5_wrong: int
    loss: float
    calibration: Calibration
    confusion: Tensor  # int64 (classes, classes), the true classes in rows

    @property
    def top1_error(self) -> float:
        return 100 * self.top1_wrong / self.n

    @property
    def top5_error(self) -> float:
        return 100 * self.top5_wrong / self.n


def judge(logits: Tensor, targets: Tensor) -> Verdict:
    """The verdict on logits, or log-probabilities, (N, classes) float32 for targets int64 (N,)."""
    top1, top5 = correct_counts(logits, targets).tolist()
    return Verdict(
        n=len(targets),
        top1_wrong=len(targets) - top1,
        top5_wrong=len(targets) - top5,
        loss=F.cross_entropy(logits.double(), targets).item(),
        calibration=calibration(logits, targets),
        confusion=confusion_counts(logits, targets),
    )


def calibration(logits: Tensor, targets: Tensor, bins: int = BINS) -> Calibration:
    best = answers(logits)[:, 0]
    confidence = logits.double().softmax(dim=1).gather(1, best[:, None])[:, 0]
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are (a, b], as in the paper
    counts = torch.bincount(index, minlength=bins)
    sums = torch.bincount(index, weights=confidence, minlength=bins)
    right = torch.bincount(index, weights=(best == targets).double(), minlength=bins)
    n = counts.clamp(min=1)
    error = 100 * (sums - right).abs().sum().item() / max(len(targets), 1)
    return Calibration(counts, sums / n, right / n, error)


def wilson(wrong: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % confidence interval of an error, in percent, when `wrong` of n are (Wilson, 1927).

    It holds near 0 and 100 percent too, where that of the normal approximation leaves the range.
    """
    share = wrong / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)


def worst(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """Indices of the k wrong answers of the largest loss, the worst first; fewer where fewer are wrong."""
    losses = F.cross_entropy(logits.double(), targets, reduction="none")
    wrong = (answers(logits)[:, 0] != targets).nonzero().flatten()
    return wrong[losses[wrong].argsort(descending=True, stable=True)[:k]]
