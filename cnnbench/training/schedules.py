"""Learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable, Iterable

from cnnbench.config.sections import Schedule, ScheduleConfig


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the lr at each step, 0 <= step < total_steps."""
    warmup = min(round(cfg.warmup_epochs * steps_per_epoch), total_steps - 1)
    shape: Callable[[float], float] = {
        Schedule.constant: lambda done: 1.0,
        Schedule.multistep: lambda done: multistep(done, cfg.milestones, cfg.gamma),
        Schedule.cosine: cosine,
        Schedule.linear: linear,
    }[cfg.name]
    # The papers count their milestones from the first step; the smooth curves begin where the warm-up ends.
    begin = 0 if cfg.name is Schedule.multistep else warmup

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return shape(min(1.0, (step - begin) / (total_steps - begin)))

    return factor


def multistep(done: float, milestones: Iterable[float], gamma: float) -> float:
    """gamma to the number of milestones passed; done in [0, 1) is the part of the training that lies behind."""
    return math.prod(gamma for milestone in milestones if done >= milestone)


def cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    return 1 - done
