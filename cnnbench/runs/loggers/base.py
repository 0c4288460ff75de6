"""What a logger is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_PLOTTED = ("epoch", "step", "seconds")
Row = Mapping[str, Any]
"""A line of metrics.jsonl: `epoch`, `step` and metrics by name, as `loss/train`."""


@dataclass(frozen=True)
class About:
    """A run as loggers see it."""

    path: Path  # its directory
    config: dict[str, Any]  # its settings, nested
    rows: list[dict[str, float]]  # of all epochs that are done; each is added before it is logged

    @property
    def name(self) -> str:
        return self.path.absolute().name


class Logger:
    """Takes the rows of a run one by one, then its result. What it raises ends it, not the run."""

    name = ""
    id: str | None = None  # of the run where it is logged; None: nothing is to be known when the run goes on
    step = -1  # of the last row that was logged

    def row(self, row: Row) -> None:
        """Log an epoch."""

    def result(self, result: dict[str, Any]) -> None:
        """Log what stands in result.json."""

    def end(self, status: str) -> None:
        """Close. status: done, pruned, stopped (to be gone on with) or failed."""


def metrics(row: Row) -> dict[str, float]:
    """The metrics of a row, by the names that they have in TensorBoard."""
    return {tag: value for tag, value in row.items() if tag not in NOT_PLOTTED}


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a result by their names: `result/top1_error`."""
    return {f"result/{key}": value for key, value in result.items()
            if isinstance(value, int | float) and not isinstance(value, bool)}  # fmt: skip
