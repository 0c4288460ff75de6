"""Checks of what a checkpoint says of itself, before anything is built, measured or trained from it.

A file may be whole, bit for bit, and yet wrong: edited, or made by another program. Each check names the file, the
place and what belongs there. Weights alone are checked too: that they are dense tensors of real numbers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cnnbench import models
from cnnbench.config.sections import Interpolation, Precision
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models import own_nets
from cnnbench.models.layers import output_layer
from cnnbench.models.meta_kernels import Shapes
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import some

LARGEST_SIDE = 8192  # of an image, pixels: more than that no machine takes through a net
MOST = 10**6  # classes, channels
DEPTH = 16  # of dictionaries and lists in a configuration
ENTRIES = 10**6  # in it altogether
FAR = 1e300  # beyond any number that is meant

Rule = tuple[Callable[[Any], bool], str]


def whole(least: int, most: int = 2**63) -> Rule:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least:,}" + (
        f" to {most:,}" if most < 2**63 else ""
    )


def number(above: float = -FAR, most: float = FAR) -> Rule:
    limits = [f" above {above:g}" if above > -FAR else "", f" and at most {most:g}" if most < FAR else ""]
    return lambda value: type(value) in (int, float) and above < value <= most, f"a finite number{''.join(limits)}"


def numbers(above: float = -FAR) -> Rule:
    accepts, words = number(above)
    return lambda value: isinstance(value, list) and all(map(accepts, value)), f"a list, each {words}"


TEXT: Rule = lambda value: isinstance(value, str), "text"
DICTIONARY: Rule = lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value), "a dictionary"
LIST: Rule = lambda value: isinstance(value, list), "a list"
TEXTS: Rule = lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of names"
TENSORS: Rule = (
    lambda value: isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values()),
    "a dictionary of tensors",
)
METER: Rule = (
    lambda value: isinstance(value, dict) and all(isinstance(item, Tensor | int) for item in value.values()),
    "a dictionary of tensors and counts",
)
WIDTHS: Rule = (
    lambda value: isinstance(value, list) and all(map(whole(1, MOST)[0], value)),
    "a list of whole numbers",
)
NAMED: Rule = (
    lambda value: DICTIONARY[0](value) and isinstance(value.get("name"), str)
    and all(item is None or isinstance(item, str | int | float | bool) or WIDTHS[0](item)
            or (key == "args" and DICTIONARY[0](item)) for key, item in value.items()),
    "the name of a net with its arguments",
)  # fmt: skip
INTERPOLATIONS = [kind.value for kind in Interpolation]
PRECISIONS = [kind.value for kind in Precision]

SPEC = {"task": TEXT, "model": NAMED, "labels": TEXTS, "input": DICTIONARY, "extra": DICTIONARY}
SOUND = {"rate": whole(1000), "seconds": number(0, 600), "bands": whole(8, 1024), "window": numbers(0),
         "hop": (lambda value: value is None or number(0)[0](value), "a number above 0"), "low": number(-1),
         "high": number(0), "range": number(0, 200), "reference": TEXT}  # fmt: skip
THRESHOLD: Rule = (
    lambda value: DICTIONARY[0](value) and number(-1, 2)[0](value.get("distance"))
    and isinstance(value.get("origin"), str),
    "a distance from 0 to 2 and its origin",
)  # fmt: skip
EXTRA = {"outputs": whole(1, MOST), "scale": whole(1, MOST), "temperature": number(1e-3, 1e3),
         "embedding": whole(1, MOST), "threshold": THRESHOLD,
         "sound": DICTIONARY, "values": numbers()}  # fmt: skip
INPUT = {
    "image_size": whole(1, LARGEST_SIDE),
    "in_channels": whole(1, MOST),
    "mean": numbers(),
    "std": numbers(0),
    "crop_ratio": number(0, 1),
    "interpolation": (lambda value: value in INTERPOLATIONS, " or ".join(INTERPOLATIONS)),
}
PROGRESS = {"epoch": whole(0), "batch": whole(0), "seconds": number(-1), "best_epoch": whole(0), "pruned": TEXT,
            "best": (lambda value: type(value) in (int, float), "a number")}  # fmt: skip
CONFIG = {"data": DICTIONARY, "augment": DICTIONARY, "optim": DICTIONARY, "schedule": DICTIONARY, "epochs": whole(0),
          "precision": (lambda value: value in PRECISIONS, " or ".join(PRECISIONS)),
          "batch_size": (lambda value: type(value) in (int, str), "a whole number or text")}  # fmt: skip
CHECKPOINT = {"spec": DICTIONARY, "config": DICTIONARY, "progress": DICTIONARY, "model": TENSORS}
TRAINING = {"step": whole(0), "batch_size": whole(1), "images": LIST, "rows": LIST, "meter": METER,
            "optimizer": DICTIONARY, "scaler": DICTIONARY}  # fmt: skip


def check_checkpoint(content: dict[str, Any], source: str) -> None:
    """Raise UserError where a checkpoint of cnnbench does not hold what belongs into one."""
    _check(content, CHECKPOINT, source, "")
    for name in ("spec", "config", "progress"):
        _check_plain(content[name], f"{source}: {name}")
    spec = spec_of(content["spec"], source)
    _check(content["config"], CONFIG, source, "config.")
    if not isinstance(content["config"].get("run", {}), dict):
        raise UserError(f"{source} is not as cnnbench writes it: config.run is no dictionary")
    _check(content["progress"], PROGRESS, source, "progress.", optional=("pruned",), closed=True)
    check_fits(spec, content["model"], source)


def check_training(content: dict[str, Any], source: str) -> None:
    """Raise UserError where a checkpoint does not hold what a training needs to go on."""
    _check(content, TRAINING, source, "")
    for number_of, row in enumerate(content["rows"]):
        _check(row, {"epoch": whole(0), "step": whole(0)}, source, f"rows.{number_of}.")


def spec_of(content: Any, source: str) -> ModelSpec:
    """Checked spec from its plain values. Raises UserError."""
    content = modern(content)
    _check(content, SPEC, source, "spec.", optional=("task", "extra"), closed=True)
    own_nets.check_pinned(content["model"], source)
    given = content["input"]
    _check(given, INPUT, source, "spec.input.", optional=("crop_ratio", "interpolation"), closed=True)
    for name in ("mean", "std"):
        if len(given[name]) != given["in_channels"]:
            raise UserError(f"{source} is not as cnnbench writes it: spec.input.{name} has {len(given[name])} values "
                            f"for {given['in_channels']} channels")  # fmt: skip
    extra = content.get("extra", {})
    _check(extra, EXTRA, source, "spec.extra.", optional=tuple(EXTRA))
    if "sound" in extra:
        _check(extra["sound"], SOUND, source, "spec.extra.sound.", closed=True)
    return ModelSpec.from_dict(content)


def modern(content: Any) -> Any:
    """Spec in today's layout: that of formats 1 and 2 had all in one level, for classification."""
    if not isinstance(content, dict) or "classes" not in content:
        return content
    rest = {key: value for key, value in content.items() if key not in ("model", "classes")}
    return {"model": content.get("model"), "labels": content["classes"], "input": rest}


