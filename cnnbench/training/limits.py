"""Stop rule: the limits of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from cnnbench.config.commands import TrainConfig
from cnnbench.config.parsing import parse_duration
from cnnbench.tasks.metric import Metric
from cnnbench.training.state import Progress
from cnnbench.utils.format import plural


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Limits of a training, as they were typed. None: no such limit."""

    epochs: int  # 0 for a head that is fitted, not trained by steps
    aim: Metric  # by which the training is judged
    max_steps: int | None = None
    max_time: str | None = None
    patience: int | None = None  # epochs without a better value of it
    until: float | None = None  # value of it on the training images

    @classmethod
    def of(cls, cfg: TrainConfig, aim: Metric) -> Self:
        return cls(
            epochs=cfg.epochs,
            aim=aim,
            max_steps=cfg.max_steps,
            max_time=cfg.max_time,
            patience=cfg.patience,
            until=cfg.until,
        )

    @cached_property
    def seconds(self) -> float:
        """Seconds of training after which it ends."""
        return parse_duration("max_time", self.max_time) if self.max_time else float("inf")

    def reason(self, progress: Progress, step: int, rows: Sequence[Mapping[str, Any]] = ()) -> str:
        """Why no further step is to be done; empty while there is one. rows: those of the epochs so far."""
        if self.epochs == 0:
            return "its head is fitted, not trained by steps"
        if progress.epoch >= self.epochs:
            return f"all {self.epochs} epochs" if self.epochs > 1 else "its one epoch"
        if self.max_steps and step >= self.max_steps:
            return f"max_steps={self.max_steps}"
        if progress.seconds >= self.seconds:
            return f"max_time={self.max_time}"
        if progress.pruned:
            return progress.pruned
        if self.patience and progress.batch == 0 and progress.epoch - progress.best_epoch >= self.patience:
            return f"no better {self.aim.label} in {plural(self.patience, 'epoch')}"
        if self.until is not None and progress.batch == 0 and rows and self._reached(rows[-1]):
            return f"until={self.until:g}"
        return ""

    def _reached(self, row: Mapping[str, Any]) -> bool:
        assert self.until is not None
        found = row.get(f"{self.aim.name}/train")
        return found is not None and not self.aim.better(self.until, found)
