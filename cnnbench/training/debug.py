"""`debug=fast` and `debug=overfit`: a training made so small that it only answers whether everything works."""

from dataclasses import replace
from typing import Any, TypeVar

from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import ClassWeights, Debug, Sampler, Schedule
from cnnbench.data import Dataset
from cnnbench.tasks import find
from cnnbench.tasks.base import Task
from cnnbench.training.augmentation import NONE
from cnnbench.utils.errors import RunError

Config = TypeVar("Config", bound=TrainConfig)
IMAGES = 32  # to be memorised
STEPS, EPOCHS = 20, 10  # in an epoch, and epochs


def small(cfg: Config) -> Config:
    """The configuration that debug= stands for; without it, as it is."""
    if cfg.debug is None:
        return cfg
    size = IMAGES if isinstance(cfg.batch_size, str) else cfg.batch_size
    size = min(size, IMAGES) if cfg.debug is Debug.overfit else size
    cfg = replace(
        cfg,
        epochs=1,
        batch_size=size,
        accumulate=min(cfg.accumulate, size),
        max_steps=None,
        max_time=None,
        patience=None,
        until=None,
        checkpoint=replace(cfg.checkpoint, every=None, keep=1),
    )
    if cfg.debug is Debug.fast:
        return cfg
    return replace(  # whatever makes memorising harder is off, but what the net itself brings
        cfg,
        epochs=EPOCHS,
        loss=replace(cfg.loss, class_weights=ClassWeights.none),
        data=replace(cfg.data, sampler=Sampler.shuffle),
        label_smoothing=0.0,
        ema=None,
        swa=None,
        stochastic_depth=0.0,
        augment=NONE,
        schedule=replace(cfg.schedule, name=Schedule.constant, warmup_epochs=0.0),
    )


def few_images(cfg: TrainConfig, dataset: Dataset) -> Dataset:
    """Data set of one batch: for debug=fast one to train on and one to validate on, from all over the data; for
    debug=overfit one that is both, over and over."""
    if cfg.debug is None:
        return dataset
    assert isinstance(cfg.batch_size, int)
    some = [find(dataset.task).some(source, cfg.batch_size) for source in (dataset.train, dataset.val)]
    if cfg.debug is Debug.fast:
        return replace(dataset, train=dataset.train.subset(some[0]), val=dataset.val.subset(some[1]))
    batch = dataset.train.subset(some[0])
    return replace(dataset, train=dataset.train.subset(some[0].repeat(STEPS)), val=batch, split="memorised")


def verdict(cfg: TrainConfig, task: type[Task], result: dict[str, Any]) -> str:
    """Sentence on what the run showed. RunError where the net did not memorise its one batch."""
    if cfg.debug is not Debug.overfit:
        return "debug=fast: training, validation, checkpoint and pictures work" if cfg.debug else ""
    primary = task.metrics[0]
    chosen = f"best_{primary.name}"  # not there where another metric is aimed at
    best = result[chosen if chosen in result else primary.name]
    if primary.better(task.memorised, best):
        raise RunError(
            f"debug=overfit: after {STEPS * EPOCHS} steps on one batch the net has {primary.text(best)} on it.\n"
            "Try another lr; else look for wrong labels (train_batch.png), a wrong loss, or a part that does not train"
        )
    return f"debug=overfit: the net has memorised its batch ({primary.text(best)}): the pieces fit"
