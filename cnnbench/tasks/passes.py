"""Passes of a trained net over batches: its answers, their meter, the measurement of `cnnbench evaluate`."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench import data
from cnnbench.data import Batch
from cnnbench.data.model_spec import ModelSpec
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.base import Task
from cnnbench.tasks.measurement import Judged, Measurement, crop_text
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.metric import headline
from cnnbench.utils.errors import RunError
from cnnbench.utils.format import plural


@torch.no_grad()
def predictions(
    net: Callable[..., Any],
    batches: Iterable[Batch],
    runtime: Runtime,
    normalize: Callable[[Tensor], Tensor],
    inputs: Callable[[Tensor, Any], tuple[Any, ...]] = lambda images, targets: (images,),
) -> Iterator[tuple[Batch, Any, Any]]:
    """Batches as they came, with their targets and the net's outputs on the device. The net is in eval mode.

    inputs: what it is given of images and targets, for its loss: `Task.inputs`.
    """
    for batch in runtime.by_shape(batches):
        images, targets = normalize(batch["image"]), runtime.to_device(batch["target"])
        with runtime.autocast():
            outputs = net(*inputs(images, targets))
        yield batch, targets, outputs


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
        for _, targets, outputs in predictions(net, batches, runtime, normalize, task.inputs):
            meter.add(task.loss(outputs, targets), task.answer(outputs), targets)
    add_up(meter, runtime)
    return meter


def check_answers(answers: Tensor, source: str, names: Callable[[Tensor], list[str]], precision: str) -> None:
    """RunError where a net, whose weights are finite, answers what is no number. names: of images by their indices."""
    wrong = (~answers.isfinite()).flatten(1).any(dim=1).nonzero().flatten().cpu()
    if len(wrong):
        hint = "" if precision == "fp32" else f" in {precision}; try precision=fp32"
        raise RunError(
            f"{source}: {len(wrong):,} of {len(answers):,} answers are not finite (NaN or infinity), the first "
            f"for {names(wrong[:1])[0]}{hint}"
        )


def check_loss(meter: Meter, source: str) -> None:
    """RunError where the loss over all images is no number: then no other number can be believed."""
    if not math.isfinite(loss := meter.mean_loss()):
        raise RunError(f"{source}: the loss on {meter.n:,} images is {loss}, so its answers are no numbers either")


def add_up(meter: Meter, runtime: Runtime) -> None:
    """All-reduce a meter over the processes: each then has the sums, and the rows, of all."""
    if not runtime.group.alone:
        runtime.group.all_reduce_sum(*meter.tensors())
        meter.n = int(runtime.group.all_reduce_numbers(meter.n)[0])
        meter.gather(lambda rows: runtime.group.all_gather_rows(rows, meter.n))


def answers(meter: Meter, runtime: Runtime) -> Tensor | None:
    """What is kept of each image's answer, on the CPU: of all processes' images, in their order. All take part."""
    kept = meter.answers()
    return None if kept is None else runtime.group.all_gather_rows(kept, meter.n).cpu()


def judge(task: Task, one: Judged, runtime: Runtime) -> tuple[Meter, float]:
    """Meter of one net over every image, each prepared as the net's own were; and the seconds that it took."""
    reading = one.reading
    batches = data.eval_loader(
        reading.source,
        one.dataset,
        image_size=one.spec.input.image_size,
        batch_size=reading.batch_size,
        workers=reading.workers,
        rank=runtime.group.rank,
        world_size=runtime.group.size,
    )
    net, normalize = runtime.place(one.model).eval(), Normalize(runtime, one.spec.input.mean, one.spec.input.std)
    begin = time.perf_counter()
    meter = evaluate(task, net, reading.until(batches.epoch()), runtime, normalize, one.spec)
    check_loss(meter, one.weights.source)
    return meter, time.perf_counter() - begin


def measure_net(task: Task, one: Judged, runtime: Runtime) -> Measurement:
    """Measurement of one net over every image."""
    meter, seconds = judge(task, one, runtime)
    values, kept = meter.compute(), answers(meter, runtime)

    def write(folder: Path, result: dict[str, Any]) -> None:
        if kept is not None:
            task.write_answers(kept, one.reading.source, one.dataset.classes, folder / ANSWERS)

    how = crop_text(one.dataset, one.spec.input.image_size, one.spec.input.crop_ratio)
    text = (
        f"{headline(task.metrics, values)}, loss {values['loss']:.4f}\n"
        f"measured: {how}, {runtime.precision}; {plural(meter.n, 'image')}"
    )
    return Measurement(
        n=meter.n,
        seconds=seconds,
        result={**values, "n": meter.n, "crop": how, "protocol": {"name": how}},
        write=write,
        page=lambda result, brief: f"{text}\n-> {result['run_dir']}",
    )
