"""The headline of a run, and what stands beside it so that the number has one meaning: size, machine, versions."""

import subprocess
import sys
from collections.abc import Collection
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cnnbench import __version__
from cnnbench.analysis.complexity import count_complexity
from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import Format
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.output.tables import flat, render
from cnnbench.runtime.device import Runtime
from cnnbench.tasks import DEFAULT_METRICS
from cnnbench.tasks.base import Task
from cnnbench.tasks.metric import as_data, from_data, headline
from cnnbench.utils.files import json_text, read_json
from cnnbench.utils.format import clock, plural

LIMITS = ("max_steps=", "max_time=")  # with which the reason begins where a limit, not the last epoch, ended a run


def complexity(model: Net, spec: ModelSpec) -> dict[str, int]:
    """Parameters and multiply-adds for one image at the size that this run uses."""
    size = count_complexity(model, spec.side, spec.input.in_channels)
    return {"params": size.params, "macs": size.macs}


def described(task: Task, measured: Collection[str] | None = None) -> dict[str, Any]:
    """The task and its metrics, the primary one first: whoever reads the result knows what its numbers are.

    measured: names of those that were measured; None: all.
    """
    metrics = [metric for metric in task.metrics if measured is None or metric.name in measured]
    return {"task": task.name, "primary": task.primary.name, "metrics": as_data(metrics)}


def select_on(cfg: TrainConfig, split: str, *, fitted_head: bool = False) -> str:
    """Which net of a training its result is of, and what of it these images chose: an error on them is then too low.

    fitted_head: the net may be the one with which the training began.
    """
    ways = [way for way, is_used in (("patience", cfg.patience), ("search", cfg.sweep.trial is not None)) if is_used]
    what = "last epoch or fitted head" if fitted_head else "last epoch"
    named = f" ({', '.join(ways)})" if ways else ""
    return f"{what}, chosen by {split} images{named}" if ways or fitted_head else what


def selected_by(checkpoint: Path) -> str | None:
    """`select_on` of the net in a checkpoint of a run with a result; None of another file."""
    result = read_json(checkpoint.parent.parent / "result.json") if checkpoint.parent.name == "checkpoints" else {}
    if "select_on" not in result or "split" not in result:
        return None
    return f"best epoch, chosen by {result['split']} images" if checkpoint.stem == "best" else str(result["select_on"])


def environment(runtime: Runtime) -> dict[str, Any]:
    return {"device": runtime.name, "precision": runtime.precision, "versions": versions(), "commit": commit()}


@cache
def versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "hydra-core")
    return {"cnnbench": __version__, "python": sys.version.split()[0], **{name: version(name) for name in packages}}


def commit() -> str | None:
    """The commit of the checkout that cnnbench runs from, with `+` where files were changed; None when installed."""
    here = Path(__file__).parents[2]
    head = _git(here, "rev-parse", "--short=12", "HEAD") if (here / ".git").exists() else ""
    if not head:
        return None
    return f"{head}+" if _git(here, "status", "--porcelain", "--untracked-files=no") else head


def _git(folder: Path, *args: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def show(result: dict[str, Any], format: Format, in_sweep: bool) -> None:
    """The headline in one line; in the other formats the whole result, alone on stdout, but for a sweep's own table."""
    if in_sweep and format is not Format.table:
        return
    if format is Format.table:
        images = plural(result["n"], f"{result['split']} image")
        metrics = from_data(result.get("metrics", ())) or DEFAULT_METRICS
        crop = [result["crop"]] if f"center_{metrics[0].name}" in result else []
        how = ", ".join([*crop, result["precision"]])
        print(
            f"{headline(metrics, result)} on {images} ({how}){_after(result)} in {clock(result['wall_seconds'])}"
            f" -> {result['run_dir']}"
        )
    elif format is Format.json:
        print(json_text(result))
    else:
        print(render([flat(result)], format))


def _after(result: dict[str, Any]) -> str:
    """How much was trained: epochs, or the steps of a run that a limit cut within one. Nothing for a fitted head."""
    if result["stopped"].startswith(LIMITS):
        return f" after {plural(result['steps'], 'step')}"
    return f" after {plural(result['epochs'], 'epoch')}" if result["epochs"] else ""
