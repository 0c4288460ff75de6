"""`what=schedule`: the learning rate over the steps of a training. Needs no trained net."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from cnnbench.config.sections import Schedule
from cnnbench.output import plots
from cnnbench.output.figure import pictures_of
from cnnbench.training import optim
from cnnbench.training.schedules import build_schedule
from cnnbench.utils.format import plural
from cnnbench.visual.context import PlannedTraining, VisualizeContext
from cnnbench.visual.html_page import Picture

POINTS = 2000  # of the curve


@dataclass(frozen=True)
class Drops:
    """Drops of schedule=plateau in a training that is over: the factor on the lr in each epoch, and its last step."""

    ends: list[int]
    factors: list[float]

    def at(self, step: int) -> float:
        """Factor at a step; 1 without a training."""
        return self.factors[min(bisect_right(self.ends, step), len(self.ends) - 1)] if self.ends else 1.0

    def text(self, gamma: float) -> str:
        if not self.ends:
            return f"before its drops to {gamma:g} of it, which follow from the validation errors"
        after = [number for number, pair in enumerate(pairwise(self.factors), start=1) if pair[1] < pair[0]]
        return f"dropped to {gamma:g} of it after epoch {', '.join(map(str, after))}" if after else "it never dropped"


def recorded_drops(planned: PlannedTraining, rate: Callable[[int], float]) -> Drops:
    """Drops of the training, by the lr of its epochs. rate: lr at each step without them."""
    if planned.schedule.name is not Schedule.plateau:
        return Drops([], [])
    known = [row for row in planned.rows if row.get("lr") and row["step"]]
    return Drops([int(row["step"]) for row in known], [row["lr"] / rate(int(row["step"]) - 1) for row in known])


def draw_schedule(context: VisualizeContext) -> Iterator[Picture]:
    """The learning rate of each step of the planned training, also as TensorBoard's scalar `schedule/lr`."""
    planned = context.planned
    per_epoch = planned.steps_per_epoch(len(context.dataset.train))
    total = per_epoch * planned.epochs
    factor = build_schedule(planned.schedule, total, per_epoch)
    lr = optim.scaled_lr(planned.optim, planned.batch_size)
    drops = recorded_drops(planned, lambda step: lr * factor(step))
    steps = torch.linspace(0, total - 1, min(POINTS, total)).round().long().unique().tolist()
    rates = [lr * factor(step) * drops.at(step) for step in steps]
    length = f"{plural(planned.epochs, 'epoch')} of {plural(per_epoch, 'step')}, batch {planned.batch_size}"
    title = f"lr of {planned.optim.name.value}, schedule {planned.schedule.name.value}: {length}"
    if planned.schedule.name is Schedule.plateau:
        title += f"\n{drops.text(planned.schedule.gamma)}"
    picture = context.new_picture("schedule", "schedule", title, f"The learning rate over the training: {title}.")
    with pictures_of(context.heading):
        plots.plot_schedule([step / per_epoch for step in steps], rates, picture.path, title)
    for step, rate in zip(steps, rates, strict=True):
        context.events.add_scalar("schedule/lr", rate, step)
    yield picture
