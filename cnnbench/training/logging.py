"""Callback for the loggers that `tracking=` chose."""

from collections.abc import Callable, Iterable
from typing import Any

from cnnbench.runs import loggers
from cnnbench.runs.loggers.base import About, Logger, Row
from cnnbench.training.callbacks import Callback, EpochResult, View
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.utils.console import reason, warn
from cnnbench.utils.files import read_json


class Logging(Callback):
    """Hands the rows and the result of a training to its loggers. One that fails is left, with a warning."""

    def __init__(self, made: list[Logger]) -> None:
        self.loggers, self.status = made, "failed"

    def on_start(self, view: View) -> None:
        """Log what a run that goes on has behind it, where a logger does not know it yet."""
        self._each(view, lambda logger: _rows(logger, [row for row in view.state.rows if row["step"] > logger.step]))

    def on_epoch(self, view: View, epoch: EpochResult) -> None:
        self._each(view, lambda logger: _rows(logger, [epoch.row]))

    def on_end(self, view: View) -> None:
        self.status = "done" if view.is_finished else "pruned" if view.state.progress.pruned else "stopped"
        if view.is_finished:
            found = read_json(view.parts.directory.path / "result.json")
            self._each(view, lambda logger: logger.result(found))

    def close(self) -> None:
        self._guarded(lambda logger: logger.end(self.status))

    def _each(self, view: View, do: Callable[[Logger], Any]) -> None:
        self._guarded(do)
        loggers.remember(view.parts.directory.path, self.loggers)

    def _guarded(self, do: Callable[[Logger], Any]) -> None:
        for logger in [*self.loggers]:
            try:
                do(logger)
            except Exception as error:
                self.loggers.remove(logger)
                warn(f"tracking={logger.name}: {reason(error)}; the run goes on without it")


def _rows(logger: Logger, rows: Iterable[Row]) -> None:
    for row in rows:
        logger.row(row)
        logger.step = int(row["step"])


def create_logging(parts: Parts, state: TrainState) -> Logging:
    """Callback with the loggers of this run. Rank 0 alone has any. UserError where one cannot write."""
    made: list[Logger] = []
    about = About(parts.directory.path, parts.plain_config, state.rows)
    parts.runtime.group.broadcast(lambda: made.extend(loggers.create(parts.cfg.tracking, about)))
    return Logging(made)
