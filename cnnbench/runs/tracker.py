"""Tracker of a run: progress on the terminal, TensorBoard, metrics.jsonl.

One vocabulary everywhere: the keys of a line of metrics.jsonl are the tags of TensorBoard.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard.summary import hparams as hparams_summary
from tqdm import tqdm

from cnnbench.output.tensorboard import Events, event_files
from cnnbench.runs.loggers.base import metrics
from cnnbench.tasks.base import Task
from cnnbench.tasks.meter import Meter
from cnnbench.utils.console import say, warn_if_undrawn, warn_if_unwritable
from cnnbench.utils.files import json_text, read_rows, write_text
from cnnbench.utils.format import clock, display_width, loss_text
from cnnbench.utils.text import printable

BATCH_EVERY = 50  # steps between two points of the training curve within an epoch
SHORT_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
REFRESH = 0.5  # seconds between two looks at the running metrics, each of which waits for the device


Values = Mapping[str, float]
"""Metrics by name, `loss` among them."""


def row(epoch: int, step: int, train: Values, val: Values, **more: float) -> dict[str, float]:
    """One epoch as a line of metrics.jsonl: each metric of training and validation, seconds of training so far."""
    measured = {
        f"{name}/{split}": values[name]
        for name in val
        for split, values in (("train", train), ("val", val))
        if name in values
    }
    return {"epoch": epoch, "step": step, **measured, **more}


class Tracker:
    """Terminal, TensorBoard and metrics.jsonl of one run, until `close()`.

    rows: what a resumed run has behind it. The files are brought in line with them: what was written about steps that
    are to be done again is dropped, what a crash left unwritten is added.
    plotted: whether TensorBoard's are written.
    """

    def __init__(
        self, path: Path, rows: list[dict[str, float]], step: int, stream: TextIO, task: Task, *, plotted: bool
    ) -> None:
        self.stream, self.task = stream, task
        self.file = path / "metrics.jsonl"
        self.rows = [*rows]
        self.whole = True  # what the file holds: these rows
        written = read_rows(self.file)
        self._rewrite()
        if not event_files(path):
            written = []
        dropped = [int(row["step"]) for row in written if row not in rows]
        self.writer = Events(path if plotted else None, purge_step=min([step + 1, *dropped]))
        for row in rows:
            if row not in written:
                self._plot(row)
        self.bar: tqdm | None = None
        self.seen = 0.0

    def begin_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        """A progress bar, where a person is looking."""
        if self.stream.isatty() and sys.stderr.isatty():
            self.bar = tqdm(total=batches, initial=done, desc=f"epoch {epoch}/{epochs}", unit="batch", leave=False,
                            dynamic_ncols=True, mininterval=0.1, bar_format=SHORT_BAR)  # fmt: skip

    def after_step(self, step: int, meter: Meter, images_per_second: float, lr: float) -> None:
        """Move the bar on; look at the metrics only now and then."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update()
            if now - self.seen >= REFRESH:
                self.seen = now
                fit_bar(self.bar, self.task, meter.compute(), images_per_second)
        if step % BATCH_EVERY == 0:
            self.writer.add_scalar("batch/loss", meter.mean_loss(), step)
            self.writer.add_scalar("batch/lr", lr, step)

    def end_epoch(self, row: dict[str, float], text: str) -> None:
        """Write the epoch's line everywhere."""
        self.close_bar()
        self.rows.append(row)
        self.whole = self.whole and self.file.exists()
        if self.whole:
            with suppress(OSError), self.file.open("a") as file:
                self.whole = False
                file.write(json_text(row, indent=None) + "\n")
                file.flush()
                self.whole = True
        if not self.whole:  # the file was deleted; or the disk was full, and a line that was cut must not stay
            self._rewrite()
        self._plot(row)
        say(text, self.stream)

    def _rewrite(self) -> None:
        self.whole = False
        with warn_if_unwritable(self.file.name):
            write_text(self.file, "".join(json_text(row, indent=None) + "\n" for row in self.rows))
            self.whole = True

    def _plot(self, row: dict[str, float]) -> None:
        for tag, value in metrics(row).items():
            self.writer.add_scalar(tag, value, int(row["step"]))
        self.writer.flush()

    def hparams(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """Settings beside metrics, whose names are tags of this run, in TensorBoard's HPARAMS tab."""
        plain = {key: value if isinstance(value, bool | int | float) else printable(str(value))
                 for key, value in settings.items()}  # fmt: skip
        with warn_if_undrawn("TensorBoard's table of settings"):
            for summary in hparams_summary(plain, metrics):
                self.writer.add_summary(summary)

    def close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close(self) -> None:
        self.close_bar()
        self.writer.close()


def fit_bar(bar: tqdm, task: Task, running: Values, images_per_second: float) -> None:
    """Give the bar as many numbers as the terminal has room for: tqdm would cut the last one."""
    loss, speed = metrics_text(task, running, 0), f"{images_per_second:,.0f} images/s"
    first, all_of_them = metrics_text(task, running, 1), metrics_text(task, running)
    forms = [(None, f"{all_of_them}, {speed}"), (None, f"{first}, {speed}"),
             (SHORT_BAR, f"{first}, {speed}"), (SHORT_BAR, first), (SHORT_BAR, loss), (SHORT_BAR, "")]  # fmt: skip
    about = bar.format_dict
    for bar.bar_format, bar.postfix in forms:
        text = tqdm.format_meter(**{**about, "ncols": None, "bar_format": bar.bar_format, "postfix": bar.postfix})
        if about["ncols"] is None or display_width(text) <= about["ncols"]:
            break
    bar.refresh()


def metrics_text(task: Task, values: Values, count: int | None = None) -> str:
    """Loss and metrics (or the first `count` of them) in a few words: `loss 0.123, top-1 err 4.20 %`."""
    own = [metric for metric in task.metrics if not metric.beside]
    measured = [metric.brief(values[metric.name]) for metric in own[:count] if metric.name in values]
    return ", ".join([f"loss {loss_text(values['loss'])}", *measured])


def epoch_text(
    task: Task, epoch: int, epochs: int, train: Values, val: Values, images_per_second: float, left: float,
    width: int | None = None,
) -> str:  # fmt: skip
    """One epoch in one line: losses, metrics, speed, and the time the rest will take; in a narrow terminal the most
    important of these."""
    speed, rest, primary = f"{images_per_second:,.0f} images/s", f"{clock(left)} left", task.primary
    short = [f"{name} {metrics_text(task, values, 1)}" for name, values in (("train", train), ("val", val))]
    loss, best = f"train {metrics_text(task, train, 0)}", f"val {primary.brief(val[primary.name])}"
    forms = ([f"train {metrics_text(task, train)}", f"val {metrics_text(task, val)}", speed, rest],
             [*short, speed, rest], [*short, rest], [loss, short[1], rest], [loss, best, rest],
             [loss, best], [best])  # fmt: skip
    lines = ["  ".join([f"epoch {epoch:{len(str(epochs))}}/{epochs}", *form]) for form in forms]
    return next((line for line in lines if width is None or display_width(line) <= width), lines[-1])
