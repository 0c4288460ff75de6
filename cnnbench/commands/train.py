"""`cnnbench train`: a net, a data set, a recipe; what remains is a run directory."""

import re
import sys
from pathlib import Path
from typing import TextIO

import torch

from cnnbench import checkpoint, data, debug, health, models, optim, results, runs, runtime, transfer
from cnnbench.checkpoint import Inference
from cnnbench.config import Format, TrainConfig, seconds
from cnnbench.errors import RunError, UserError
from cnnbench.keeper import interval
from cnnbench.logfile import Log, say, warn
from cnnbench.models.layers import Net
from cnnbench.tables import plural
from cnnbench.tracking import Tracker
from cnnbench.training import Training


def run(cfg: TrainConfig) -> int:
    """Train, or go on with a training that was cut, or say that it is done. Returns the exit code."""
    with Log() as log:
        return _run(debug.small(cfg), log)


def _run(cfg: TrainConfig, log: Log) -> int:
    stream = sys.stdout if cfg.format is Format.table else sys.stderr
    device = runtime.setup(cfg.device, cfg.precision.value, cfg.seed, cfg.deterministic)
    check(cfg)
    dataset = debug.few_images(cfg, data.load_dataset(cfg.data))
    model, inference = build(cfg, dataset, stream)
    frozen = transfer.freeze(model, cfg.freeze)
    path = runs.directory("train", cfg, base_name(cfg))
    if cfg.debug:
        runs.clear_debug(path)
    directory = runs.claim(path, cfg, cfg.resume.value)
    result_file = directory.path / "result.json"
    log.open(directory.path / "log.txt", f"cnnbench train {' '.join(cfg.run.overrides)}")
    try:
        if reason := done_without_checkpoints(directory.path, cfg):
            say(f"already done: {reason}; resume=never trains anew", stream)
            return show(cfg, result_file)
        training = Training(cfg, device, dataset, model, inference, directory)
        directory.record(cfg)
        for note in training.notes:
            warn(note)
        if (reason := training.stop_reason()) and result_file.exists():
            say(f"already done: {reason}; resume=never trains anew", stream)
            directory.set_status("done", reason)
            code = 0
        else:
            describe(training, frozen, stream)
            with Tracker(directory.path, training.rows, training.trainer.step, stream) as tracker:
                code = training.run(tracker)
    except BaseException as error:
        shown = readable(error, log)
        if directory.made or directory.last.exists():
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            directory.set_status(status, f"{type(error).__name__}: {shown}".rstrip(": "))
        if isinstance(shown, UserError):
            directory.discard()
        raise shown from None
    finally:
        directory.release()
    return code or show(cfg, result_file)


def show(cfg: TrainConfig, result_file: Path) -> int:
    """The headline; the exit code."""
    result = runs.read_json(result_file)
    results.show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
    if text := debug.verdict(cfg, result["best_top1_error"]):
        say(text, sys.stderr)
    return 0


def done_without_checkpoints(path: Path, cfg: TrainConfig) -> str:
    """Why a run is done whose checkpoints somebody has removed, as they are large; empty where it is not."""
    result = runs.read_json(path / "result.json")
    epochs, steps = result.get("epochs", 0), result.get("steps", 0)
    if any((path / "checkpoints").glob("*.pt")) or not (
        epochs >= cfg.epochs or (cfg.max_steps is not None and steps >= cfg.max_steps)
    ):
        return ""
    return f"{result['stopped']}, but its checkpoints are gone"


def base_name(cfg: TrainConfig) -> str:
    """`resnet20-cifar10`; image folders are told apart by their own names."""
    source = Path(cfg.data.root).name if cfg.data.name == "folder" and cfg.data.root else cfg.data.name
    return runs.slug([f"{cfg.model['name']}-{source}"])


def readable(error: BaseException, log: Log) -> BaseException:
    """What Python or torch says in its own words of a mistake, of a machine that is too small or of a fault, in ours.
    The log keeps all of it."""
    text = str(error)
    if "Expected more than 1 value per channel" in text:
        shown: BaseException = UserError(
            "BatchNorm needs more than one value per channel: raise batch_size (or lower accumulate)"
        )
    elif isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        shown = RunError("out of memory: lower batch_size, raise accumulate, or use smaller images")
    elif found := re.search(r"(\w+) does not have a deterministic implementation", text):
        shown = UserError(f"deterministic=true: on this device {found[1]}, which the net uses, cannot be; leave it out")
    elif isinstance(error, UserError | RunError) or not isinstance(error, Exception):
        shown = error
    else:
        reason = (text.splitlines() or [""])[0][:200]
        shown = RunError(
            f"{type(error).__name__}: {reason}\nThat is no mistake in the command; all of it is in {log.path}"
        )
    if shown is not error:
        log.add_traceback(error)
    for line in f"cnnbench: {shown or type(shown).__name__}".splitlines():
        log.add(line)
    return shown


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
    interval(cfg.checkpoint.every)


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
    lines.append(training.space)
    risks = health.risky_settings(cfg.optim, training.trainer.model, lr)
    shared = [] if cfg.debug else data.shared_files(dataset.train, dataset.val)
    if shared:
        risks.append(
            f"warning: {len(shared)} of the {len(dataset.val):,} {dataset.split} images are training images too, as "
            f"{shared[0][1]} = {shared[0][0]}: the error measured on them is too low"
        )
    training.warned |= {text: text.removeprefix("warning: ") for text in risks}
    say("\n".join([*lines, *risks]), stream)
