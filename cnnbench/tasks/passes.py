"""Passes of a trained net over batches: its answers, and what they are worth."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from cnnbench.data import Batch
from cnnbench.data.model_spec import ModelSpec
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.meter import Meter


@torch.no_grad()
def predictions(
    net: Callable[[Tensor], Any], batches: Iterable[Batch], runtime: Runtime, normalize: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Batch, Any, Tensor]]:
    """Batches as they came, with their targets and the net's outputs on the device. The net is in eval mode."""
    for batch in batches:
        with runtime.autocast():
            outputs = net(normalize(batch["image"]))
        yield batch, runtime.to_device(batch["target"]), outputs


@torch.no_grad()
def evaluate(
    task: Task,
    net: Callable[[Tensor], Any],
    batches: Iterable[Batch],
    runtime: Runtime,
    normalize: Callable[[Tensor], Tensor],
    spec: ModelSpec,
) -> Meter:
    """Meter of all batches of all processes."""
    meter = task.evaluation(runtime, spec)
    with runtime.cached_weight_casts():
        for _, targets, outputs in predictions(net, batches, runtime, normalize):
            meter.add(task.loss(outputs, targets), task.answer(outputs), targets)
    add_up(meter, runtime)
    return meter


def add_up(meter: Meter, runtime: Runtime) -> None:
    """All-reduce a meter over the processes: each then has the sums of all."""
    if not runtime.group.alone:
        runtime.group.all_reduce_sum(*meter.tensors())
        meter.n = int(runtime.group.all_reduce_numbers(meter.n)[0])
