"""Measurement of nets, for any task: what goes into it and what comes out."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cnnbench import data
from cnnbench.config.sections import Precision
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
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
    fitted: dict[str, Any] = field(default_factory=dict)  # facts for the spec's `extra`, to be stored with the weights
    page: Callable[[dict[str, Any], bool], str]  # the whole result, and whether to be brief -> text for a terminal


def measuring(runtime: Runtime, precision: Precision | None, weights: Sequence[Weights]) -> Runtime:
    """Runtime in which these weights are measured and used.

    Without a precision it has the one of their trainings, where all name the same one; else float32.
    """
    trained = {one.config["precision"] if one.config else "auto" for one in weights}
    return runtime if precision else runtime.to_measure(trained.pop() if len(trained) == 1 else "auto")


def crop_text(dataset: data.Dataset, image_size: int, crop_ratio: float) -> str:
    """Words for how validation images are cut: whole, or one centre crop."""
    if data.has_boxes(dataset.val):  # which may lie at the edge
        return f"whole images, squashed to {image_size} x {image_size}"
    return "whole images" if dataset.whole else center_text(image_size, crop_ratio)


def center_text(image_size: int, crop_ratio: float) -> str:
    """Words for how validation images are cut: one centre crop, without test-time augmentation."""
    return f"center {image_size}" if crop_ratio == 1 else f"center {image_size} of {round(image_size / crop_ratio)}"


@contextmanager
def progress(total: int, what: str = "evaluate", unit: str = "image") -> Iterator[Progress]:
    """Progress bar on the terminal, where a person is looking."""
    with tqdm(total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True, file=sys.stderr,
              disable=console.silent or not sys.stderr.isatty(), mininterval=0.1) as bar:  # fmt: skip
        yield bar.update
