"""The commands as Python functions: `cnnbench.train(model="resnet20", data="cifar10", epochs=5)`.

They are the command line in this process: the same settings, checks, files and progress. What a command would print as
a mistake is raised, as a UserError. Settings with a dot have two underscores (`optim__lr=0.1`), or are typed as on the
command line: `cnnbench.train("optim.lr=0.1", epochs=5)`.
"""

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbench.cli.main import compose_and_run
from cnnbench.config.arguments import in_quotes
from cnnbench.output import html
from cnnbench.tasks import metric
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.exit_codes import DONE, INTERRUPTED, PREEMPTED
from cnnbench.utils.format import plural


@dataclass(frozen=True, repr=False)
class Result:
    """What a command found. `result["top1_error"]` is a value of `found`; a notebook shows metrics and pictures."""

    command: str
    found: Any  # what `format=json` prints: a dict, or a list of dicts

    def __getitem__(self, key: Any) -> Any:
        return self.found[key]

    def __len__(self) -> int:
        return len(self.found)

    @property
    def metrics(self) -> dict[str, float]:
        """Value of each of the task's metrics by its name, in the task's units; empty where a command measures none."""
        return {one.name: self.found[one.name] for one in self._named() if self.found.get(one.name) is not None}

    @property
    def directory(self) -> Path | None:
        """The run directory, where there is one. `weights=result` in a later call means this directory."""
        return Path(self.found["run_dir"]) if isinstance(self.found, dict) and "run_dir" in self.found else None

    @property
    def pictures(self) -> list[Path]:
        """PNG files that the command drew."""
        if isinstance(self.found, list):
            files = [
                Path(row["file"]) for row in self.found if isinstance(row, dict) and "what" in row and "file" in row
            ]
            return [file for file in files if file.suffix == ".png"]
        return sorted(self.directory.glob("*.png")) if self.directory else []

    def _named(self) -> tuple[metric.Metric, ...]:
        return metric.from_data(self.found.get("metrics")) if isinstance(self.found, dict) else ()

    def __repr__(self) -> str:
        told = ", ".join(one.text(self.found[one.name]) for one in self._named() if one.name in self.metrics)
        where = f" -> {self.directory}" if self.directory else ""
        return f"<{self.command}: {told or plural(len(self._rows()), 'row')}{where}>"

    def _rows(self) -> list[dict[str, Any]]:
        """What a table shows: the metrics, the groups of runs of a report, or the dicts of a list."""
        if isinstance(self.found, list):
            return self.found
        return self.found.get("groups") or [self.metrics]

    def _repr_html_(self) -> str:
        """For a notebook: a table and the pictures."""
        flat = [
            {key: value for key, value in row.items() if not isinstance(value, list | dict | None)}
            for row in self._rows()
        ]
        shown = [html.picture(file.read_bytes(), file.stem, file.stem) for file in self.pictures]
        return (html.table(flat, sorts=False) if any(flat) else "") + "".join(shown)


def train(*settings: str, **options: Any) -> Result:
    """Result of a training; see `cnnbench train --help` for the settings. UserError for a mistake."""
    return call("train", settings, options)


def finetune(*settings: str, **options: Any) -> Result:
    """Result of a transfer to other images; see `cnnbench finetune --help`. UserError for a mistake."""
    return call("finetune", settings, options)


def evaluate(*settings: str, **options: Any) -> Result:
    """Measured errors of trained weights; see `cnnbench evaluate --help`. UserError for a mistake."""
    return call("evaluate", settings, options)


def predict(*settings: str, **options: Any) -> Result:
    """Answers for files, a row each: `predict("a.jpg", "photos/", weights=run)`. `cnnbench.load` takes tensors too."""
    return call("predict", settings, options)


def visualize(*settings: str, **options: Any) -> Result:
    """Pictures of what a net has learned, a row each; see `cnnbench visualize --help`. UserError for a mistake."""
    return call("visualize", settings, options)


def report(*settings: str, **options: Any) -> Result:
    """Runs side by side: `report("outputs")`; see `cnnbench report --help`. UserError for a mistake."""
    return call("report", settings, options)


def sweep(command: str, *settings: str, **options: Any) -> Result:
    """Rows, one for each job of a sweep over the settings that are lists: `sweep("train", model=["vgg11", "nin"])`."""
    return call(command, ("-m", *settings), options)


def call(command: str, settings: tuple[str, ...], options: dict[str, Any]) -> Result:
    """Result of a command with settings as they are typed, and with options by name."""
    is_sweep = "-m" in settings
    typed = [f"{key.replace('__', '.')}={as_typed(value, is_sweep)}" for key, value in options.items()]
    if any(part.startswith(("format=", "--")) for part in (*settings, *typed)):
        raise UserError("from Python a result is returned: format= and options with dashes are for the command line")
    if any(part.startswith("devices=") and part != "devices=1" for part in (*settings, *typed)):
        raise UserError("from Python a command runs in this process: devices= is for the command line")
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = compose_and_run(command, [*settings, *typed, "format=json"])
    if code in (INTERRUPTED, PREEMPTED):
        raise KeyboardInterrupt
    if code != DONE and not printed.getvalue():
        raise RunError(f"{command} ended with exit code {code}")
    return Result(command, json.loads(printed.getvalue() or "{}"))


def as_typed(value: Any, is_sweep: bool = False) -> str:
    """The value as it is typed: `true`, `null`, `[a,b]`; in a sweep a list is what it runs over, `a,b`."""
    if isinstance(value, Result):
        value = value.directory
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        parts = [
            as_typed(part) if is_sweep or not isinstance(part, str | Path) else in_quotes(str(part)) for part in value
        ]
        return ",".join(parts) if is_sweep else f"[{','.join(parts)}]"
    return str(value)
