"""Learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnbench.config.sections import Schedule, ScheduleConfig
from cnnbench.tasks.metric import Metric


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the lr at each step, 0 <= step < total_steps."""
    if cfg.name is Schedule.onecycle:
        return lambda step: one_cycle(min(step, total_steps - 1), total_steps, cfg)
    warmup = min(round(cfg.warmup_epochs * steps_per_epoch), total_steps - 1)
    drop = cfg.every_epochs * steps_per_epoch
    shape: Callable[[float], float] = {
        Schedule.constant: lambda done: 1.0,
        Schedule.multistep: lambda done: multistep(done, cfg.milestones, cfg.gamma),
        Schedule.cosine: cosine,
        Schedule.linear: linear,
        Schedule.exponential: lambda done: cfg.gamma ** (round(done * total_steps) // drop),
        Schedule.plateau: lambda done: 1.0,  # a `Plateau` makes it drop
    }[cfg.name]
    # The papers count their drops from the first step; the smooth curves begin where the warm-up ends.
    begin = 0 if cfg.name in (Schedule.multistep, Schedule.exponential) else warmup

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return shape(min(1.0, (step - begin) / (total_steps - begin)))

    return factor


@dataclass(frozen=True)
class Plateau:
    """Factor on the lr that drops where validations stop getting better. It follows from the rows of the epochs alone,
    so a resumed run has the same."""

    metric: Metric
    gamma: float
    patience: int  # epochs

    def __call__(self, rows: Iterable[Mapping[str, Any]], step: int) -> float:
        """Factor at a step, by the epochs that ended before it."""
        best, waited, factor = self.metric.worst, 0, 1.0
        for value in (row[f"{self.metric.name}/val"] for row in rows if row["step"] <= step):
            waited = 0 if self.metric.better(value, best) else waited + 1
            if waited == 0:
                best = value
            elif waited == self.patience:
                factor, waited = factor * self.gamma, 0
        return factor


def plateau_of(cfg: ScheduleConfig, metric: Metric) -> Plateau | None:
    """What schedule=plateau adds to the curve of the steps; None for others."""
    return Plateau(metric, cfg.gamma, cfg.patience) if cfg.name is Schedule.plateau else None


def one_cycle(step: int, total: int, cfg: ScheduleConfig) -> float:
    """Half a cosine up, then one down (Smith & Topin, 2018); as torch's OneCycleLR, but momentum stays."""
    top = cfg.peak * total - 1
    if step <= top:
        return cfg.start + (1 - cfg.start) * (1 - cosine(step / top if top else 1.0))
    return cfg.end + (1 - cfg.end) * cosine((step - top) / (total - 1 - top))


def multistep(done: float, milestones: Iterable[float], gamma: float) -> float:
    """gamma to the number of milestones passed; done in [0, 1) is the part of the training that lies behind."""
    return math.prod(gamma for milestone in milestones if done >= milestone)


def cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    return 1 - done
