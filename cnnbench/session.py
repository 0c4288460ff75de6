"""A training from its parts to its end in a run directory: claim it, train, say what happened, leave it in order."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from cnnbench import data, freezing, optim, results, runs, runtime
from cnnbench.checkpoint import Inference
from cnnbench.config import Format, Optimizer, TrainConfig, seconds
from cnnbench.errors import RunError, UserError
from cnnbench.features import Cached
from cnnbench.models.layers import Net
from cnnbench.tables import plural
from cnnbench.tracking import Tracker, say
from cnnbench.training import Training


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what and where."""

    device: runtime.Runtime
    dataset: data.Dataset
    model: Net
    inference: Inference
    directory: Path
    cached: Cached | None = None  # the features that the head alone is trained on, in place of the images
    about: dict[str, object] = field(default_factory=dict)  # more for result.json
    spent: float = 0.0  # seconds of work before the first step


def output(cfg: TrainConfig) -> TextIO:
    """Where people read: stdout, unless it is for the result alone."""
    return sys.stdout if cfg.format is Format.table else sys.stderr


def execute(cfg: TrainConfig, job: Job) -> int:
    """Train, or go on with a training that was cut, or say that it is done. Returns the exit code."""
    stream = output(cfg)
    directory = runs.claim(job.directory, cfg, cfg.resume.value)
    result_file = directory.path / "result.json"
    try:
        training = Training(cfg, job.device, job.dataset, job.model, job.inference, directory,
                            cached=job.cached, about=job.about, spent=job.spent)  # fmt: skip
        directory.record(cfg)
        if (reason := training.stop_reason()) and result_file.exists():
            say(f"already done: {reason}; resume=never trains anew", stream)
            directory.set_status("done", reason)
            code = 0
        else:
            describe(training, stream)
            with Tracker(directory.path, training.rows, training.trainer.step, stream) as tracker:
                code = training.run(tracker)
    except BaseException as error:
        error = readable(error)
        if directory.made or directory.last.exists():
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            directory.set_status(status, f"{type(error).__name__}: {error}".rstrip(": "))
        if isinstance(error, UserError):
            directory.discard()
        raise error from None if isinstance(error, UserError | RunError) else error.__cause__
    finally:
        directory.release()
    if code == 0:
        results.show(runs.read_json(result_file), cfg.format, in_sweep=cfg.sweep.dir is not None)
    return code


def base_name(cfg: TrainConfig) -> str:
    """`resnet20-cifar10`; image folders are told apart by their own names."""
    source = Path(cfg.data.root).name if cfg.data.name == "folder" and cfg.data.root else cfg.data.name
    return runs.slug([f"{cfg.model['name']}-{source}"])


def readable(error: BaseException) -> BaseException:
    """What torch says in its own words of a mistake or of a machine that is too small, in ours."""
    text = str(error)
    if "Expected more than 1 value per channel" in text:
        return UserError("BatchNorm needs more than one value per channel: raise batch_size (or lower accumulate)")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return RunError("out of memory: lower batch_size, raise accumulate, or use smaller images")
    return error


def check(cfg: TrainConfig) -> None:
    """What the schema cannot say."""
    if cfg.model and not isinstance(cfg.model.get("name"), str):
        raise UserError("model.name has no value: give the name of a net, as in model=resnet20")
    if isinstance(cfg.batch_size, str) and cfg.batch_size != "auto":
        raise UserError(f"batch_size={cfg.batch_size}: give a whole number or auto")
    if isinstance(cfg.batch_size, int) and cfg.accumulate > cfg.batch_size:
        raise UserError(f"accumulate={cfg.accumulate} is more than the {cfg.batch_size} images of a batch")
    if cfg.optim.nesterov and cfg.optim.momentum == 0:
        raise UserError("optim.nesterov=true needs optim.momentum above 0")
    if cfg.max_time:
        seconds(cfg.max_time)


def describe(training: Training, stream: TextIO) -> None:
    """What is about to happen, in a few lines, and what looks like a mistake."""
    cfg, device, dataset, size = training.cfg, training.device, training.dataset, training.inference.image_size
    model = training.trainer.model
    lr = optim.scaled_lr(cfg.optim, training.batch_size)
    count = results.complexity(model, training.inference)
    lines = [
        f"{cfg.model['name']}: {count['params']:,} parameters, {count['macs']:,} multiply-adds at {size} x {size} px",
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.val):,} {dataset.split} images, "
        f"{len(dataset.classes)} classes",
    ]
    steps = (
        f"{plural(cfg.epochs, 'epoch')} of {plural(len(training.train_batches), 'step')}, "
        f"batch {training.batch_size}, {cfg.optim.name.value}, lr {lr:g}"
    )
    lines.append(f"{device.name}, {device.precision}{': ' + steps if cfg.epochs else ''}")
    if cfg.epochs and lr != cfg.optim.lr:
        lines.append(f"lr {cfg.optim.lr:g} is meant for a batch of {cfg.optim.lr_batch}: scaled to {lr:g}")
    if training.thaw_plan or not all(parameter.requires_grad for parameter in model.parameters()):
        lines.append(freezing.table(model, training.thaw_plan))
    if training.trainer.step:
        lines.append(f"going on from epoch {training.progress.epoch + 1}, batch {training.progress.batch}")
    say("\n".join([*lines, *(warnings(cfg, model, lr) if cfg.epochs else [])]), stream)


def warnings(cfg: TrainConfig, model: nn.Module, lr: float) -> list[str]:
    """Settings with which a training is known to fail in silence."""
    normalised = any(isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) for module in model.modules())
    found = []
    if cfg.optim.name is Optimizer.sgd and lr >= 0.05 and not normalised:
        found.append(f"warning: lr {lr:g} on a net without normalisation layers often diverges; 0.01 is usual")
    if cfg.optim.name is Optimizer.sgd and cfg.optim.weight_decay >= 0.01:
        found.append(f"warning: weight decay {cfg.optim.weight_decay:g} is strong for SGD; 0.0001 to 0.0005 is usual")
    return found
