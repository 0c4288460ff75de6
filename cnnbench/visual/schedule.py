"""`what=schedule`: the learning rate over the steps of a training. Needs no trained net."""

from collections.abc import Iterator

import torch

from cnnbench.config.sections import Schedule
from cnnbench.output import plots
from cnnbench.training import optim
from cnnbench.training.schedules import build_schedule
from cnnbench.utils.format import plural
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture

POINTS = 2000  # of the curve


def draw_schedule(context: VisualizeContext) -> Iterator[Picture]:
    """The learning rate of each step of the planned training, also as TensorBoard's scalar `schedule/lr`."""
    planned = context.planned
    per_epoch = planned.steps_per_epoch(len(context.dataset.train))
    total = per_epoch * planned.epochs
    factor = build_schedule(planned.schedule, total, per_epoch)
    lr = optim.scaled_lr(planned.optim, planned.batch_size)
    steps = torch.linspace(0, total - 1, min(POINTS, total)).round().long().unique().tolist()
    rates = [lr * factor(step) for step in steps]
    length = f"{plural(planned.epochs, 'epoch')} of {plural(per_epoch, 'step')}, batch {planned.batch_size}"
    title = f"lr of {planned.optim.name.value}, schedule {planned.schedule.name.value}: {length}"
    if planned.schedule.name is Schedule.plateau:
        title += f"\nbefore its drops to {planned.schedule.gamma:g} of it, which follow from the validation errors"
    picture = context.new_picture("schedule", "schedule", title, f"The learning rate over the training: {title}.")
    plots.plot_schedule([step / per_epoch for step in steps], rates, picture.path, title)
    for step, rate in zip(steps, rates, strict=True):
        context.events.add_scalar("schedule/lr", rate, step)
    yield picture
