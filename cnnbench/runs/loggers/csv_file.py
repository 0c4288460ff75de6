"""`tracking=csv`: the lines of metrics.jsonl as a table, metrics.csv."""

from typing import Any

from cnnbench.config.sections import Format
from cnnbench.output.tables import render
from cnnbench.runs.loggers.base import About, Logger, Row
from cnnbench.utils.files import write_text


class CsvFile(Logger):
    """Writes the whole table each time, so that a run that goes on has no line twice."""

    name = "csv"

    def __init__(self, about: About) -> None:
        self.about = about
        if about.rows:
            self.step = int(about.rows[-1]["step"])
            self.row(about.rows[-1])

    def row(self, row: Row) -> None:
        write_text(self.about.path / "metrics.csv", render(self.about.rows, Format.csv) + "\n")


def create(about: About, known: dict[str, Any]) -> CsvFile:
    return CsvFile(about)
