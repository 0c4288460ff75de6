"""Choice whether a training's steps are replayed as CUDA graphs, with the reason where they are not."""

from collections.abc import Callable
from typing import Any

from cnnbench.config.commands import TrainConfig
from cnnbench.runtime.device import Runtime
from cnnbench.runtime.graphs import Recorded
from cnnbench.tasks.base import Task
from cnnbench.training.loop import recordable_step
from cnnbench.training.state import TrainState
from cnnbench.utils import console
from cnnbench.utils.errors import UserError

CHOICES = "auto", True, False


def uses_graphs(cfg: TrainConfig, runtime: Runtime, task: Task) -> bool:
    """Whether to replay the steps. UserError where graphs=true cannot be.

    On a GPU it is said why graphs=auto does without.
    """
    if cfg.graphs not in CHOICES:
        raise UserError(f"graphs={cfg.graphs}: give auto, true or false")
    reason = obstacle(cfg, runtime, task)
    if reason and cfg.graphs is True:
        raise UserError(f"graphs=true: {reason}")
    if reason and cfg.graphs == "auto" and runtime.can_record:
        console.warn(f"steps are not replayed as CUDA graphs: {reason} (graphs=false says nothing)")
    return not reason and cfg.graphs is not False


def obstacle(cfg: TrainConfig, runtime: Runtime, task: Task) -> str:
    """Why steps cannot be replayed; empty where they can."""
    if not runtime.can_record:
        return f"that needs an NVIDIA GPU, and this run is on {runtime.device.type}"
    if runtime.scaler.is_enabled():
        return "in fp16 each step asks the GPU whether its numbers were finite; give precision=bf16"
    if not runtime.group.alone:
        return "several processes exchange messages in each step"
    if cfg.tracking.images:
        return "tracking.images=true looks into the steps"
    return task.unrecordable


def recorded_step(state: TrainState, size: int) -> Recorded:
    """The step on batches of `size` images, to be recorded."""

    def failed(reason: str) -> None:
        state.optimizer.zero_grad(set_to_none=True)  # they lie in the recording's memory
        state.warn("graphs", not_recorded("the step", reason))

    return Recorded(recordable_step(state), state.runtime.device, size, failed)


def recorded_input(runtime: Runtime, function: Callable[..., Any], size: int) -> Recorded:
    """The function that picks `size` images and augments them, to be recorded."""
    return Recorded(
        function, runtime.device, size, lambda reason: console.warn(not_recorded("the augmentation", reason))
    )


def not_recorded(what: str, reason: str) -> str:
    return f"{what} could not be recorded as a CUDA graph, and runs as without: {reason}"
