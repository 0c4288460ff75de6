"""Callbacks of a training: checkpoints, tracking, pictures, warnings, pruning.

A command registers callbacks; the loop calls them in their order and knows nothing else of them. The order matters at
the end of an epoch: a search may prune, then the checkpoint is saved and kept as the best, then the epoch is told.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from cnnbench import data
from cnnbench.data import Batch
from cnnbench.output.figure import pictures_of
from cnnbench.output.tensorboard import Events
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.runs.tracker import Tracker, epoch_text, metrics_text
from cnnbench.training import compile_cost, health, result, resume
from cnnbench.training.limits import StopRule
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.utils.errors import RunError
from cnnbench.utils.format import plural
from cnnbench.utils.terminal import width_of
from cnnbench.weights.checkpoint_manager import CheckpointManager

REDRAW = 60.0  # seconds between two drawings of the curves


@dataclass(frozen=True)
class View:
    """A training as callbacks see it."""

    parts: Parts
    state: TrainState
    rule: StopRule
    stop: StopRequests
    events: Events | None  # TensorBoard's, of the process that writes

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end, and was neither asked to stop nor pruned."""
        return self.stop.agreed is None and not self.state.progress.pruned

    @property
    def epoch_is_whole(self) -> bool:
        return self.state.progress.batch == len(self.parts.train_batches)

    def stop_reason(self) -> str:
        """Why no further step is to be done; empty while there is one."""
        return self.rule.reason(self.state.progress, self.state.step, self.state.rows)

    def seconds_left(self) -> float:
        """Seconds until the last epoch or the first limit, at the pace so far."""
        state, cfg = self.state, self.parts.cfg
        steps = len(self.parts.train_batches) * cfg.epochs
        pace = state.progress.seconds / max(state.step, 1)
        steps_left = min(steps, cfg.max_steps or steps) - state.step
        return max(0.0, min(steps_left * pace, self.rule.seconds - state.progress.seconds))


@dataclass(frozen=True)
class EpochResult:
    """An epoch that was validated: its number, its row, the metrics, and whether it is the best so far."""

    number: int
    row: dict[str, Any]
    train: dict[str, float]
    val: dict[str, float]
    is_best: bool


class Callback:
    """Base of callbacks: it has every hook, and each does nothing."""

    def on_start(self, view: View) -> None:
        """Before the first step, or the first after a resume."""

    def on_batches(self, view: View, batches: Iterable[Batch]) -> Iterable[Batch]:
        """The batches of an epoch on their way to the loop, which must get the same ones."""
        return batches

    def on_step(self, view: View) -> None:
        """After an optimizer step."""

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        """After the validation of an epoch; `view.state` is ready for the next one."""

    def on_end(self, view: View) -> None:
        """After the last validation, or where the training was asked to stop."""

    def result(self) -> dict[str, Any]:
        """Keys that the callback adds to result.json."""
        return {}

    def close(self) -> None:
        """Give back what the callback holds, also after an error."""


class Pruning(Callback):
    """Ends a training that a search finds hopeless. judge: row of an epoch -> the reason, or nothing; None: no search
    looks on."""

    def __init__(self, judge: Callable[[dict[str, Any]], str] | None) -> None:
        self.judge = judge

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        if self.judge is not None and not view.stop_reason():
            reason = view.parts.runtime.group.broadcast(partial(self.judge, epoch.row))
            view.state.progress.pruned = reason


class Warnings(Callback):
    """Says once what goes wrong in silence, and ends a training that stands still."""

    def on_start(self, view: View) -> None:
        self.accumulate = view.state.accumulate

    def on_step(self, view: View) -> None:
        state, parts = view.state, view.parts
        if state.accumulate > self.accumulate:
            state.warn("memory", health.smaller_parts(state.accumulate, parts.batch_size, state.model))
        if state.step % parts.runtime.sync_interval == 0:
            check_steps(view)

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        state, spec = view.state, view.parts.spec
        state.warn("divergence", health.divergence(state.rows, view.parts.task.guessing_loss(spec)))
        if skipped := state.guard.look().skipped:
            text = f"epoch {epoch.number}: {plural(skipped, 'step')} skipped: the loss or the gradient was not finite"
            state.warn("skipped", text)


