"""Runs from the command line: what one said, what it left behind, and whether two are the same."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.runs import tracker
from cnnbench.training import callbacks, result
from cnnbench.weights import checkpoint

SMALL = ("data.image_size=8", "data.fraction=0.2", "precision=fp32", "device=cpu", "batch_size=50")


@dataclass
class Ran:
    code: int
    out: str
    err: str


def without_pictures(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """For short runs that are about something else: the pictures take longer than all the rest."""
    for owner, name in ((result, "draw_curves"), (result, "draw_validation"), (callbacks.Pictures, "on_epoch")):
        replace(owner, name, lambda *args: None)


def coarse_pictures(replace: Callable[[Any, str, Any], None]) -> None:
    """All that is drawn, in a fifth of the pixels and without a layout: a fifth of a test's time went into these."""
    from cnnbench.output import figure

    draw = figure.as_png

    def as_png(drawn: Any) -> bytes:
        drawn.set_layout_engine("none")
        drawn.set_dpi(24)
        return draw(drawn)

    replace(figure, "as_png", as_png)


def without_evaluations_pictures(replace: Callable[[Any, str, Any], None]) -> None:
    """Those of an evaluation of a classifier; its tables are written all the same."""
    from cnnbench.tasks.classification import mistakes, plots  # matplotlib takes its time, and few processes need it

    for owner, name in ((mistakes, "draw_cards"), (plots, "plot_confusion_matrix"), (plots, "plot_calibration"),
                        (plots, "plot_coverage")):  # fmt: skip
        replace(owner, name, lambda *args: None)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in lines]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path / "checkpoints" / "last.pt")["model"]


def assert_same_run(first: Path, second: Path) -> None:
    """Bit for bit: weights and metrics."""
    assert without_time(rows(first)) == without_time(rows(second))
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """The signal arrives while the given step is at work."""
    after_step = tracker.Tracker.after_step

    def stop(self: tracker.Tracker, done: int, *args: Any) -> None:
        after_step(self, done, *args)
        if done == step:
            signal.raise_signal(number)  # to this very thread: it is noticed before the next step

    monkeypatch.setattr(tracker.Tracker, "after_step", stop)
