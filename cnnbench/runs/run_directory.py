"""Run directories: where a run lives, who may write there, and what it says of itself.

The directory follows from the command line alone, never from the clock, so the same command finds its run again: it is
continued where it was cut, and left alone where it is done. A lock held by the living process keeps a second one out.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from cnnbench.config.arguments import QUOTED, in_quotes, unquoted, without_plus
from cnnbench.config.parsing import as_typed, flatten, to_plain, with_defaults
from cnnbench.config.sections import RunConfig
from cnnbench.utils import files, plain_yaml
from cnnbench.utils.console import warn_if_unwritable
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json, write_json, write_text
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.text import shortened, slug

# What may change between two starts of one run: where and how it runs, and when it stops, but not what it computes.
FREE_SECTIONS = ("run", "sweep", "hydra", "checkpoint", "tracking")
FREE_KEYS = ("format", "device", "devices", "ddp.bucket_mb", "resume", "lr_find", "max_time", "patience", "until",
             "compile",
             "model.file", "data.root", "data.download", "data.workers", "data.cache", "data.nested")  # fmt: skip


# What a run leaves in its directory: where there is nothing else, a missing config.yaml means a crash or a lost file.
OURS = re.compile(r"\.lock|\..+\.tmp|status\.json|log\.txt|overrides|metrics\.jsonl|result\.json|checkpoints"
                  r"|answers\.csv|metrics\.csv|loggers\.json|wandb|bad_batch\.txt|events\.out\.tfevents\..+"
                  r"|lr_find\.(json|png)"
                  r"|(curves|train_batch|val_predictions|confusion_matrix)\.png")  # fmt: skip

SWEEP = re.compile(r"^[^\[{]*,|^(choice|range|interval|glob)\(")  # the values that Hydra sweeps over


LONGEST_NAME = 50  # characters of a run's or a sweep's name; config.yaml and overrides say the rest
NAMED = ("model", "model.name", "data", "data.name", "data.file", "weights")  # in the name of a run anyway


def is_free(key: str) -> bool:
    return key in FREE_KEYS or re.split("[./]", key)[0] in FREE_SECTIONS


def named(overrides: Iterable[str], swept: Iterable[str] = ()) -> list[str]:
    """The overrides that tell one run from another: in a sweep all that it runs over."""
    last = {override.partition("=")[0].lstrip("+~"): without_plus(override) for override in overrides}
    return [text for key, text in last.items() if key in (*swept, "lr_find") or not (is_free(key) or key in NAMED)]


def path_for(command: str, cfg: Any, base: str) -> Path:
    """Path of this run: `run.dir`, or a name from its base (`resnet20-cifar10`) and its overrides."""
    run: RunConfig = cfg.run
    if run.dir is not None:
        return typed_path(run.dir)
    parent = typed_path(cfg.sweep.dir) if cfg.sweep.dir else typed_path(run.root) / command
    return (
        parent / run.name
        if run.name
        else named_path(parent, base, named(run.overrides, cfg.sweep.keys), cfg.sweep.keys)
    )


def named_path(parent: Path, base: str, overrides: list[str], first: Iterable[str] = ()) -> Path:
    """Path of a run whose name says these overrides, those of the keys `first` before others and an experiment's
    before these, as far as there is room. The order in which they were typed does not matter.

    Earlier versions had no such limit: a directory of theirs is found again.
    """
    whole = "-".join(filter(None, [base, slug(overrides)]))
    if len(whole) <= LONGEST_NAME or (parent / whole).is_dir():
        return parent / whole
    keys = sorted({*first}, key=lambda key: (key != "experiment", key))
    ahead = [text for key in keys for text in overrides if text.partition("=")[0] == key]
    rest = (text for text in overrides if text not in ahead)
    told = "-".join(filter(None, [base, *(slug([text]) for text in ahead), slug(rest)]))
    return parent / shortened(told, LONGEST_NAME, whole)


def sweep_overrides(command: str, args: list[str], more: list[str]) -> list[str]:
    """Overrides for the sweep's keys and its directory. Both follow from its command, which so finds its jobs again.

    `more` is what an experiment's file sweeps over: with it the jobs are told apart, while its name names the sweep.
    """
    settings = dict(arg.partition("=")[::2] for arg in args if "=" in arg and not arg.startswith("-"))
    swept = [key for key, value in settings.items() if SWEEP.search(re.sub(QUOTED, "", value))]
    keys = [*swept, *(override.partition("=")[0] for override in more)]
    more = [*more, f"sweep.keys=[{','.join(keys)}]"]
    if "sweep.dir" not in settings:
        names = named((f"{key}={value}" for key, value in settings.items()), [*swept, "model", "data"])
        root = typed_path(unquoted(settings.get("run.root", "outputs")))
        more.append(f"sweep.dir={in_quotes(str(named_path(root / command, 'sweep', names, ['experiment', *keys])))}")
    return more


def unwritable(path: Path, error: OSError) -> UserError:
    reason = "it is a file; give another run.dir" if path.is_file() else error.strerror
    return UserError(f"cannot write to {path}: {reason}")


def make_for_results(path: Path) -> None:
    """Make a directory for results alone. UserError where it cannot be made, or is that of a training."""
    if (path / "config.yaml").exists():
        raise UserError(f"{path} holds a training: give another run.dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


class RunDirectory:
    """A directory that this process alone writes to, from `claim()` to `release()` or the end of the process."""

    def __init__(self, path: Path, lock: IO[str], *, made: bool, config_known: bool) -> None:
        self.path, self._lock, self.made = path, lock, made
        self.about: dict[str, Any] = {}  # more for status.json: what the numbers of the run are
        self.config_known = config_known  # False where config.yaml is lost: what a checkpoint says is to be compared

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    def set_status(self, status: str, reason: str = "") -> None:
        """running | done | failed | interrupted | preempted, and why."""
        with warn_if_unwritable("status.json"):
            write_json(
                self.path / "status.json", {"status": status, "reason": reason, "pid": os.getpid(), **self.about}
            )

    def release(self) -> None:
        self._lock.close()

    def record(self, cfg: Any) -> None:
        """Write down what runs here, once it is known to fit. UserError where nothing can be written."""
        cfg.run.dir = str(self.path)
        try:
            write_text(self.path / "config.yaml", yaml.safe_dump(to_plain(cfg), sort_keys=False))
            write_text(self.path / "overrides", "".join(f"{override}\n" for override in cfg.run.overrides))
        except OSError as error:
            raise unwritable(self.path, error) from None

    def discard(self) -> None:
        """Remove a directory that this process made and that holds no checkpoint yet: a mistake leaves nothing."""
        if self.made and not self.last.exists():
            shutil.rmtree(self.path, ignore_errors=True)


class Followed(RunDirectory):
    """Run directory on ranks other than 0, which do not write."""

    def __init__(self, path: Path, *, config_known: bool) -> None:
        self.path, self.made, self.config_known, self.about = path, False, config_known, {}

    def set_status(self, status: str, reason: str = "") -> None:
        pass

    def release(self) -> None:
        pass

    def record(self, cfg: Any) -> None:
        cfg.run.dir = str(self.path)


def claim(path: Path, cfg: Any, resume: str) -> RunDirectory:
    """Take the directory for this run: a new one, or one that holds a run of the same configuration.

    Raises UserError where another process is writing, where the configuration differs (unless resume is "force"), and
    where the directory holds something else than a run. With resume "never" a fresh directory beside it is taken.
    """
    if resume == "never" and (path / "config.yaml").exists():
        if cfg.run.dir is not None:
            raise UserError(f"{path} holds a run, and resume=never would start over: give another run.dir")
        path = next(p for n in range(2, 10**6) if not (p := path.with_name(f"{path.name}-{n}")).exists())
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        known = (path / "config.yaml").exists()
        if not known and not all(OURS.fullmatch(entry.name) for entry in path.iterdir()):
            raise UserError(f"{path} holds files that are no run of cnnbench: give another run.dir")
        lock = _lock(path)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        if known and resume != "force":
            known = _compare_config(path, cfg)
    except BaseException:
        lock.close()
        raise
    for folder in (path, path / "checkpoints"):
        files.remove_leftovers(folder)
    return RunDirectory(path, lock, made=made, config_known=known or resume == "force")


def clear_debug(path: Path) -> None:
    """Remove what an earlier run with debug= left: such a run is begun anew each time. Other runs are left alone."""
    try:
        saved = plain_yaml.load(path / "config.yaml")
    except (OSError, plain_yaml.NotPlainError):
        return
    if isinstance(saved, dict) and saved.get("debug"):
        with _lock(path):
            shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> IO[str]:
    if lock := files.try_lock(path / ".lock"):
        return lock
    pid = read_json(path / "status.json").get("pid")
    raise UserError(f"another process ({pid}) is running {path}; resume=never starts a second run beside it")


@contextmanager
def at_rest(file: Path) -> Iterator[None]:
    """Keep a run from training on while one of its checkpoints is changed. UserError where a process trains there."""
    run = file.parent.parent
    if file.parent.name != "checkpoints" or not (run / ".lock").exists():
        yield
        return
    lock = files.try_lock(run / ".lock")
    if lock is None:
        raise UserError(f"another process is training {run}: wait until it is done")
    with lock:
        yield


def is_held(path: Path) -> bool:
    """Whether a living process writes there."""
    try:
        with open(path / ".lock", opener=files.without_waiting) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _compare_config(path: Path, cfg: Any) -> bool:
    """Refuse another configuration than that of config.yaml. False where it cannot be read, but there are checkpoints
    that know it too."""
    try:
        saved = plain_yaml.load(path / "config.yaml")
        refuse_other_config(path, saved, cfg)
    except (plain_yaml.NotPlainError, AttributeError):
        if not any((path / "checkpoints").glob("*.pt")):
            raise UserError(
                f"{path / 'config.yaml'} is damaged: give another run.dir, or resume=force to go on"
            ) from None
        return False
    return True


def refuse_other_config(path: Path, saved: dict[str, Any], cfg: Any) -> None:
    """UserError with the differences where a run was made with other settings than those asked for."""
    wanted, saved = flatten(to_plain(cfg)), with_defaults(saved, type(cfg))
    different = [
        f"{key}: {_or_not_set(saved.get(key))} there, {_or_not_set(wanted.get(key))} here"
        for key in sorted({*saved, *wanted})
        if saved.get(key) != wanted.get(key) and not is_free(key)
    ]
    if saved.get("model.sha256") != wanted.get("model.sha256") and len(different) == 1:
        raise UserError(
            f"{path} was trained with {saved.get('model.file')} as it was then, and it has changed since:\n"
            "put it back, choose another run.dir or run.name, resume=never for a new run, or resume=force to go on"
        )
    if different:
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise UserError(
            f"{path} holds a run of another configuration ({'; '.join(different[:4])}{more})\n"
            "choose another run.dir or run.name, resume=never for a new run, or resume=force to go on with the changes"
        )


def _or_not_set(value: Any) -> str:
    return "not set" if value is None else as_typed(value)
