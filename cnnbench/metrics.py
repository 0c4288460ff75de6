"""Exact metrics: integer counts and sums on the device, divided once at the end."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOP_K = 5


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