def check_fits(spec: ModelSpec, state: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError where the net of a spec cannot be built, or these are not its weights."""
    try:
        with torch.device("meta"), Shapes():
            net = models.build_for(spec.model, outputs=spec.outputs, in_channels=spec.input.in_channels)
        if spec.input.image_size != net.image_size:  # it takes a second for a large net
            models.check_image_size(net, spec.input.image_size)
    except (UserError, TypeError) as error:
        raise UserError(f"{source}: {error}") from None
    own = net.state_dict()
    head = next((name for name, value in net.named_parameters() if value is output_layer(net).weight), "")
    if head in state and state[head].ndim and state[head].shape[0] != own[head].shape[0]:
        what = "has {0} outputs" if "outputs" in spec.extra else "names {0} classes"
        raise UserError(f"{source} {what.format(spec.outputs)}, but its weights are for {state[head].shape[0]}")
    missing = [f"{name} is missing" for name in own if name not in state]
    surplus = [f"{name} is not in the net" for name in state if name not in own]
    if wrong := [*missing, *surplus, *differences(own, state)]:
        raise UserError(f"{source}: its weights do not fit its own net, {spec.model['name']}: {some(wrong)}")


def differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Tensors of these names that are of another shape or kind than the net's own."""
    return [
        f"{name} is {described(state[name])} in the file, {described(value)} in the net"
        for name, value in own.items()
        if name in state
        and (state[name].shape != value.shape or value.is_floating_point() > state[name].is_floating_point())
    ]


def check_kinds(state: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError for weights that are no dense tensors of real numbers."""
    for name, value in state.items():
        if value.is_complex() or value.is_quantized or value.layout is not torch.strided or value.is_meta:
            raise UserError(f"{source}: {name} is {described(value)}: only dense tensors of real numbers are weights")


def described(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{tuple(tensor.shape)}" + ("" if tensor.is_floating_point() else f" of {kind}")


def _check(content: Any, rules: Mapping[str, Rule], source: str, where: str, *, optional: tuple[str, ...] = (),
           closed: bool = False) -> None:  # fmt: skip
    """Raise UserError for what is missing or of another kind. closed: for keys without a rule, too."""
    begin = f"{source} is not as cnnbench writes it: "
    if not isinstance(content, dict):
        raise UserError(f"{begin}{where.removesuffix('.')} is {_shown(content)}, not a dictionary")
    for key, (accepts, words) in rules.items():
        if key not in content and key not in optional:
            raise UserError(f"{begin}it has no {where}{key}")
        if key in content and not accepts(content[key]):
            raise UserError(f"{begin}{where}{key} is {_shown(content[key])}, not {words}")
    if closed and (surplus := [str(key) for key in content if key not in rules]):
        raise UserError(f"{begin}it has {where}{surplus[0]}, which this version does not know")


def _check_plain(tree: Any, where: str) -> None:
    """Raise UserError where a tree is too deep or too large to be settings, or refers to what lies outside of it."""
    level, entries = [tree], 0
    for _ in range(DEPTH):
        if any(isinstance(item, str) and "${" in item for item in level):
            raise UserError(f"{where} refers to other values (${{…}}), but saved settings are values alone")
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        entries += sum(map(len, inside))
        if entries > ENTRIES or not inside:
            break
        level = [item for items in inside for item in items]
    if inside:
        raise UserError(f"{where} is nested too deep or too long to be what cnnbench writes")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {described(value)}"
    if isinstance(value, int) and abs(value) > FAR:
        return "a number far too large"
    text = repr(value) if isinstance(value, str | int | float | None) else ""
    return text if 0 < len(text) <= 40 else f"of type {type(value).__name__}"
