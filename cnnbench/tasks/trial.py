"""Trial of weights that do not say of what they are: a few hundred images for each variant and normalisation."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnbench import data
from cnnbench.data import Batch
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.measurement import progress
from cnnbench.tasks.metric import Metric
from cnnbench.tasks.passes import evaluate
from cnnbench.utils.errors import UserError
from cnnbench.weights import variants
from cnnbench.weights.sources import Weights

IMAGES = 300
AS_GIVEN = "as given"
Build = Callable[[dict[str, Any]], tuple[Net, ModelSpec]]
"""Net of these arguments, filled with the weights, and its spec."""


@dataclass(frozen=True)
class Attempt:
    """Metrics of a variant under a normalisation, and what to type for both."""

    values: dict[str, float]  # `loss` among them
    settings: str


def try_variants(
    task: Task, spec: ModelSpec, build: Build, dataset: data.Dataset, source: data.Source, runtime: Runtime
) -> list[Attempt]:
    """Attempts, the best first, each over the same images. spec: of the net that was asked for."""
    model = spec.model
    some, attempts = source.subset(data.evenly_spaced(source, IMAGES)), []
    own = list(dataset.mean), list(dataset.std)
    nets, ways = [model, *variants.variants(model)], variants.normalisations(*own)
    batches: dict[int, list[Batch]] = {}
    with progress(len(nets) * len(ways), "variants", "variant") as advance:
        for net in nets:
            filled, spec = build(net)
            filled = runtime.place(filled).eval()
            if (size := spec.input.image_size) not in batches:  # decoded once
                batches[size] = list(data.eval_loader(some, dataset, image_size=size, batch_size=50, workers=0).epoch())
            for mean, std in ways:
                values = _measured(task, filled, batches[size], runtime, Normalize(runtime, mean, std), spec)
                said = [] if (mean, std) == own else [f"data.mean={_list(mean)}", f"data.std={_list(std)}"]
                attempts.append(Attempt(values, " ".join(filter(None, [variants.settings(net, model), *said]))))
                advance(1)
    return sorted(attempts, key=lambda one: _rank(task, one.values))


def _rank(task: Task, values: dict[str, float]) -> tuple[bool, float, float]:
    """Sort key: by the primary metric, then by the loss; last, where the answers are no numbers."""
    return not math.isfinite(values["loss"]), task.primary.cost(values[task.primary.name]), values["loss"]


def _measured(task: Task, net: Net, batches: Iterable[Batch], runtime: Runtime, normalize: Normalize,
              spec: ModelSpec) -> dict[str, float]:  # fmt: skip
    return evaluate(task, net, batches, runtime, normalize, spec).compute()


def _list(values: list[float]) -> str:
    return f"[{','.join(f'{value:.5g}' for value in values)}]"


def rows(task: Task, attempts: list[Attempt]) -> list[dict[str, Any]]:
    """Rows of a table."""
    return [
        {**{metric.name: one.values[metric.name] for metric in task.metrics if metric.name in one.values},
         "loss": one.values["loss"], "settings": one.settings or AS_GIVEN}
        for one in attempts
    ]  # fmt: skip


def verdict(task: Task, attempts: list[Attempt], guessing: float | None) -> str:
    """Which attempt fits, in words."""
    best, metric = attempts[0], task.primary
    if not math.isfinite(best.values["loss"]):
        return "none fits: with each, the answers are not finite (NaN or infinity)"
    if guessing is not None and best.values["loss"] > guessing:
        return (
            "none fits: even the best is no better than guessing on these images\nis it this net, are the classes "
            "in this order, are the channels RGB?"
        )
    error = metric.text(best.values[metric.name])
    said = [f"fits best: {best.settings or AS_GIVEN} ({error} on {IMAGES} images at most)"]
    if close := [one.settings or AS_GIVEN for one in attempts[1:] if _is_close(metric, one, best)]:
        said.append(f"too few images to tell it from: {'; '.join(close)}")
    return "\n".join(said)


def _is_close(metric: Metric, one: Attempt, best: Attempt) -> bool:
    """Whether so few images do not tell two errors in percent apart: less than two standard deviations."""
    share = best.values[metric.name] / 100
    margin = 200 * math.sqrt(max(share * (1 - share), 0) / IMAGES) if metric.unit == "%" else 0.0
    return abs(one.values[metric.name] - best.values[metric.name]) <= margin


def check_unknown(loaded: Sequence[Weights]) -> None:
    """UserError where there is nothing to try."""
    if len(loaded) > 1:
        raise UserError("try_variants is for a single file: give weights=… one only")
    if loaded[0].spec is not None:
        raise UserError(f"try_variants is for weights that do not say of what they are: {loaded[0].source} does")
