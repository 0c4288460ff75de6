"""Summary of a net from its shapes, with the numbers of its paper, as `cnnbench summary` shows it.

Neurons are the outputs of convolutions and fully connected layers. Shares are of the parameters and multiply-adds at
inference; auxiliary heads are counted apart.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cnnbench import models
from cnnbench.analysis.complexity import Layer, layer_complexity
from cnnbench.analysis.published import FACTS, Facts, facts_key, parse_printed
from cnnbench.config.commands import SummaryConfig
from cnnbench.config.sections import Layers
from cnnbench.models import MODELS, build, check_image_size
from cnnbench.models.layers import Net
from cnnbench.models.meta_kernels import Shapes
from cnnbench.utils.format import in_millions

KINDS = {
    "Conv2d": "conv",
    "ConvTranspose2d": "conv",
    "Linear": "fc",
    "LocallyConnected2d": "local",
    "MaxPool2d": "max pool",
    "AvgPool2d": "average pool",
    "AdaptiveAvgPool2d": "average pool",
    "AdaptiveMaxPool2d": "max pool",
    "BatchNorm2d": "batch norm",
    "LayerNorm": "layer norm",
    "LocalResponseNorm": "response norm",
    "ReLU": "relu",
    "Dropout": "dropout",
    "PadShortcut": "zero pad",
}
WEIGHTED = ("conv", "fc", "local")
POOLS = ("max pool", "average pool")


@dataclass(frozen=True)
class Summary:
    """A net and its numbers. asked: settings that make it differ from the paper's net; label: its name with these."""

    net: Net
    label: str
    name: str
    asked: list[str]
    image_size: int
    in_channels: int
    num_classes: int
    rows: list[Layer]
    params: int
    macs: int
    aux_params: int
    aux_skipped: int  # smallest image size for the auxiliary heads, if these images are smaller; else 0
    facts_key: str | None  # key of its paper's numbers in FACTS
    as_published: bool  # whether the published numbers are of this very net

    @property
    def published(self) -> Facts | None:
        return FACTS[self.facts_key] if self.facts_key else None

    @property
    def depth(self) -> int:
        return self.rows[-1].depth

    @property
    def neurons(self) -> int:
        return sum(layer_neurons(row) for row in self.rows)


def summarize(cfg: SummaryConfig) -> Summary:
    arguments = dict(cfg.model)
    name, source = arguments.pop("name"), arguments.get("source", "cnnbench")
    channels = arguments.pop("in_channels", None)
    in_channels = cfg.in_channels or channels or models.own_channels(name, **arguments)
    if cfg.image_size and "image_size" in arguments:  # locally connected layers are built for one size
        arguments["image_size"] = cfg.image_size
    with torch.device("meta"), Shapes():
        net = build(name, num_classes=cfg.num_classes, in_channels=in_channels, **arguments)
    size = cfg.image_size or net.image_size
    rows = _rows(net, size, in_channels)
    key = facts_key(name, arguments) if source == "cnnbench" else None
    asked = _asked(cfg, MODELS[name] if source == "cnnbench" else None, arguments)
    return Summary(
        net=net,
        label=" ".join([name, *asked]),
        name=name,
        asked=asked,
        image_size=size,
        in_channels=in_channels,
        num_classes=rows[-1].output_shape[0],
        rows=rows,
        params=sum(row.weights + row.biases for row in rows),
        macs=sum(row.macs for row in rows),
        aux_params=sum(p.numel() for head in net.auxiliary.values() for p in head.parameters()),
        aux_skipped=net.aux_image_size if net.auxiliary and size < net.aux_image_size else 0,
        facts_key=key,
        as_published=key is not None and all(f"{name} {setting}" in FACTS for setting in asked),
    )


def _asked(cfg: SummaryConfig, builder: Callable[..., Net] | None, arguments: dict[str, Any]) -> list[str]:
    """Settings that make the net differ from its paper's: other arguments, image size, channels or classes."""
    parameters = inspect.signature(builder).parameters if builder else {}
    own = {key: parameter.default for key, parameter in parameters.items()}
    given = {"num_classes": cfg.num_classes, "image_size": cfg.image_size, "in_channels": cfg.in_channels}
    changed = {key: value for key, value in arguments.items() if key in own and value != own[key]}
    changed |= arguments.get("args") or {}
    changed |= {key: value for key, value in given.items() if value not in (None, own.get(key))}
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changed.items()]