def check_steps(view: View, bearable: int = health.IN_A_ROW - 1) -> None:
    """Warn of a dead net. RunError after more skipped steps in a row than bearable."""
    state, parts = view.state, view.parts
    counts = state.guard.look()
    if counts.in_a_row > bearable:
        epoch, number = divmod(counts.first, len(parts.train_batches))
        images = data.image_names(parts.dataset.train, parts.train_batches.order.batches(epoch)[number])
        raise RunError(health.stopped_by(counts, epoch + 1, number + 1, state.lr, images, parts.directory.path))
    if counts.still >= health.IN_A_ROW:
        state.warn("still", f"the gradient has been exactly zero for {counts.still} steps: the net is dead")


class Checkpoints(Callback):
    """Saves in mid-epoch when one is due, after each epoch, and where the training ends. Rank 0 alone writes."""

    def __init__(self, manager: CheckpointManager) -> None:
        self.manager = manager

    def save(self, view: View, *, must: bool = False) -> None:
        """must: the run ends here, so that a checkpoint which cannot be written is an error."""
        if self.manager.writes:
            self.manager.save(resume.checkpoint_of(view.parts, view.state), must=must)

    def on_step(self, view: View) -> None:
        if self.manager.due(view.state.step) and not view.state.guard.look().in_a_row:
            self.save(view)

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        self.save(view, must=bool(view.stop_reason()))
        if view.state.progress.best_epoch == epoch.number:
            self.manager.keep_best()

    def on_end(self, view: View) -> None:
        if view.stop.agreed is not None:  # between two steps, so that the same command goes on from here
            self.save(view, must=True)


class Tracking(Callback):
    """Progress on the terminal, TensorBoard and metrics.jsonl, from start to close."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_batches(self, view: View, batches: Iterable[Batch]) -> Iterable[Batch]:
        progress, cfg = view.state.progress, view.parts.cfg
        self.tracker.begin_epoch(progress.epoch + 1, cfg.epochs, len(view.parts.train_batches), progress.batch)
        return batches

    def on_step(self, view: View) -> None:
        state = view.state
        self.tracker.after_step(state.step, state.meter, state.images_per_second, state.lr)

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        task, cfg, speed = view.parts.task, view.parts.cfg, view.state.images_per_second
        if cfg.epochs:
            text = epoch_text(task, epoch.number, cfg.epochs, epoch.train, epoch.val, speed, view.seconds_left(),
                              width_of(view.parts.stream))  # fmt: skip
        else:
            text = f"fitted  train {metrics_text(task, epoch.train)}  val {metrics_text(task, epoch.val)}"
        self.tracker.end_epoch(epoch.row, text)

    def on_end(self, view: View) -> None:
        self.tracker.close_bar()
        if view.is_finished:
            tags = [f"{name}/val" for name in (*(metric.name for metric in view.parts.task.metrics), "loss")]
            last = view.state.rows[-1]
            self.tracker.hparams(result.compared_settings(view.parts), {tag: last[tag] for tag in tags if tag in last})

    def close(self) -> None:
        self.tracker.close()


class Pictures(Callback):
    """The first batch as the net saw it, and the curves, drawn anew now and then."""

    def __init__(self) -> None:
        self.first: Batch | None = None
        self.drawn = time.monotonic()

    def on_batches(self, view: View, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.first = self.first or batch
            yield batch

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        parts = view.parts
        picture = parts.directory.path / "train_batch.png"
        if self.first is not None and not parts.features and not picture.exists():
            with view.state.warn_if_undrawn(picture.name), pictures_of(result.title(parts)):
                parts.task.draw_batch(self.first, parts.dataset.classes, picture)
        if time.monotonic() - self.drawn > REDRAW:
            result.draw_curves(parts, view.state)
            self.drawn = time.monotonic()

    def on_end(self, view: View) -> None:
        result.draw_curves(view.parts, view.state)


class CompileCost(Callback):
    """Says once what torch.compile costs and gains here."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.cost: compile_cost.Cost | None = None

    def on_batches(self, view: View, batches: Iterable[Batch]) -> Iterable[Batch]:
        return compile_cost.watched(batches, view.state, self._told) if self.cost is None else batches

    def result(self) -> dict[str, Any]:
        return {"compile": self.cost.plain_dict()} if self.cost else {}

    def _told(self, cost: compile_cost.Cost) -> None:
        self.cost = cost
        self.tell(cost.text())
