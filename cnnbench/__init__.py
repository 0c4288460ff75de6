"""Train, transfer, measure and explain the classical CNN architectures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.models import create_model
    from cnnbench.tasks.predictor import load

__version__ = "0.1.0"
__all__ = ["create_model", "load"]


def __getattr__(name: str) -> Any:
    """`cnnbench.create_model` and `cnnbench.load`, imported when asked for: the command line starts without torch."""
    if name == "create_model":
        from cnnbench.models import create_model

        return create_model
    if name == "load":
        from cnnbench.tasks.predictor import load

        return load
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
