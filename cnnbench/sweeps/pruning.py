"""Pruning: asks the search after each epoch whether to stop a trial early."""

from collections.abc import Callable
from typing import Any

from cnnbench import tasks
from cnnbench.config.commands import TrainConfig
from cnnbench.utils.named_files import typed_path


def trial_pruner(cfg: TrainConfig, task: str) -> Callable[[dict[str, Any]], str] | None:
    """Pruning rule for a training that is a trial of a search: an epoch's row -> why to stop, or "". Else None."""
    if cfg.sweep.trial is None or cfg.sweep.dir is None:
        return None
    from cnnbench.sweeps.study import pruning_rule  # imports Optuna, which only searches need

    return pruning_rule(typed_path(cfg.sweep.dir), cfg.sweep.trial, tasks.find(task).metrics)
