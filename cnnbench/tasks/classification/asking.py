"""Asking of trained classifiers: by the views of a protocol, several nets together, with their temperatures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnbench import models
from cnnbench.config.sections import CropConfig
from cnnbench.data import matched
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.views import Groups, Views, build_views
from cnnbench.models.layers import Dense, Net
from cnnbench.runtime.compiled import compile_if
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.classification.temperature import temperature
from cnnbench.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Member:
    """One net and how it is asked: any images' normalised views to logits."""

    net: Callable[[Tensor], Any]
    normalize: Normalize
    runtime: Runtime
    temperature: float = 1.0


def views(crop: CropConfig, model: Net, known: ModelSpec) -> Views:
    """Views by which a net is asked. UserError where its images or its layers leave no room for them."""
    if SOUND in known.extra and crop != CropConfig():
        raise UserError(f"crop={crop.name} cuts and mirrors pictures, but this net hears sounds, whose pictures have a "
                        "fixed place in time and pitch: leave crop out")  # fmt: skip
    chosen = build_views(crop, known.input.image_size, known.input.crop_ratio, known.input.interpolation)
    if chosen.dense:
        models.check_dense(model, min(chosen.scales))
    return chosen


def member(model: Net, asked: Views, known: ModelSpec, runtime: Runtime, *, compile: bool = False) -> Member:
    """Member of an ensemble: a net, ready to be asked by these views."""
    net = compile_if(runtime.place(Dense(model) if asked.dense else model), compile)
    normalize = Normalize(runtime, known.input.mean, known.input.std)
    return Member(net=net, normalize=normalize, runtime=runtime, temperature=temperature(known))


def scores_of(member: Member, views: Views, images: Sequence[Groups], batch_size: int) -> Tensor:
    """As `scores`, of images whose views (V, C, H, W) are at hand, on the net's device, `batch_size` at a time."""
    if views.ragged:
        batches = [[group[None] for group in groups] for groups in images]
    else:
        batches = [[torch.stack(group) for group in zip(*images, strict=True)]]
    return torch.cat([averaged(view_logits(member, groups, batch_size)) for groups in batches])


def averaged(logits: Tensor) -> Tensor:
    """(N, V, classes) to (N, classes): the logarithm of the mean softmax; the logits themselves of a single view."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(logits.shape[1])


def ensemble(members: Sequence[Tensor]) -> Tensor:
    """The scores of several nets (N, classes) as those of one: their softmax, averaged."""
    return averaged(torch.stack(list(members), dim=1))


def view_logits(member: Member, groups: Groups, batch_size: int) -> Tensor:
    """float32 (N, V, classes), divided by the net's temperature. groups: views (N, V, C, H, W)."""
    found = []
    for group in groups:
        with member.runtime.autocast():
            parts = [member.net(member.normalize(part)) for part in group.flatten(0, 1).split(batch_size)]
        found.append(torch.cat(parts).float().unflatten(0, group.shape[:2]))
    return torch.cat(found, dim=1) / member.temperature


def columns_of(first: ModelSpec, source: str, other: ModelSpec, other_source: str) -> list[int]:
    """Columns of another net's logits in the order of the first one's classes. UserError where these are not its
    classes. source, other_source: what to call the nets."""
    columns = matched(first.labels, other.labels) if len(first.labels) == len(other.labels) else None
    if columns is None:
        raise UserError(f"{other_source} was trained for other classes than {source}")
    return columns
