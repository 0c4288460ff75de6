"""A training with all that accompanies it, and its run directory left in order: done, pruned, or to be gone on with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnbench.output.tensorboard import Events
from cnnbench.runs import loggers
from cnnbench.runs.result import described
from cnnbench.runs.stop_requests import Stopped, StopRequests
from cnnbench.runs.tracker import Tracker
from cnnbench.tasks import ANSWERS
from cnnbench.training import result
from cnnbench.training.callbacks import (
    Callback,
    Checkpoints,
    CompileCost,
    Pictures,
    Tracking,
    View,
    Warnings,
)
from cnnbench.training.limits import StopRule
from cnnbench.training.logging import create_logging
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.training.trainer import fit, measure_last
from cnnbench.utils.console import say
from cnnbench.utils.errors import RunError
from cnnbench.utils.exit_codes import DONE, PREEMPTED
from cnnbench.utils.files import write_json
from cnnbench.weights.checkpoint_manager import CheckpointManager


def fit_and_conclude(
    parts: Parts, state: TrainState, rule: StopRule, manager: CheckpointManager, own: Sequence[Callback]
) -> int:
    """Train until the end, a limit, or a request to stop. own: the command's callbacks. Returns the exit code."""
    directory, stream = parts.directory, parts.stream
    directory.about = described(parts.task)
    directory.set_status("running")
    callbacks: list[Callback] = [*own, Warnings(), Checkpoints(manager)]
    logging = create_logging(parts, state)
    callbacks.append(logging)
    events: Events | None = None
    if parts.runtime.group.main:
        for name in ("result.json", ANSWERS):
            (directory.path / name).unlink(missing_ok=True)  # those of an earlier limit, if any
        plotted = loggers.plots(parts.cfg.tracking)
        tracker = Tracker(directory.path, state.rows, state.step, stream, parts.task, plotted=plotted)
        events = tracker.writer if plotted else None
        callbacks += [Tracking(tracker), *([Pictures()] if parts.cfg.tracking.pictures else [])]
        if parts.cfg.compile and not parts.features and not state.exchange:
            callbacks.append(CompileCost(lambda text: say(text, stream)))
    twice = "interrupted", "twice asked to stop"
    try:
        with StopRequests(lambda: directory.set_status(*twice), parts.runtime.group) as stop:
            return conclude(fit(parts, state, rule, callbacks, stop, events), callbacks)
    finally:
        for callback in callbacks:
            callback.close()


def conclude(view: View, callbacks: Sequence[Callback]) -> int:
    """Leave the run as it was asked to, or write down its result. Returns the exit code."""
    parts, state, directory = view.parts, view.state, view.parts.directory
    if view.stop.agreed is not None and (state.is_ahead or not state.rows or not view.stop_reason()):
        return leave(view, callbacks, f"epoch {state.progress.epoch + 1}, batch {state.progress.batch}")
    if state.progress.pruned:  # no result: it is not what these settings lead to
        end(view, callbacks)
        directory.set_status("pruned", state.progress.pruned)
        say(f"pruned: {state.progress.pruned} -> {directory.path}", parts.stream)
        return DONE
    try:
        measured = measure_last(view)
        by_views, kept = result.by_views(parts, state, view.stop, measured)
    except Stopped:
        return leave(view, callbacks, f"the validation by crop={parts.cfg.crop.name}")
    # All is measured: from here on a request to stop comes too late.
    final = replace(view, stop=StopRequests(group=parts.runtime.group))
    if not parts.runtime.group.main:
        return DONE
    found = result.headline(parts, state, measured, view.stop_reason()) | by_views
    for callback in callbacks:
        found |= callback.result()
    write_result(directory.path, found)
    result.write_answers(parts, state, kept)
    if parts.cfg.tracking.pictures:
        result.draw_validation(parts, state)
    end(final, callbacks)
    if found["warnings"] != (warnings := [*state.warnings.values()]):  # a picture that could not be drawn
        write_result(directory.path, {**found, "warnings": warnings})
    directory.set_status("done", view.stop_reason())
    return DONE


def write_result(path: Path, found: dict[str, Any]) -> None:
    try:
        write_json(path / "result.json", found)
    except OSError as error:
        raise RunError(f"cannot write result.json: {error.strerror}; the same command again does so") from None


def leave(view: View, callbacks: Sequence[Callback], where: str) -> int:
    """Save between two steps, so that the same command goes on from here. Returns the exit code."""
    assert view.stop.agreed is not None
    end(view, callbacks)
    name, path = "preempted" if view.stop.agreed == PREEMPTED else "interrupted", view.parts.directory.path
    view.parts.directory.set_status(name, f"asked to stop in {where}")
    say(f"{name} in {where}; saved. The same command goes on from there -> {path}", view.parts.stream)
    return view.stop.agreed


def end(view: View, callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback.on_end(view)
