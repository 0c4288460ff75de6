"""Train, transfer, measure and explain the classical CNN architectures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.cli.calls import evaluate, finetune, predict, report, sweep, train, visualize
    from cnnbench.models import create_model
    from cnnbench.tasks.predictor import load
    from cnnbench.utils.errors import RunError, UserError

__version__ = "0.1.0"
__all__ = ["RunError", "UserError", "create_model", "evaluate", "finetune", "load", "predict", "report", "sweep",
           "train", "visualize"]  # fmt: skip

HOMES = {"create_model": "models", "load": "tasks.predictor", "RunError": "utils.errors", "UserError": "utils.errors"}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is asked for: the command line starts without torch."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{HOMES.get(name, 'cli.calls')}"), name)
