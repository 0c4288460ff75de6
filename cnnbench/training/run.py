"""A training in its run directory: claim the directory, train or resume, report errors, release the directory."""

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from cnnbench import data, tasks
from cnnbench.config.arguments import command_line
from cnnbench.config.commands import TrainConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.parsing import parse_duration
from cnnbench.config.sections import ClassWeights
from cnnbench.data import own_sources
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models import own_nets
from cnnbench.models.layers import Net
from cnnbench.output.tables import for_people
from cnnbench.runs import loggers, run_directory
from cnnbench.runs.result import show
from cnnbench.runs.run_directory import RunDirectory
from cnnbench.runtime.device import Runtime
from cnnbench.runtime.distributed import ALONE
from cnnbench.runtime.memory import is_out_of_memory
from cnnbench.training import debug, lr_finder, resume, setup
from cnnbench.training.callbacks import Callback
from cnnbench.training.conclude import fit_and_conclude
from cnnbench.training.describe import describe
from cnnbench.training.limits import StopRule
from cnnbench.training.setup import FeatureDataset
from cnnbench.utils.console import Log, say, warn
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.exit_codes import DONE
from cnnbench.utils.files import read_json
from cnnbench.utils.format import plural
from cnnbench.utils.text import slug
from cnnbench.weights.checkpoint_manager import CheckpointManager, interval, size_of


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Net, data set and run directory of a training."""

    runtime: Runtime
    dataset: data.Dataset
    model: Net
    spec: ModelSpec
    directory: Path
    features: FeatureDataset | None = None  # on which the head alone is trained, in place of the images
    about: dict[str, object] = field(default_factory=dict)  # more for result.json
    spent: float = 0.0  # seconds of work before the first step
    command: str = "train"
    log: Log | None = None  # of what was said before
    callbacks: Sequence[Callback] = ()  # the command's own; they come before those that every training has


def run_training(cfg: TrainConfig, job: TrainingJob) -> int:
    """Exit code. Trains, or resumes a training that was cut, or says that it is done."""
    if cfg.lr_find:
        lr_finder.check(cfg, job.directory, alone=job.runtime.group.alone)
    if job.features and not job.runtime.group.alone:  # a head on features that are there already is a matter of seconds
        if not job.runtime.group.main:
            return 0
        job = replace(job, runtime=replace(job.runtime, group=ALONE))
    with nullcontext(job.log) if job.log else Log() as log:
        group = job.runtime.group
        directory = claim(cfg, job)
        if group.main:
            log.open(directory.path / "log.txt", command_line(job.command, cfg.run.overrides))
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
            if text := debug.verdict(cfg, tasks.find(job.dataset.task), result):
                say(text, sys.stderr)
        return code


def claim(cfg: TrainConfig, job: TrainingJob) -> RunDirectory:
    """Run directory. Of several processes rank 0 takes it and broadcasts its path."""
    taken: list[RunDirectory] = []

    def take() -> tuple[str, bool]:
        if cfg.debug:
            run_directory.clear_debug(job.directory)
        taken.append(run_directory.claim(job.directory, cfg, cfg.resume.value))
        return str(taken[0].path), taken[0].config_known

    path, known = job.runtime.group.broadcast(take)
    return taken[0] if taken else run_directory.Followed(Path(path), config_known=known)


def _train(cfg: TrainConfig, job: TrainingJob, directory: RunDirectory) -> int:
    stream, group = for_people(cfg.format), job.runtime.group
    if reason := group.broadcast(lambda: done_without_checkpoints(directory.path, cfg)):
        say(f"already done: {reason}; resume=never trains anew", stream)
        return DONE
    task = tasks.find(job.dataset.task).create(cfg, job.model)
    if cfg.loss.class_weights is not ClassWeights.none and not task.weighs_classes:
        raise UserError(f"loss.class_weights is for images of one class each, which {task.name} has not: leave it out")
    if (cfg.augment.mixup or cfg.augment.cutmix) and not task.mixes_classes:
        raise UserError(data.NO_MIXING.format(task=task.name))
    task.check(job.dataset)
    task = task.suited(job.dataset, job.dataset.val, job.runtime)
    rule = StopRule.of(cfg, task.aim)
    manager = CheckpointManager(directory.path / "checkpoints", cfg.checkpoint, writes=group.main)
    saved, notes = manager.load()
    if saved and not directory.config_known:
        run_directory.refuse_other_config(directory.path, saved["config"], cfg)
    parts, state = setup.build(cfg, job.runtime, job.dataset, job.model, job.spec, directory, task=task, saved=saved,
                               features=job.features, about=job.about, spent=job.spent, stream=stream)  # fmt: skip
    if saved:
        notes += resume.restore(parts, state, rule, manager, saved)
    space = manager.check_space(size_of(job.model, state.ema or state.swa, state.optimizer))
    if cfg.lr_find:
        return lr_finder.run(parts, state, directory.path)
    directory.record(cfg)
    for note in notes:
        warn(note)
    done = rule.reason(state.progress, state.step, state.rows)
    has_result: bool = group.broadcast(lambda: (directory.path / "result.json").exists())
    if done and state.rows and has_result:
        say(f"already done: {done}; resume=never trains anew", stream)
        directory.set_status("done", done)
        return DONE
    describe(parts, state, space)
    setup.keep_images(parts, state)
    return fit_and_conclude(parts, state, rule, manager, job.callbacks)


def done_without_checkpoints(path: Path, cfg: TrainConfig) -> str:
    """Reason why a run is done whose checkpoints were removed to save space; empty where it is not done."""
    result = read_json(path / "result.json")
    if not result or any((path / "checkpoints").glob("*.pt")):
        return ""
    done = result["epochs"] >= cfg.epochs or (cfg.max_steps is not None and result["steps"] >= cfg.max_steps)
    done = done or (cfg.until is not None and result["stopped"] == f"until={cfg.until:g}")
    return f"{result['stopped']}, but its checkpoints are gone" if done else ""


def net_and_data_name(cfg: TrainConfig) -> str:
    """`resnet20-cifar10`; folders and lists of the user's own are told apart by their names."""
    return slug([f"{cfg.model['name']}-{data_name(cfg.data.name, cfg.data.root, cfg.data.file)}"])


def readable(error: BaseException, log: Log) -> BaseException:
    """Error to show: a mistake, a machine that is too small or a fault, in plain words in place of torch's or Python's.
    The log keeps the whole traceback."""
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


def check_training(cfg: TrainConfig) -> None:
    """Raise UserError for settings that the schema cannot refuse."""
    cfg.model, cfg.data = own_nets.identified(cfg.model), own_sources.identified(cfg.data)
    if cfg.model and not isinstance(cfg.model.get("name"), str):
        raise UserError("model.name has no value: give the name of a net, as in model=resnet20")
    if isinstance(cfg.batch_size, str) and cfg.batch_size != "auto":
        raise UserError(f"batch_size={cfg.batch_size}: give a whole number or auto")
    if isinstance(cfg.batch_size, int) and cfg.accumulate > cfg.batch_size:
        raise UserError(f"accumulate={cfg.accumulate} is more than the {plural(cfg.batch_size, 'image')} of a batch")
    if cfg.ema and cfg.swa is not None:
        raise UserError("ema and swa both average the weights: give one of them")
    loggers.check(cfg.tracking)
    if cfg.optim.nesterov and cfg.optim.momentum == 0:
        raise UserError("optim.nesterov=true needs optim.momentum above 0")
    if cfg.max_time:
        parse_duration("max_time", cfg.max_time)
    interval(cfg.checkpoint.every)
