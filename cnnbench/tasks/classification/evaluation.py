"""Evaluation of a trained net, or of several whose answers are averaged, by a named protocol."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.commands import EvaluateConfig
from cnnbench.data import Source, image_names
from cnnbench.data.loaders import view_batches
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.views import DIRECTIONS, Shifts, Views, ViewTransform
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.classification import calibrate, report
from cnnbench.tasks.classification.asking import Member, averaged, columns_of, ensemble, member, view_logits, views
from cnnbench.tasks.classification.metrics import answers, evaluate_scores, kept_answers
from cnnbench.tasks.classification.temperature import KEY, temperature
from cnnbench.tasks.measurement import Judged, Measurement, Progress, Reading, progress
from cnnbench.tasks.passes import check_answers
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural


def scores(member: Member, views: ViewTransform, reading: Reading, progress: Progress) -> Tensor:
    """float32 (N, classes) on the CPU: logits, or the logarithms of the mean probabilities where there are views.

    Of all images, also where several processes share them.
    """
    with member.runtime.cached_weight_casts():
        rows = torch.cat([averaged(logits) for logits in _view_logits(member, views, reading, progress)])
    return member.runtime.group.all_gather_rows(rows, len(reading.source)).cpu()


@torch.no_grad()
def _view_logits(member: Member, views: ViewTransform, reading: Reading, progress: Progress) -> Iterable[Tensor]:
    """float32 (N, V, classes), batch by batch, on the net's device."""
    group = member.runtime.group
    if len(reading.source) < group.size:
        raise UserError(f"{group.size} processes are too many for {plural(len(reading.source), 'image')}")
    batches = view_batches(
        reading.source,
        views,
        batch_size=reading.batch_size,
        workers=reading.workers,
        rank=group.rank,
        world_size=group.size,
    )
    for groups, targets in reading.until(batches):
        yield view_logits(member, groups, reading.batch_size)
        progress(len(targets))


@dataclass(frozen=True)
class Robustness:
    """Robustness of the answers to images that are shifted by `pixels`. Percent."""

    pixels: int
    survived: float  # answers, right or wrong, that are the same for the shifted image
    top1_error: float  # of the shifted images
    directions: dict[str, float]  # survived, by direction


def robustness(member: Member, shifts: Shifts, reading: Reading, progress: Progress) -> Robustness:
    """Robustness over all images: each is asked about as it is and shifted in eight directions."""
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


def judge_views(
    views: Views, model: Net, spec: ModelSpec, runtime: Runtime, reading: Reading, advance: Progress
) -> tuple[dict[str, float], Tensor]:
    """Errors and loss of a net in training, by these views of the images, and what is kept of its answers."""
    logits, targets = scores(member(model, views, spec, runtime), views, reading, advance), reading.source.targets
    check_answers(logits, "the net", partial(image_names, reading.source), runtime.precision)
    found = evaluate_scores(logits, targets)
    return {**found.errors, "loss": found.loss}, kept_answers(logits, targets)


def check(judged: list[Judged], cfg: EvaluateConfig) -> None:
    """Raise UserError for what cannot be measured: other classes, views without room, shifts out of the image."""
    for one in judged:
        columns_of(judged[0].spec, judged[0].weights.source, one.spec, one.weights.source)
        views(cfg.crop, one.model, one.spec)
    if cfg.shift and len(judged) > 1:
        raise UserError("shift judges a single net: give weights=… one only")
    if cfg.calibrate:
        calibrate.check(judged, cfg)
    size = judged[0].spec.input.image_size
    if cfg.shift is not None and cfg.shift >= size:
        raise UserError(f"shift={cfg.shift} moves everything out of an image of {size} pixels")


