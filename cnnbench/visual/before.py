"""Before training: a batch as the net will see it, and the learning rate over the steps. No net is needed."""

from collections.abc import Iterator

import torch

from cnnbench import data
from cnnbench.output.image_grid import SHOWN
from cnnbench.output.plots import schedule
from cnnbench.output.tables import plural
from cnnbench.tasks.classification.plots import train_batch
from cnnbench.training import optim
from cnnbench.visual.page import Picture
from cnnbench.visual.studio import Studio

POINTS = 2000  # of the curve of the learning rate


def draw_batch(studio: Studio) -> Iterator[Picture]:
    """The first training batch, after augmentation; `seed=` for another."""
    cfg, dataset = studio.cfg, studio.dataset
    loader = data.train_loader(dataset, studio.plan.augment, image_size=studio.size, seed=cfg.seed, workers=0,
                               batch_size=min(SHOWN, len(dataset.train)))  # fmt: skip
    batch = next(iter(loader.epoch(0)))
    images, targets = batch["image"], batch["target"]
    title = f"{dataset.name}: a training batch, {studio.size} × {studio.size} pixels, after augmentation"
    found = studio.picture("batch", "batch", title, f"{title}: {studio.plan.augmentation}.")
    train_batch(images, targets, dataset.classes, found.path)
    yield found


def draw_schedule(studio: Studio) -> Iterator[Picture]:
    """The learning rate of each step of the training that these settings would be."""
    plan = studio.plan
    per_epoch = plan.steps_per_epoch(len(studio.dataset.train))
    total = per_epoch * plan.epochs
    factor, lr = optim.build_schedule(plan.schedule, total, per_epoch), optim.scaled_lr(plan.optim, plan.batch_size)
    steps = torch.linspace(0, total - 1, min(POINTS, total)).round().long().unique().tolist()
    rates = [lr * factor(step) for step in steps]
    title = (f"lr of {plan.optim.name.value}, schedule {plan.schedule.name.value}: {plural(plan.epochs, 'epoch')} of "
             f"{plural(per_epoch, 'step')}, batch {plan.batch_size}")  # fmt: skip
    found = studio.picture("schedule", "schedule", title, f"The learning rate over the training: {title}.")
    schedule([step / per_epoch for step in steps], rates, found.path, title)
    for step, rate in zip(steps, rates, strict=True):
        studio.writer.add_scalar("schedule/lr", rate, step)
    yield found
