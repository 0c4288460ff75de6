"""Loggers of a run beside metrics.jsonl and TensorBoard: one file each, imported where it was chosen.

`loggers.json` in the run directory holds what a resumed run must know of them: the id that the run has there, and the
step of the last row that was logged.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cnnbench.config.sections import TrackingConfig
from cnnbench.runs.loggers.base import About, Logger
from cnnbench.utils.console import reason, warn_if_unwritable
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json, write_json

LOGGERS = {"csv": "csv_file", "mlflow": "mlflow_run", "wandb": "wandb_run"}  # tracking= -> module, with `create`
PACKAGES = ("mlflow", "wandb")  # that are extras, named as their loggers
FILE = "loggers.json"


def chosen(cfg: TrackingConfig) -> list[str]:
    return [name for name in LOGGERS if getattr(cfg, name)]


def plots(cfg: TrackingConfig) -> bool:
    """Whether TensorBoard's events are written."""
    return not chosen(cfg) if cfg.tensorboard is None else cfg.tensorboard


def check(cfg: TrackingConfig) -> None:
    """Raise UserError where a logger is not installed, or pictures have nowhere to go."""
    for name in chosen(cfg):
        spec = find_spec(name) if name in PACKAGES else None
        if name in PACKAGES and (spec is None or spec.origin is None):  # without an origin: a folder of this name
            raise UserError(f"tracking={name} needs {name}: pip install 'cnnbench[{name}]'")
    if cfg.images and not plots(cfg):
        raise UserError("tracking.images=true draws for TensorBoard: choose it too, as in tracking=[tensorboard,csv]")


def create(cfg: TrackingConfig, about: About) -> list[Logger]:
    """The loggers that were chosen, ready to write. UserError where one cannot."""
    known, made = read_json(about.path / FILE), list[Logger]()
    for name in chosen(cfg):
        try:
            module = import_module(f"{__name__}.{LOGGERS[name]}")
            made.append(module.create(about, known.get(name, {})))
        except Exception as error:
            for logger in made:
                logger.end("failed")
            raise UserError(f"tracking={name} cannot write: {reason(error)}") from None
    return made


def remember(path: Path, loggers: Iterable[Logger]) -> None:
    """Write down the ids of the loggers that have one; those of loggers that are not chosen now stay."""
    known = {logger.name: {"id": logger.id, "step": logger.step} for logger in loggers if logger.id}
    if known:
        with warn_if_unwritable(FILE):
            write_json(path / FILE, {**read_json(path / FILE), **known})
