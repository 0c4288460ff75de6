"""`evaluate calibrate=true`: the temperature of a net, fitted on its validation images, never on a test split."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from cnnbench.config.arguments import typed_keys
from cnnbench.config.commands import EvaluateConfig
from cnnbench.config.parsing import as_typed, from_plain
from cnnbench.config.sections import CropConfig, DataConfig
from cnnbench.data import Source, image_names, seen_in_training
from cnnbench.data.parts import held_out_part
from cnnbench.tasks.classification.metrics import Evaluation
from cnnbench.tasks.classification.temperature import KEY, fit
from cnnbench.tasks.measurement import Judged
from cnnbench.tasks.passes import check_answers
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError

PARTS = ("val_fraction", "test_fraction", "group")  # keys that say which images are held out


@dataclass(frozen=True)
class Fitted:
    """Temperature of a net, and the images that it was fitted on."""

    temperature: float
    split: str
    n: int


def check(judged: list[Judged], cfg: EvaluateConfig) -> None:
    """UserError where no temperature can be fitted: several nets, several views, no validation images."""
    if len(judged) > 1:
        raise UserError("calibrate fits a temperature to one net: give weights=… one only, for each of them in turn")
    if cfg.crop != CropConfig():
        raise UserError(f"calibrate fits the temperature on one view of each image: leave crop={cfg.crop.name} out")
    validation(judged[0], cfg)
    if judged[0].weights.config is None and judged[0].dataset.split == "held-out":
        warn(f"{judged[0].weights.source} does not say on which images its net was trained: were the held-out ones "
             "among them, the temperature would be too low")  # fmt: skip


def validation(one: Judged, cfg: EvaluateConfig) -> Source:
    """Images to fit on. UserError where there are none that neither trained the net nor are a test split."""
    dataset, trained = one.dataset, (one.weights.config or {"data": {}})["data"]
    same = (trained.get("name"), one.weights.identity) == (dataset.name, dataset.identity)
    if dataset.split == "test":
        raise UserError(
            f"calibrate fits on validation images, never on a test split, and data={dataset.name} has no others here\n"
            + (f"add data.val_fraction={then:g}, which this net was trained with"
               if same and (then := trained.get("val_fraction")) else
               "train with data.val_fraction=0.2, which holds validation images out, and calibrate that net")
        )  # fmt: skip
    typed = typed_keys(cfg)
    parts = {key: (trained.get(key), getattr(cfg.data, key)) for key in PARTS if f"data.{key}" in typed}
    if "val_fraction" in parts:
        then, now = parts["val_fraction"]
        parts["val_fraction"] = (held_out_part(then or 0.0, alone=dataset.alone), now)
    other = [key for key, (then, now) in parts.items() if then != now]
    if dataset.split == "held-out" and same and other:
        then, now = map(as_typed, parts[other[0]])
        raise UserError(
            "calibrate fits on images that did not train the net, but some that are held out now did:\n"
            f"{one.weights.source} was trained with data.{other[0]}={then}, not {now}"
        )
    if dataset.split == "given" and one.weights.config:
        known = from_plain(DataConfig, one.weights.config["data"])
        if seen := seen_in_training(dataset.val, known):
            raise UserError(f"calibrate fits on images that did not train the net: {seen.partition(':')[0]}")
    return dataset.val


def without_temperature(one: Judged) -> Judged:
    """Net as it was trained, whatever temperature is stored with it."""
    kept = {key: value for key, value in one.spec.extra.items() if key != KEY}
    return replace(one, spec=replace(one.spec, extra=kept))


def with_temperature(one: Judged, found: Fitted) -> Judged:
    return replace(one, spec=replace(one.spec, extra={**one.spec.extra, KEY: found.temperature}))


def fitted(one: Judged, source: Source, logits: Tensor, ask: Callable[[Source], Tensor], precision: str) -> Fitted:
    """Temperature of a net by these images. logits: for the images that are judged. ask: logits for others."""
    if source is not one.reading.source:
        logits = ask(source)
        check_answers(logits, one.weights.source, partial(image_names, source), precision)
    return Fitted(fit(logits, source.targets.cpu(), one.weights.source), one.dataset.split, len(source))


def compared(found: Fitted, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """What the temperature changes for the images that were judged, for result.json."""
    return {
        "temperature": found.temperature,
        "fitted_on": {"split": found.split, "n": found.n},
        "loss_before": before.loss,
        "loss_after": after.loss,
        "calibration_error_before": before.calibration.error,
        "calibration_error_after": after.calibration.error,
    }