def measure(judged: list[Judged], cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
    """Errors with their intervals, calibration, confusion and robustness of a net, or of an ensemble."""
    if cfg.calibrate:
        judged = [calibrate.without_temperature(one) for one in judged]
    asked = [views(cfg.crop, one.model, one.spec) for one in judged]
    members = [
        member(one.model, chosen, one.spec, runtime, compile=cfg.compile)
        for one, chosen in zip(judged, asked, strict=True)
    ]
    first, begin = judged[0], time.perf_counter()
    source, classes = first.reading.source, first.dataset.classes
    logits = answered(judged, members, asked, runtime)
    seconds = time.perf_counter() - begin
    judgement, fitted, comparison = evaluate_scores(logits, source.targets), dict[str, Any](), None
    if cfg.calibrate:
        found = _fitted(cfg, first, members[0], asked[0], logits)
        before, logits, fitted = judgement, logits / found.temperature, {KEY: found.temperature}
        judgement = evaluate_scores(logits, source.targets)
        judged, comparison = [calibrate.with_temperature(first, found)], calibrate.compared(found, before, judgement)
    shift = shifted(cfg.shift, first, members[0], asked[0]) if cfg.shift is not None else None
    return Measurement(
        n=judgement.n,
        seconds=seconds,
        result={
            **report.headline(judgement),
            **described(asked, [one.spec for one in judged]),
            "calibration": comparison,
            "shift": shift,
            "confused": report.confused(judgement, classes),
            "by_class": report.figures_by_class(judgement, classes),
        },
        write=lambda folder, result: report.write(folder, result, judgement, classes, source, logits),
        page=lambda result, brief: report.page(result, judgement, classes, brief),
        fitted=fitted,
    )


def answered(judged: list[Judged], members: list[Member], asked: list[Views], runtime: Runtime) -> Tensor:
    """Scores of all nets together, in the first one's classes: logits of a single net and view."""
    first = judged[0]
    with progress(len(first.reading.source) * len(judged)) as advance:
        found = [
            scores(asking, chosen, one.reading, advance)[
                :, columns_of(first.spec, first.weights.source, one.spec, one.weights.source)
            ]
            for asking, chosen, one in zip(members, asked, judged, strict=True)
        ]
    for logits, one in zip(found, judged, strict=True):
        check_answers(logits, one.weights.source, partial(image_names, one.reading.source), runtime.precision)
    return ensemble(found)


def _fitted(cfg: EvaluateConfig, one: Judged, asking: Member, views: Views, logits: Tensor) -> calibrate.Fitted:
    def ask(source: Source) -> Tensor:
        with progress(len(source), "calibrate") as advance:
            return scores(asking, views, replace(one.reading, source=source), advance)

    return calibrate.fitted(one, calibrate.validation(one, cfg), logits, ask, asking.runtime.precision)


def shifted(pixels: int, judged: Judged, asking: Member, views: Views) -> dict[str, Any]:
    """Robustness of the net to translations of so many pixels; by the central crop."""
    given = judged.spec.input
    shifts = Shifts(size=given.image_size, scale=round(given.image_size / given.crop_ratio),
                    interpolation=given.interpolation, pixels=pixels)  # fmt: skip
    if views.dense:
        asking = replace(asking, net=judged.model)
    with progress(len(judged.reading.source), what="shifted") as advance:
        return asdict(robustness(asking, shifts, judged.reading, advance))


def described(asked: list[Views], specs: list[ModelSpec]) -> dict[str, Any]:
    """Protocol of the measurement, so that numbers compare like for like."""
    texts = list(dict.fromkeys(one.text for one in asked))
    modes = list(dict.fromkeys(one.interpolation for one in asked))
    first, nets = asked[0], len(asked)
    temperatures = [temperature(spec) for spec in specs] if any(KEY in spec.extra for spec in specs) else [None]
    mean_of = [f"{first.count} views" if first.count > 1 else "", f"{nets} nets" if nets > 1 else ""]
    return {
        "crop": "; ".join(texts),
        "protocol": {
            "name": first.name,
            "views": first.count,
            "nets": nets,
            "scales": list(first.scales),
            "resize": first.resize.value,
            "interpolation": "; ".join(modes),
            "temperature": temperatures[0] if len(temperatures) == 1 else temperatures,
            "averaged": "softmax of " + " and ".join(filter(None, mean_of)) if any(mean_of) else None,
        },
    }
