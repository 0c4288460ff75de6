"""What a file of tensors alone cannot tell: which variant of its net they are of, and how its images were normalised.

Variants are nets that share all names and shapes, but compute something else: another `shortcut_pad` of a ResNet's
option A, a `_v1`, a plain net for a residual one.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from cnnbench import models
from cnnbench.data.moments import IMAGENET_MEAN, IMAGENET_STD
from cnnbench.models.layers import Net
from cnnbench.models.meta_kernels import Shapes
from cnnbench.utils.errors import UserError
from cnnbench.weights.merge import WITHOUT_EFFECT

BYTE = 1 / 255  # std of images in 0..255
# Usual normalisations of images with three channels: mean and std, in 0..1.
NORMALISATIONS: tuple[tuple[list[float], list[float]], ...] = (
    (list(IMAGENET_MEAN), list(IMAGENET_STD)),
    ([0.5] * 3, [0.5] * 3),  # -1..1
    ([0.0] * 3, [1.0] * 3),  # 0..1
    ([0.0] * 3, [BYTE] * 3),  # 0..255
    (list(IMAGENET_MEAN), [BYTE] * 3),  # 0..255 without the mean, as in Caffe
    ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),  # CIFAR-10's as it is often quoted
)


def normalisations(mean: list[float], std: list[float]) -> list[tuple[list[float], list[float]]]:
    """Normalisations to try, this one first."""
    usual = [(mean, std), *((one[: len(mean)], other[: len(std)]) for one, other in NORMALISATIONS)]
    return [pair for number, pair in enumerate(usual) if pair not in usual[:number]]


def variants(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Nets, by name and arguments, that share the names and shapes of this one but not its function."""
    model = {key: value for key, value in model.items() if value is not None}
    if model.get("source", "cnnbench") != "cnnbench":
        return []
    own, found = _sketch(model), []
    functions = [_function(own)]
    for one in _candidates(model):
        net = _sketch(one)
        if net is not None and _shapes(net) == _shapes(own) and _function(net) not in functions:
            functions.append(_function(net))
            found.append(one)
    return found


def channels(state: Mapping[str, Tensor], model: dict[str, Any], usual: int) -> int:
    """Channels of the images that tensors of this net are for: three where its first layer fits no `usual` number."""
    own, coloured = (_sketch({**model, "in_channels": number}) for number in (usual, 3))
    if own is None or coloured is None:
        return usual
    colours = _shapes(coloured)
    first = next((name for name, shape in _shapes(own).items() if shape != colours[name]), None)
    theirs = [value.shape for name, value in state.items() if f".{name}".endswith(f".{first}")]
    return 3 if first and theirs == [colours[first]] else usual


def settings(variant: dict[str, Any], model: dict[str, Any]) -> str:
    """What to type for a variant in place of the net: `model.shortcut_pad=both`."""
    if variant["name"] != model["name"]:
        return f"model={variant['name']}"
    return " ".join(f"model.{key}={_typed(value)}" for key, value in variant.items() if model.get(key) != value)


def unknown(source: str, model: dict[str, Any]) -> str:
    """Sentence about variants that the file may be of as well; empty where there is none."""
    others = [settings(one, model) for one in variants(model)]
    if not others:
        return ""
    return f"net: {source} may be of a variant with the same names and shapes: {' or '.join(others)}"


def assumptions(source: str, model: dict[str, Any], data_name: str, typed: Collection[str]) -> list[str]:
    """What is assumed of the weights in a file of tensors alone, a sentence each. data_name: as whose images
    these are normalised."""
    return [*filter(None, [unknown(source, model)]), *normalised(data_name, typed)]


def normalised(data_name: str, typed: Collection[str]) -> list[str]:
    """Sentence on the normalisation that is assumed; none where both of its keys were typed."""
    if {"data.mean", "data.std"} <= {*typed}:
        return []
    return [f"images: normalised as {data_name} usually is; set data.mean and data.std if the weights need others"]


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _candidates(model: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Other values of the arguments that are a choice, and other nets of the same depth."""
    choices = {key: values for key, values in _choices(model["name"]).items() if key not in WITHOUT_EFFECT}
    for values in product(*choices.values()):
        yield {**model, **dict(zip(choices, values, strict=True))}
    depth = re.findall(r"\d+", model["name"])
    shared = {key: model[key] for key in ("num_classes", "in_channels") if key in model}
    yield from ({"name": name, **shared} for name in models.MODELS if re.findall(r"\d+", name)[:1] == depth[:1])


def _choices(name: str) -> dict[str, tuple[Any, ...]]:
    parameters = inspect.signature(models.MODELS[name]).parameters.values()
    kinds = {one.name: (True, False) if one.annotation is bool else get_args(one.annotation)
             for one in parameters if one.annotation is bool or get_origin(one.annotation) is Literal}  # fmt: skip
    return {key: values for key, values in kinds.items() if len(values) > 1}


def _sketch(model: dict[str, Any]) -> Any:
    """The net without memory for its weights; None where it cannot be built so."""
    try:
        with torch.device("meta"), Shapes():
            return models.build(**model)
    except UserError:
        return None


def _shapes(net: Net) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


def _function(net: nn.Module) -> list[Any]:
    """What a net computes, as its modules, in order, and their plain attributes tell. Classes by name: torch.fx makes a
    new one for each net that it traces, and keeps its code in an attribute."""
    plain = (bool, int, float, str, tuple)
    return [(type(module).__module__, type(module).__qualname__,
             sorted((key, str(value)) for key, value in vars(module).items()
                    if key != "name" and isinstance(value, plain)))
            for module in net.modules()]  # fmt: skip