def _rows(net: Net, size: int, in_channels: int) -> list[Layer]:
    try:
        return layer_complexity(net, size, in_channels)
    except (RuntimeError, ValueError, AssertionError):
        check_image_size(net, size)  # a UserError if the image size is wrong
        raise


def layer_kind(row: Layer) -> str:
    return KINDS.get(row.kind, row.kind)


def layer_neurons(row: Layer) -> int:
    return row.neurons if layer_kind(row) in WEIGHTED else 0


def shown_layers(rows: list[Layer], which: Layers) -> list[Layer]:
    """Layers that `layers=` shows. main: layers with parameters or multiply-adds, and pools that change their input."""
    if which is Layers.all:
        return rows
    return [
        row
        for row in rows
        if row.weights + row.biases + row.macs or (layer_kind(row) in POOLS and not is_identity_pool(row))
    ]


def is_identity_pool(row: Layer) -> bool:
    return row.kind.startswith("Adaptive") and row.input_shape == row.output_shape


def summary_as_dict(summary: Summary, which: Layers, published: dict[str, Any] | None) -> dict[str, Any]:
    """Object for `format=json`. published: the numbers of the paper."""
    return {
        "model": summary.name,
        "settings": summary.asked,
        "params": summary.params,
        "macs": summary.macs,
        "depth": summary.depth,
        "image_size": summary.image_size,
        "in_channels": summary.in_channels,
        "num_classes": summary.num_classes,
        "neurons": summary.neurons,
        "aux_params": summary.aux_params,
        "layers": [layer_as_dict(summary, row) for row in shown_layers(summary.rows, which)],
        "published": published,
        "notes": summary_notes(summary),
    }


def layer_as_dict(summary: Summary, row: Layer) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": layer_kind(row),
        "kernel": row.kernel,
        "output_shape": list(row.output_shape),
        "neurons": layer_neurons(row),
        "weights": row.weights,
        "biases": row.biases,
        "macs": row.macs,
        "receptive_field": row.receptive_field,
        "depth": row.depth,
        "params_share": (row.weights + row.biases) / summary.params,
        "macs_share": row.macs / summary.macs if summary.macs else 0.0,
    }


def summary_notes(summary: Summary) -> list[str]:
    """Notes on the numbers, and on contradictions within the paper."""
    found = list(summary.published.notes) if summary.published else []
    weights = sum(row.weights for row in summary.rows)
    convolutions = [row for row in summary.rows if layer_kind(row) == "conv"]
    if summary.macs and weights and any(layer_kind(row) == "fc" for row in summary.rows):
        compute, part = (
            sum(row.macs for row in convolutions) / summary.macs,
            sum(r.weights for r in convolutions) / weights,
        )
        found.insert(0, f"convolutions: {compute:.1%} of the multiply-adds, with {part:.1%} of the weights")
    return [*found, *_bottleneck(summary.rows)]


def _bottleneck(rows: list[Layer]) -> list[str]:
    """Note on the lecture's example of a 1x1 bottleneck: GoogLeNet's first 5x5 convolution, with and without it."""
    branch = [row for row in rows if row.name.startswith("inception3a.branch3.") and layer_kind(row) == "conv"]
    if len(branch) != 2:
        return []
    reduce, conv = branch
    maps, inner, total = reduce.input_shape[0], reduce.output_shape[0], reduce.macs + conv.macs
    direct = conv.macs // inner * maps
    return [
        f"the {conv.kernel} of 3a straight from {maps} maps would take {in_millions(direct)} multiply-adds; with "
        f"the 1x1 to {inner} maps before it, {in_millions(reduce.macs)} + {in_millions(conv.macs)} = "
        f"{in_millions(total)}, {direct / total:.1f} times fewer"
    ]


def difference_from_print(measured: int, printed: str) -> str:
    """Difference of a number from the printed one; "as printed" where it rounds to that or keeps its bound."""
    value, unit = parse_printed(printed)
    decimals = len(printed.partition(" ")[0].partition(".")[2])
    within = measured < value if printed[0] == "<" else measured > value if printed[0] == ">" else False
    if within or round(measured / unit, decimals) == round(value / unit, decimals):
        return "as printed"
    return f"{measured / value - 1:+.1%}" if unit > 1 else f"{measured - value:+.0f}"
