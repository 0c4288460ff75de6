"""A trained net, or several whose answers are averaged, asked about every image of a data set by a protocol."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench import models
from cnnbench.config.sections import CropConfig
from cnnbench.data.loaders import view_batches
from cnnbench.data.sources import Source
from cnnbench.data.views import DIRECTIONS, Groups, Shifts, Views, ViewTransform
from cnnbench.data.views import build_views as protocol
from cnnbench.models.layers import Dense, Net
from cnnbench.runtime.compiled import compile_if
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.classification.metrics import answers
from cnnbench.utils import console
from cnnbench.utils.errors import UserError
from cnnbench.weights.checkpoint import Inference

Progress = Callable[[int], object]
"""Called with the number of images that have been answered since the last call."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the images of a source are read and given to a net."""

    source: Source
    batch_size: int  # views in a forward pass
    workers: int | None
    until: Callable[[Iterable[Any]], Iterable[Any]] = iter  # ends a pass over the batches early, by an exception


@dataclass(frozen=True, kw_only=True)
class Member:
    """One net and how it is asked: any images' normalised views to logits."""

    net: Callable[[Tensor], Any]
    normalize: Normalize
    runtime: Runtime


def views(crop: CropConfig, model: Net, known: Inference) -> Views:
    """The views by which a net is to be asked; UserError where its images or its layers leave no room for them."""
    chosen = protocol(crop, known.image_size, known.crop_ratio, known.interpolation)
    if chosen.dense:
        models.check_dense(model, min(chosen.scales))
    return chosen


def member(model: Net, asked: Views, known: Inference, runtime: Runtime, *, compile: bool = False) -> Member:
    """A net, ready to be asked by these views."""
    net = compile_if(runtime.place(Dense(model) if asked.dense else model), compile)
    return Member(net=net, normalize=Normalize(runtime, known.mean, known.std), runtime=runtime)


def scores(member: Member, views: ViewTransform, reading: Reading, progress: Progress) -> Tensor:
    """float32 (N, classes) on the CPU: logits, or the logarithms of the mean probabilities where there are views.

    Of all images, also where several processes share them.
    """
    with member.runtime.cached_weight_casts():
        rows = torch.cat([averaged(logits) for logits in _view_logits(member, views, reading, progress)])
    return member.runtime.group.all_gather_rows(rows, len(reading.source)).cpu()


def averaged(logits: Tensor) -> Tensor:
    """(N, V, classes) to (N, classes): the logarithm of the mean softmax; the logits themselves of a single view."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(logits.shape[1])


def ensemble(members: Sequence[Tensor]) -> Tensor:
    """The scores of several nets (N, classes) as those of one: their softmax, averaged."""
    return averaged(torch.stack(list(members), dim=1))


@contextmanager
def progress(total: int, what: str = "evaluate", unit: str = "image") -> Iterator[Progress]:
    """A bar on the terminal, where a person is looking."""
    with tqdm(total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True, file=sys.stderr,
              disable=console.silent or not sys.stderr.isatty(), mininterval=0.1) as bar:  # fmt: skip
        yield bar.update


@torch.no_grad()
def _view_logits(member: Member, views: ViewTransform, reading: Reading, progress: Progress) -> Iterable[Tensor]:
    """float32 (N, V, classes), batch by batch, on the net's device."""
    group = member.runtime.group
    if len(reading.source) < group.size:
        raise UserError(f"{len(reading.source)} images are too few for {group.size} processes")
    batches = view_batches(
        reading.source,
        views,
        batch_size=reading.batch_size,
        workers=reading.workers,
        rank=group.rank,
        world_size=group.size,
    )
    for groups, targets in reading.until(batches):
        yield _logits(member, groups, reading.batch_size)
        progress(len(targets))


def _logits(member: Member, groups: Groups, batch_size: int) -> Tensor:
    found = []
    for group in groups:
        with member.runtime.autocast():
            parts = [member.net(member.normalize(part)) for part in group.flatten(0, 1).split(batch_size)]
        found.append(torch.cat(parts).float().unflatten(0, group.shape[:2]))
    return torch.cat(found, dim=1)


@dataclass(frozen=True)
class Robustness:
    """What is left of the answers when the images are shifted by `pixels`. Percent."""

    pixels: int
    survived: float  # answers, right or wrong, that are the same for the shifted image
    top1_error: float  # of the shifted images
    directions: dict[str, float]  # survived, by direction


def robustness(member: Member, shifts: Shifts, reading: Reading, progress: Progress) -> Robustness:
    """Each image is asked about where it is and at its eight shifted places."""
    best = torch.cat([
        answers(logits.flatten(0, 1))[:, 0].unflatten(0, logits.shape[:2])
        for logits in _view_logits(member, shifts, reading, progress)
    ])  # fmt: skip
    best = member.runtime.group.all_gather_rows(best, len(reading.source)).cpu()
    same = best[:, 1:] == best[:, :1]
    wrong = best[:, 1:] != reading.source.targets[:, None]
    shares = 100 * same.double().mean(dim=0)
    return Robustness(
        pixels=shifts.pixels,
        survived=shares.mean().item(),
        top1_error=100 * wrong.double().mean().item(),
        directions=dict(zip(DIRECTIONS, shares.tolist(), strict=True)),
    )
