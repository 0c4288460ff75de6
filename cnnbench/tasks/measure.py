"""Measurement for any task: the nets, how their images are read, and the result."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cnnbench import data
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.metric import headline
from cnnbench.tasks.passes import evaluate
from cnnbench.utils import console
from cnnbench.weights.sources import Weights

Progress = Callable[[int], object]
"""Called with the number of images that have been answered since the last call."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Reading of a source: how its images are batched for a net."""

    source: data.Source
    batch_size: int  # views in a forward pass
    workers: int | None
    until: Callable[[Iterable[Any]], Iterable[Any]] = iter  # ends a pass over the batches early, by an exception


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A net that is to be evaluated, with the data set as it is prepared for it."""

    weights: Weights
    model: Net
    spec: ModelSpec
    dataset: data.Dataset
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Result of an evaluation: for result.json, for the files beside it, and for the terminal."""

    n: int  # images
    seconds: float  # that the net took for them
    result: dict[str, Any]  # metrics and how they were measured
    write: Callable[[Path, dict[str, Any]], None] = lambda folder, result: None  # tables and pictures
    page: Callable[[dict[str, Any], bool], str]  # the whole result, and whether to be brief -> text for a terminal


def measure(task: Task, one: Judged, runtime: Runtime) -> Measurement:
    """Measurement of one net over every image, each prepared as the net's own were."""
    reading, size = one.reading, one.spec.input.image_size
    batches = data.eval_loader(
        reading.source,
        one.dataset,
        image_size=size,
        batch_size=reading.batch_size,
        workers=reading.workers,
        rank=runtime.group.rank,
        world_size=runtime.group.size,
    )
    net, normalize = runtime.place(one.model).eval(), Normalize(runtime, one.spec.input.mean, one.spec.input.std)
    begin = time.perf_counter()
    meter = evaluate(task, net, reading.until(batches.epoch()), runtime, normalize, one.spec)
    values = meter.compute()
    how = center_text(size, one.spec.input.crop_ratio)
    text = f"{headline(task.metrics, values)}, loss {values['loss']:.4f} on {meter.n:,} images"
    return Measurement(
        n=meter.n,
        seconds=time.perf_counter() - begin,
        result={**values, "n": meter.n, "crop": how, "protocol": {"name": how}},
        page=lambda result, brief: f"{text}\n-> {result['run_dir']}",
    )


def center_text(image_size: int, crop_ratio: float) -> str:
    """Words for how validation images are cut: one centre crop, without test-time augmentation."""
    return f"center {image_size}" if crop_ratio == 1 else f"center {image_size} of {round(image_size / crop_ratio)}"


@contextmanager
def progress(total: int, what: str = "evaluate", unit: str = "image") -> Iterator[Progress]:
    """Progress bar on the terminal, where a person is looking."""
    with tqdm(total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True, file=sys.stderr,
              disable=console.silent or not sys.stderr.isatty(), mininterval=0.1) as bar:  # fmt: skip
        yield bar.update
