"""A training from its parts to its end in a run directory: claim it, train, say what happened, leave it in order."""

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from cnnbench import data
from cnnbench.config.commands import TrainConfig
from cnnbench.config.parsing import parse_duration
from cnnbench.config.sections import Format
from cnnbench.models.layers import Net
from cnnbench.output.tables import plural
from cnnbench.runs import run_directory
from cnnbench.runs.result import complexity, show
from cnnbench.runs.tracker import Silent, Tracker
from cnnbench.runtime.device import Runtime
from cnnbench.runtime.distributed import ALONE
from cnnbench.runtime.memory import is_out_of_memory
from cnnbench.training import debug, freezing, health, lr_finder, optim
from cnnbench.training.trainer import Training
from cnnbench.transfer.features import Cached
from cnnbench.utils.console import Log, say, warn
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import read_json
from cnnbench.weights.checkpoint import Inference
from cnnbench.weights.checkpoint_manager import interval


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what and where."""

    device: Runtime
    dataset: data.Dataset
    model: Net
    inference: Inference
    directory: Path
    cached: Cached | None = None  # the features that the head alone is trained on, in place of the images
    about: dict[str, object] = field(default_factory=dict)  # more for result.json
    spent: float = 0.0  # seconds of work before the first step
    command: str = "train"
    log: Log | None = None  # of what was said before


def output(cfg: TrainConfig) -> TextIO:
    """Where people read: stdout, unless it is for the result alone."""
    return sys.stdout if cfg.format is Format.table else sys.stderr


def inference(model: dict[str, Any], dataset: data.Dataset, image_size: int) -> Inference:
    """What it takes to use a net, of this name and arguments, once it is trained on this data set."""
    return Inference(
        model=model,
        classes=list(dataset.classes),
        mean=list(dataset.mean),
        std=list(dataset.std),
        image_size=image_size,
        in_channels=dataset.in_channels,
        crop_ratio=dataset.crop_ratio,
        interpolation=dataset.interpolation,
    )


def execute(cfg: TrainConfig, job: Job) -> int:
    """Train, or go on with a training that was cut, or say that it is done. Returns the exit code."""
    if cfg.lr_find:
        lr_finder.check(cfg, job.directory, alone=job.device.group.alone)
    if job.cached and not job.device.group.alone:  # a head on features that are there already is a matter of seconds
        if not job.device.group.main:
            return 0
        job = replace(job, device=replace(job.device, group=ALONE))
    with nullcontext(job.log) if job.log else Log() as log:
        group = job.device.group
        directory = claim(cfg, job)
        if group.main:
            log.open(directory.path / "log.txt", f"cnnbench {job.command} {' '.join(cfg.run.overrides)}")
        try:
            code = _train(cfg, job, directory)
        except BaseException as error:
            shown = readable(group.root_cause(error), log)
            if not cfg.lr_find and (directory.made or directory.last.exists()):
                status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                directory.set_status(status, f"{type(error).__name__}: {shown}".rstrip(": "))
            if isinstance(shown, UserError):
                directory.discard()
            raise shown from None
        finally:
            directory.release()
        if code == 0 and group.main and not cfg.lr_find and (result := read_json(directory.path / "result.json")):
            show(result, cfg.format, in_sweep=cfg.sweep.dir is not None)
            if text := debug.verdict(cfg, result["best_top1_error"]):
                say(text, sys.stderr)
        return code


def claim(cfg: TrainConfig, job: Job) -> run_directory.RunDirectory:
    """The directory of the run; of several processes rank 0 takes it, and says to the others which it is."""
    taken: list[run_directory.RunDirectory] = []

    def take() -> tuple[str, bool]:
        if cfg.debug:
            run_directory.clear_debug(job.directory)
        taken.append(run_directory.claim(job.directory, cfg, cfg.resume.value))
        return str(taken[0].path), taken[0].config_known

    path, known = job.device.group.broadcast(take)
    return taken[0] if taken else run_directory.Followed(Path(path), config_known=known)


def _train(cfg: TrainConfig, job: Job, directory: run_directory.RunDirectory) -> int:
    stream, group = output(cfg), job.device.group
    if reason := group.broadcast(lambda: done_without_checkpoints(directory.path, cfg)):
        say(f"already done: {reason}; resume=never trains anew", stream)
        return 0
    training = Training(cfg, job.device, job.dataset, job.model, job.inference, directory,
                        cached=job.cached, about=job.about, spent=job.spent, prune=pruner(cfg))  # fmt: skip
    if cfg.lr_find:
        return lr_finder.run(training, directory.path, stream)
    directory.record(cfg)
    for note in training.notes:
        warn(note)
    if (reason := training.stop_reason()) and group.broadcast((directory.path / "result.json").exists):
        say(f"already done: {reason}; resume=never trains anew", stream)
        directory.set_status("done", reason)
        return 0
    describe(training, stream)
    with (
        Tracker(directory.path, training.rows, training.trainer.step, stream) if group.main else Silent(stream)
    ) as tracker:
        return training.run(tracker)


def pruner(cfg: TrainConfig) -> Callable[[dict[str, Any]], str] | None:
    """Who may end this training as hopeless: the search of which it is a trial."""
    if cfg.sweep.trial is None or cfg.sweep.dir is None:
        return None
    from cnnbench.sweeps import study  # with Optuna, of which nobody else has to know

    return study.judge(Path(cfg.sweep.dir).expanduser(), cfg.sweep.trial)


def done_without_checkpoints(path: Path, cfg: TrainConfig) -> str:
    """Why a run is done whose checkpoints somebody has removed, as they are large; empty where it is not."""
    result = read_json(path / "result.json")
    if not result or any((path / "checkpoints").glob("*.pt")):
        return ""
    done = result["epochs"] >= cfg.epochs or (cfg.max_steps is not None and result["steps"] >= cfg.max_steps)
    return f"{result['stopped']}, but its checkpoints are gone" if done else ""


def base_name(cfg: TrainConfig) -> str:
    """`resnet20-cifar10`; image folders are told apart by their own names."""
    source = Path(cfg.data.root).name if cfg.data.name == "folder" and cfg.data.root else cfg.data.name
    return run_directory.slug([f"{cfg.model['name']}-{source}"])


def readable(error: BaseException, log: Log) -> BaseException:
    """What Python or torch says in its own words of a mistake, of a machine that is too small or of a fault, in ours.
    The log keeps all of it."""
    text = str(error)
    if "Expected more than 1 value per channel" in text:
        shown: BaseException = UserError(
            "BatchNorm needs more than one value per channel: raise batch_size (or lower accumulate)"
        )
    elif is_out_of_memory(error):
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
    if cfg.model and not isinstance(cfg.model.get("name"), str):
        raise UserError("model.name has no value: give the name of a net, as in model=resnet20")
    if isinstance(cfg.batch_size, str) and cfg.batch_size != "auto":
        raise UserError(f"batch_size={cfg.batch_size}: give a whole number or auto")
    if isinstance(cfg.batch_size, int) and cfg.accumulate > cfg.batch_size:
        raise UserError(f"accumulate={cfg.accumulate} is more than the {cfg.batch_size} images of a batch")
    if cfg.optim.nesterov and cfg.optim.momentum == 0:
        raise UserError("optim.nesterov=true needs optim.momentum above 0")
    if cfg.max_time:
        parse_duration(cfg.max_time)
    interval(cfg.checkpoint.every)


def describe(training: Training, stream: TextIO) -> None:
    """What is about to happen, in a few lines, and what looks like a mistake."""
    cfg, device, dataset, size = training.cfg, training.device, training.dataset, training.inference.image_size
    model = training.trainer.model
    lr = optim.scaled_lr(cfg.optim, training.batch_size)
    count = complexity(model, training.inference)
    lines = [
        f"{cfg.model['name']}: {count['params']:,} parameters, {count['macs']:,} multiply-adds at {size} x {size} px",
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.val):,} {dataset.split} images, "
        f"{len(dataset.classes)} classes",
    ]
    steps = (
        f"{plural(cfg.epochs, 'epoch')} of {plural(len(training.train_batches), 'step')}, "
        f"batch {training.batch_size}, {cfg.optim.name.value}, lr {lr:g}"
    )
    times = f"{device.group.size} x " if not device.group.alone else ""
    lines.append(f"{times}{device.name}, {device.precision}{': ' + steps if cfg.epochs else ''}")
    if cfg.epochs and lr != cfg.optim.lr:
        lines.append(f"lr {cfg.optim.lr:g} is meant for a batch of {cfg.optim.lr_batch}: scaled to {lr:g}")
    if training.thaw_plan or not freezing.trains_wholly(model):
        lines.append(freezing.table(model, training.thaw_plan))
    if training.trainer.step:
        lines.append(f"going on from epoch {training.progress.epoch + 1}, batch {training.progress.batch}")
    lines.append(training.space)
    found = risks(training, lr)
    training.warned |= {text: text for text in found}
    say("\n".join([*lines, *(f"warning: {text}" for text in found)]), stream)


def risks(training: Training, lr: float) -> list[str]:
    """What looks like a mistake before the first step."""
    cfg, dataset = training.cfg, training.dataset
    found = health.risky_settings(cfg.optim, training.trainer.model, lr) if cfg.epochs else []
    shared = [] if cfg.debug else data.shared_files(dataset.train, dataset.val)
    if shared:
        found.append(
            f"{len(shared)} of the {len(dataset.val):,} {dataset.split} images are training images too, as "
            f"{shared[0][1]} = {shared[0][0]}: the error measured on them is too low"
        )
    inference = training.inference
    if cfg.epochs and training.device.spoils_wide_filters:
        found += health.wrong_gradients(training.trainer.model, inference.image_size, inference.in_channels)
    return found
