"""`cnnbench train`: a net, a data set, a recipe; what remains is a run directory."""

import sys
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

from cnnbench import checkpoint, data, models, optim, results, runs, runtime, transfer
from cnnbench.checkpoint import Inference
from cnnbench.config import Format, Optimizer, TrainConfig, seconds
from cnnbench.errors import RunError, UserError
from cnnbench.models.layers import Net
from cnnbench.tables import plural
from cnnbench.tracking import Tracker, say
from cnnbench.training import Training


def run(cfg: TrainConfig) -> int:
    """Train, or go on with a training that was cut, or say that it is done. Returns the exit code."""
    stream = sys.stdout if cfg.format is Format.table else sys.stderr
    device = runtime.setup(cfg.device, cfg.precision.value, cfg.seed)
    check(cfg)
    dataset = data.load_dataset(cfg.data)
    model, inference = build(cfg, dataset, stream)
    frozen = transfer.freeze(model, cfg.freeze)
    directory = runs.claim(runs.directory("train", cfg, base_name(cfg)), cfg, cfg.resume.value)
    result_file = directory.path / "result.json"
    try:
        training = Training(cfg, device, dataset, model, inference, directory)
        directory.record(cfg)
        if (reason := training.stop_reason()) and result_file.exists():
            say(f"already done: {reason}; resume=never trains anew", stream)
            directory.set_status("done", reason)
            code = 0
        else:
            describe(training, frozen, stream)
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
    if not isinstance(cfg.model.get("name"), str):
        raise UserError("model.name has no value: give the name of a net, as in model=resnet20")
    if isinstance(cfg.batch_size, str) and cfg.batch_size != "auto":
        raise UserError(f"batch_size={cfg.batch_size}: give a whole number or auto")
    if isinstance(cfg.batch_size, int) and cfg.accumulate > cfg.batch_size:
        raise UserError(f"accumulate={cfg.accumulate} is more than the {cfg.batch_size} images of a batch")
    if cfg.optim.nesterov and cfg.optim.momentum == 0:
        raise UserError("optim.nesterov=true needs optim.momentum above 0")
    if cfg.max_time:
        seconds(cfg.max_time)


def build(cfg: TrainConfig, dataset: data.Dataset, stream: TextIO) -> tuple[Net, Inference]:
    """The net for this data set, initialised or with the weights asked for, and what it takes to use it later."""
    arguments = {key: value for key, value in cfg.model.items() if key not in ("name", "in_channels")}
    if "num_classes" in arguments:
        raise UserError(f"model.num_classes follows from the data: {dataset.name} has {len(dataset.classes)} classes")
    channels = cfg.model.get("in_channels") or dataset.in_channels
    if channels != dataset.in_channels:
        raise UserError(f"model.in_channels={channels}, but the images of {dataset.name} have {dataset.in_channels}")
    model = models.build(cfg.model["name"], num_classes=len(dataset.classes), in_channels=channels, **arguments)
    image_size = cfg.data.image_size or model.image_size
    models.check_image_size(model, image_size)
    for note in models.notes(model, image_size):
        say(note, stream)
    if cfg.weights is not None:
        path = checkpoint.find(cfg.weights)
        left = transfer.load_weights(model, checkpoint.weights_of(checkpoint.read(path), path), str(path))
        say(f"weights from {path}" + (f"; initialised anew: {', '.join(left)}" if left else ""), stream)
    return model, Inference(
        model={"name": cfg.model["name"], **arguments},
        classes=list(dataset.classes),
        mean=list(dataset.mean),
        std=list(dataset.std),
        image_size=image_size,
        in_channels=channels,
        crop_ratio=dataset.crop_ratio,
        interpolation=dataset.interpolation,
    )


def describe(training: Training, frozen: list[str], stream: TextIO) -> None:
    """What is about to happen, in a few lines, and what looks like a mistake."""
    cfg, device, dataset, size = training.cfg, training.device, training.dataset, training.inference.image_size
    lr = optim.scaled_lr(cfg.optim, training.batch_size)
    count = results.complexity(training.trainer.model, training.inference)
    lines = [
        f"{cfg.model['name']}: {count['params']:,} parameters, {count['macs']:,} multiply-adds at {size} x {size} px",
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.val):,} {dataset.split} images, "
        f"{len(dataset.classes)} classes",
        f"{device.name}, {device.precision}: {plural(cfg.epochs, 'epoch')} of "
        f"{plural(len(training.train_batches), 'step')}, "
        f"batch {training.batch_size}, {cfg.optim.name.value}, lr {lr:g}",
    ]
    if lr != cfg.optim.lr:
        lines.append(f"lr {cfg.optim.lr:g} is meant for a batch of {cfg.optim.lr_batch}: scaled to {lr:g}")
    if frozen:
        lines.append(f"frozen: {', '.join(frozen)}")
    if training.trainer.step:
        lines.append(f"going on from epoch {training.progress.epoch + 1}, batch {training.progress.batch}")
    say("\n".join([*lines, *warnings(cfg, training.trainer.model, lr)]), stream)


def warnings(cfg: TrainConfig, model: nn.Module, lr: float) -> list[str]:
    """Settings with which a training is known to fail in silence."""
    normalised = any(isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) for module in model.modules())
    found = []
    if cfg.optim.name is Optimizer.sgd and lr >= 0.05 and not normalised:
        found.append(f"warning: lr {lr:g} on a net without normalisation layers often diverges; 0.01 is usual")
    if cfg.optim.name is Optimizer.sgd and cfg.optim.weight_decay >= 0.01:
        found.append(f"warning: weight decay {cfg.optim.weight_decay:g} is strong for SGD; 0.0001 to 0.0005 is usual")
    return found
