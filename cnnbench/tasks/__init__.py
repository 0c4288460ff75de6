"""Tasks: what nets are trained for. `data=` brings its task; everything else asks the task."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cnnbench.tasks.classification import USUAL
from cnnbench.tasks.metric import Metric, from_data
from cnnbench.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from cnnbench.config.commands import TrainConfig
    from cnnbench.data import Dataset
    from cnnbench.tasks.base import Task

TASKS = {  # modules; each has its task as TASK
    "classification": "cnnbench.tasks.classification.task",
    "segmentation": "cnnbench.tasks.segmentation.task",
    "super_resolution": "cnnbench.tasks.super_resolution.task",
    "colorization": "cnnbench.tasks.colorization.task",
    "verification": "cnnbench.tasks.verification.task",
    "detection": "cnnbench.tasks.detection.task",
}
ANSWERS = "answers.csv"  # what a net answered to each image, beside result.json
DEFAULT_TASK = "classification"
DEFAULT_METRICS = USUAL  # of runs that do not name theirs: all tasks but classification came later


def metrics_of(content: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Metrics of a run by its result.json or status.json, the primary one first."""
    return from_data(content.get("metrics")) or DEFAULT_METRICS


def adopt(dataset: "Dataset", task: str | None, model: Mapping[str, Any]) -> "Dataset":
    """Data set for this task, by default its own, and this net. UserError where they do not go together.

    model: name and arguments of the net; empty where there is none.
    """
    chosen = find(task or dataset.task)
    adopted = chosen.adopt(dataset, model)
    if model:
        from cnnbench import models  # only here: reports read metrics without torch

        models.check_answers(model, chosen.answers, chosen.name)
    return adopted


def complete(cfg: "TrainConfig", dataset: "Dataset") -> "Dataset":
    """Data set for the task and the net of a training. `cfg.model` is then the net that the task builds."""
    if cfg.model:
        cfg.model = find(cfg.task or dataset.task).net_for(cfg, cfg.model)
    return adopt(dataset, cfg.task, cfg.model)


OWN_KEYS = ("judge", "temperature", "score")  # of `evaluate` and `predict`, each of which some tasks take


def own_keys(cfg: Any, task: "Task") -> dict[str, Any]:
    """Values of the keys that this task takes and others do not. UserError for one that it does not take."""
    given = {key: getattr(cfg, key) for key in OWN_KEYS if hasattr(cfg, key)}
    for key, value in given.items():
        if value is not None and key not in task.own_keys:
            raise UserError(f"{key}={value}: {task.name} takes no {key}")
    return {key: value for key, value in given.items() if key in task.own_keys}


def find(name: str) -> "type[Task]":
    """Task class of this name. UserError with the names there are."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    found: type[Task] = import_module(TASKS[name]).TASK
    return found
