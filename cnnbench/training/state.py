"""State of a training: a checkpoint holds it, and a resumed run goes on from it bit for bit."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnbench.models.layers import Net
from cnnbench.runtime.compiled import Compiled
from cnnbench.runtime.device import Runtime
from cnnbench.runtime.graphs import Recorded
from cnnbench.tasks.base import Task
from cnnbench.tasks.meter import Meter
from cnnbench.training.ema import MovingAverage
from cnnbench.training.exchange import Exchange
from cnnbench.training.health import Guard
from cnnbench.training.optim import plain_state, prepare, set_lr
from cnnbench.training.schedules import Plateau
from cnnbench.training.swa import EpochAverage
from cnnbench.utils import console


@dataclass
class Progress:
    """Progress of a training. Shuffle, augmentation and dropout follow from the seed, the epoch and the step."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the epoch under way
    seconds: float = 0.0  # of training, validation included, over all starts
    best: float = math.inf  # primary metric of the best epoch
    best_epoch: int = 0
    pruned: str = ""  # why a search has ended this training


@dataclass
class TrainState:
    """State of a training: what a step needs and changes, and what is remembered between steps."""

    model: Net
    net: Callable[[Tensor], Any]  # the model as it is called: compiled, wrapped for several processes, or itself
    task: Task
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  # step -> factor on the learning rate, before `plateau`
    runtime: Runtime
    normalize: Callable[[Tensor], Tensor]
    plateau: Plateau | None = None
    seed: int = 0
    ema: MovingAverage | None = None
    swa: EpochAverage | None = None
    accumulate: int = 1  # microbatches in a step
    clip: float | None = None
    step: int = 0  # optimizer steps done
    exchange: Exchange | None = None  # where several processes share each batch
    recorded: Recorded | None = None  # the step, where a GPU may replay it as a CUDA graph
    progress: Progress = field(default_factory=Progress)
    rows: list[dict[str, Any]] = field(default_factory=list)  # those of metrics.jsonl
    warnings: dict[str, str] = field(default_factory=dict)  # by kind: each is said once
    images_per_second: float = 0.0  # of the epoch under way
    evaluation: Meter | None = None  # of the last validation

    def __post_init__(self) -> None:
        self.guard = Guard(self.model, self.runtime.device)
        self.parameters = list(self.model.parameters())  # to walk through all modules takes as long as a layer
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.meter = self.task.meter(self.runtime)  # of the epoch under way

    @property
    def lr(self) -> float:
        """Learning rate of the last step; parameter groups may have multiples of it."""
        return float(self.optimizer.defaults["lr"]) * self.factor(max(0, self.step - 1))

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        return self.schedule(step) * (self.plateau(self.rows, step) if self.plateau else 1.0)

    @property
    def average(self) -> MovingAverage | EpochAverage | None:
        """The average of weights that is judged, where there is one."""
        return self.swa if self.swa and self.swa.has_begun else self.ema

    @property
    def eval_model(self) -> Any:
        """Weights to judge: their average, where there is one."""
        return self.average.module if self.average else self.model

    @property
    def is_ahead(self) -> bool:
        """Whether there are steps that no row tells of yet."""
        return self.step > (self.rows[-1]["step"] if self.rows else 0)

    def set_accumulate(self, parts: int) -> None:
        """Take each batch in so many microbatches from now on."""
        self.accumulate = parts
        if isinstance(self.net, Compiled):
            self.net.parts = parts
        if self.recorded is not None:
            self.recorded.forget()

    def add_parameters(self, groups: list[dict[str, Any]]) -> None:
        """Add parameters that begin to train."""
        for group in groups:
            self.optimizer.add_param_group(group)
            self.base_lrs.append(float(group["lr"]))
        prepare(self.optimizer)

    def restart_meter(self) -> None:
        """Begin the sums of another epoch."""
        self.meter.restart()

    def warn(self, kind: str, text: str) -> None:
        """Say once what is wrong, and keep it for the result. An empty text says nothing."""
        if text and kind not in self.warnings:
            self.warnings[kind] = text
            console.warn(text)

    def warn_if_undrawn(self, what: str) -> AbstractContextManager[None]:
        """Turn any error inside the block into one warning: no picture may cost a run."""
        return console.warn_if_undrawn(what, partial(self.warn, what))

    def state_dict(self) -> dict[str, Any]:
        """State by name, for a checkpoint."""
        return {
            "progress": asdict(self.progress),
            "rows": self.rows,
            "warned": self.warnings,
            "meter": self.meter.state_dict(),
            "images_per_second": self.images_per_second,
            "model": _contiguous(self.model.state_dict()),
            "ema": _contiguous(self.average.state_dict()) if self.average else None,
            "optimizer": plain_state(self.optimizer),
            "scaler": self.runtime.scaler.state_dict(),
            "step": self.step,
            "accumulate": self.accumulate,
            "skipped": self.guard.look().skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. The optimizer's settings stay those it was built with: a forced resume may change them."""
        settings = [{**group, "params": None} for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        if (average := self.ema or self.swa) and state["ema"]:
            average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, asked in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(asked, params=group["params"])
        if state["scaler"]:  # empty where the run was begun without a scaler, in another precision
            self.runtime.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.set_accumulate(max(self.accumulate, state.get("accumulate", 1)))  # more where memory was too small
        self.guard.restart(state.get("skipped", 0), self.step)
        self.rows, self.warnings = state["rows"], state.get("warned", {})
        set_lr(self.optimizer, self.base_lrs, self.factor(max(0, self.step - 1)))  # an epoch may end without a step
        self.meter.load_state_dict(state["meter"])
        self.images_per_second = state.get("images_per_second", 0.0)


def _contiguous(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors in the usual memory format: channels last is how they lie here, not what they are."""
    return {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in state.items()}
