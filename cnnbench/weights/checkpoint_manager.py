"""The checkpoints of one run: when they are saved, how many stay, and what happens when one is damaged or cannot be.

`last.pt` is the newest, `step-N.pt` are those before it, `best.pt` is that of the best epoch.
"""

import math
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.parsing import parse_duration
from cnnbench.config.sections import CheckpointConfig, OnError
from cnnbench.utils.console import warn
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.format import byte_size
from cnnbench.weights import checkpoint

BESIDES = 2  # checkpoints that lie there too: the best one, and the one that is being written


class CheckpointManager:
    """Loads and saves the checkpoints in a folder that this process alone writes to."""

    def __init__(self, folder: Path, cfg: CheckpointConfig, *, writes: bool = True) -> None:
        self.folder, self.cfg, self.writes = folder, cfg, writes  # writes: of several processes one does
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.every_steps, self.every_seconds = interval(cfg.every)
        self.saved_at = time.monotonic()
        self.newest: tuple[int, Path] | None = None  # the newest that is whole: its step and its file

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that is whole, if there is any, and what the user should know of the others.

        Raises UserError where there are some, but none is whole.
        """
        problems: list[str] = []
        candidates = [self.last, *self.earlier(), self.best]
        for path in candidates:
            try:
                content = checkpoint.load(path) if path.exists() else None
            except checkpoint.NewerFormatError:
                raise
            except UserError as error:
                problems.append(str(error))
                continue
            if content is not None:
                self.newest = int(content["step"]), path
                if path != self.last and not problems:
                    problems.append(f"{self.last} is gone")
                return content, [f"{text}; going on from {path.name}, step {content['step']}" for text in problems[-1:]]
        if problems:
            raise UserError(f"{problems[0]}\nno checkpoint before it is whole either: resume=never starts a new run")
        return None, []

    def earlier(self) -> list[Path]:
        """The checkpoints before the last one, newest first."""
        return sorted(self.folder.glob("step-*.pt"), key=_step_of, reverse=True)

    def due(self, step: int) -> bool:
        """Whether to save in the middle of an epoch, after this step. Never where another process writes."""
        overdue = time.monotonic() - self.saved_at >= self.every_seconds
        return self.writes and (step % self.every_steps == 0 or overdue)

    def save(self, payload: dict[str, Any], *, must: bool = False) -> None:
        """Make this the last checkpoint, and keep those before it as the configuration says.

        Where it cannot be written, the one before stays the last: with on_error=warn that is said and the training goes
        on, unless the run ends here (must). Else raises RunError.
        """
        self.saved_at = time.monotonic()
        if not self.writes:
            return
        try:
            self._keep_last(payload["step"])
            checkpoint.save(self.last, payload)
        except RunError as error:
            kept = self.newest if self.newest and self.newest[1].exists() else None
            text = f"{error}; " + (f"the last checkpoint is that of step {kept[0]}" if kept else "there is none")
            if must or self.cfg.on_error is OnError["raise"]:
                raise RunError(text) from None
            warn(f"{text}: training goes on without a new one, free some space")
            return
        self.newest = payload["step"], self.last
        self._forget(payload["step"])

    def _keep_last(self, step: int) -> None:
        """Keep the checkpoint before this one under its step. Where that is gone, the new one is saved still."""
        if self.newest and self.newest[1] == self.last and self.newest[0] != step and self.cfg.keep > 1:
            try:
                checkpoint.keep_as(self.last, self.folder / f"step-{self.newest[0]}.pt")
            except RunError:
                if self.last.exists():
                    raise

    def _forget(self, step: int) -> None:
        """Delete checkpoints beyond `keep`, and of later steps: these are done again after a checkpoint was damaged."""
        earlier = self.earlier()
        future = [path for path in earlier if _step_of(path) >= step]
        for path in [*future, *[path for path in earlier if path not in future][self.cfg.keep - 1 :]]:
            path.unlink(missing_ok=True)

    def keep_best(self) -> None:
        """The newest is the best so far."""
        if self.writes and self.newest and self.newest[1] != self.best:
            try:
                checkpoint.keep_as(self.newest[1], self.best)
            except RunError as error:
                warn(str(error))

    def check_space(self, size: int) -> str:
        """Sentence on the space that checkpoints take. UserError where not even one fits."""
        free, most = shutil.disk_usage(self.folder.parent).free, (self.cfg.keep + BESIDES) * size
        text = f"checkpoints: {byte_size(size)} each, up to {byte_size(most)} on the disk"
        if free < size and self.newest is None:
            raise UserError(
                f"no checkpoint could ever be saved in {self.folder.parent}: it takes {byte_size(size)}, "
                f"{byte_size(free)} are free"
            )
        return text if free > most else f"{text}\nwarning: only {byte_size(free)} are free there"


def interval(every: int | str | None) -> tuple[float, float]:
    """`checkpoint.every` as (steps, seconds), one of which is infinite: 500 or `10m`."""
    if every is None:
        return math.inf, math.inf
    if isinstance(every, int) or every.isdecimal():
        if int(every) < 1:
            raise UserError(f"checkpoint.every={every}: give at least one step")
        return int(every), math.inf
    try:
        return math.inf, parse_duration("checkpoint.every", every)
    except UserError:
        raise UserError(f"checkpoint.every={every}: give steps, as 500, or a time, as 10m") from None


def size_of(model: nn.Module, ema: nn.Module | None, optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a checkpoint takes, before the first step has made the optimizer's memory."""
    defaults = optimizer.defaults
    copies = 2 if {"betas", "epsilon"} & set(defaults) else 1 if defaults.get("momentum") else 0
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    averaged = _bytes(ema.state_dict().values()) if ema else 0
    return _bytes(model.state_dict().values()) + averaged + copies * _bytes(trained)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _step_of(path: Path) -> int:
    found = re.fullmatch(r"step-(\d+)\.pt", path.name)
    return int(found[1]) if found else -1
