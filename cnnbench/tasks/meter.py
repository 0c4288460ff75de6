"""Meter: exact sums over a pass, kept on the device and divided once at the end."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnbench.runtime.device import Runtime


class Meter:
    """Sums over a pass: no batch is waited for, and any batch sizes give the same integers.

    A task's meter adds sums of its own: it overrides `own`, `update` and `metrics`. A meter knows nothing of
    processes: they add up `tensors()` and `n`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.loss = torch.zeros((), dtype=runtime.sum_dtype, device=runtime.device)
        self.left_out = torch.zeros(
            (), dtype=torch.int64, device=runtime.device
        )  # images that the mean loss is not over
        self.n = 0

    def restart(self) -> None:
        """Begin anew, over the same tensors."""
        for tensor in self.tensors():
            tensor.zero_()
        self.n = 0

    def own(self) -> dict[str, Tensor]:
        """The task's own sums by name, the very tensors that `update` adds to."""
        return {}

    def update(self, outputs: Tensor, targets: Any) -> None:
        """Add a batch to the task's own sums."""

    def learn_of(self, other: "Meter") -> None:
        """Take over what a meter of the same task knows of its images that is no sum."""

    def metrics(self) -> dict[str, float]:
        """The task's own metrics by name, of what was added so far."""
        return {}

    def answers(self) -> Tensor | None:
        """What is kept of each image's answer, a row for each image that was added; None where nothing is kept."""
        return None

    def gather(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Keep what all processes have of their images, where metrics need the images together and not only sums.

        gather: rows of this process's images -> those of all, in the images' order; all processes call it.
        """

    def add(self, mean_loss: Tensor, outputs: Tensor, targets: Any, *, finite_only: bool = False) -> None:
        """Add a batch: its mean loss, what the net answered, and the targets.

        finite_only: leave a loss that is not finite out of the mean. For training, where such a step is skipped; a
        measurement must show it.
        """
        loss, count = mean_loss.detach().to(self.loss.dtype), len(targets)
        if finite_only:
            counted = loss.nan_to_num(0.0, 0.0, 0.0)
            self.left_out.add_(loss != counted, alpha=count)
            loss = counted
        self.loss.add_(loss, alpha=count)
        self.update(outputs.detach(), targets)
        self.n += count

    def tensors(self) -> list[Tensor]:
        """All sums but `n`: several processes all-reduce them in place."""
        return [self.loss, self.left_out, *self.own().values()]

    def mean_loss(self) -> float:
        """Mean loss over the images, in training over those for which it was finite. Waits for the device."""
        counted = self.n - int(self.left_out)
        return self.loss.item() / counted if counted else math.nan if self.n else 0.0

    def compute(self) -> dict[str, float]:
        """Metrics by name, `loss` first. Waits for the device."""
        return {"loss": self.mean_loss(), **self.metrics()}

    def state_dict(self) -> dict[str, Any]:
        sums = {"loss": self.loss, "left_out": self.left_out, **self.own()}
        return {**{name: value.cpu() for name, value in sums.items()}, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in {"loss": self.loss, "left_out": self.left_out, **self.own()}.items():
            value.copy_(state[name])
        self.n = state["n"]


def occurrences(places: Tensor, count: int) -> Tensor:
    """Number of times that each of 0..count-1 occurs in places (N,): int64 (count,).

    `torch.bincount` would wait for a GPU.
    """
    found = torch.zeros(count, dtype=torch.int64, device=places.device)
    one = torch.ones((), dtype=torch.int64, device=places.device)
    return found.scatter_add_(0, places, one.expand(places.numel()))
