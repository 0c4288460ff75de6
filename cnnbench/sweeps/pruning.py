"""Early end of hopeless trials: what a search says of a training after each epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnbench import tasks
from cnnbench.config.commands import TrainConfig


def trial_pruner(cfg: TrainConfig, task: str) -> Callable[[dict[str, Any]], str] | None:
    """Judge of the search whose trial this training is: row of an epoch -> why to stop, or nothing. None elsewhere."""
    if cfg.sweep.trial is None or cfg.sweep.dir is None:
        return None
    from cnnbench.sweeps.study import pruning_rule  # with Optuna, of which nobody else has to know

    return pruning_rule(Path(cfg.sweep.dir).expanduser(), cfg.sweep.trial, tasks.find(task).metrics)
