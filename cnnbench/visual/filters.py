"""`what=filters`: the filters of a convolution. Filters of one or three channels are images, deeper ones slices."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench.models.layers import Net
from cnnbench.output.image_grid import Row, Tile, best_columns, draw_grid, in_rows
from cnnbench.output.rgb import colour_mapped, to_rgb
from cnnbench.utils.errors import UserError, did_you_mean
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import choose_units, spread_indices

SHOWN = 256  # filters of a first layer
NUMBERED = 128  # filters up to which each has its number
SLICED = 12  # filters of a deeper layer
CHANNELS = 24  # input channels of a deeper filter
COLOURED = 0.25  # share of a filter's energy in its colours from which on the filter counts as coloured


def draw_filters(context: VisualizeContext) -> Iterator[Picture]:
    """The filters of each layer in `layer=`, by default of the first convolution."""
    for asked in context.layers or [""]:
        name, layer = find_convolution(context.model, asked)
        weight = layer.weight.detach().float().cpu()
        yield (_draw_images if weight.shape[1] in (1, 3) else _draw_slices)(context, name, weight)


def _draw_images(context: VisualizeContext, name: str, weight: Tensor) -> Picture:
    cfg = context.cfg
    units = choose_units(cfg.units, len(weight), name) or sort_filters(weight, cfg.sort.value)[:SHOWN]
    together = cfg.normalize.value == "together"
    images = filter_images(weight, together)
    tiles = [Tile(images[unit], str(unit) if len(units) <= NUMBERED else "") for unit in units]
    columns = best_columns(len(tiles))
    title = f"{context.heading}: the {len(tiles)} filters of {name}, {_kernel(weight)}"
    scale = "one scale for all" if together else "each on its own scale"
    order = {"colour": "order: gray ones from coarse to fine, then by hue", "frequency": "order: from coarse to fine",
             "none": "order of the net"}[cfg.sort.value] if cfg.units is None else "order of units="  # fmt: skip
    caption = (
        f"Patterns that the first layer detects. Middle gray is a weight of zero, {scale}; {order}. "
        "Above a filter: the number of its unit."
    )
    picture = context.new_picture("filters", f"filters-{name}", title, caption)
    draw_grid(in_rows(tiles, columns), picture.path, title, side=min(0.95, 8.5 / columns), font=6.5,
              footer=f"Middle gray is zero, {scale}; {order}.")  # fmt: skip
    return picture


def _draw_slices(context: VisualizeContext, name: str, weight: Tensor) -> Picture:
    units = choose_units(context.cfg.units, len(weight), name) or spread_indices(len(weight), SLICED)
    channels = strongest_channels(weight, units)
    largest = float(weight[units].abs().max())
    rows = [
        Row([Tile(image, title=str(channel) if number == 0 else "")
             for channel, image in zip(channels, slice_images(weight[unit, channels], largest), strict=True)],
            f"unit {unit}")
        for number, unit in enumerate(units)
    ]  # fmt: skip
    title = f"{context.heading}: filters of {name}, {_kernel(weight)}, by slices"
    shown = f"{len(channels)} of {weight.shape[1]} input channels, those with the largest weights" if (
        len(channels) < weight.shape[1]) else f"all {len(channels)} input channels"  # fmt: skip
    legend = f"Orange: weights above zero; purple: below; full colour at ±{largest:.2g}. Columns: {shown}."
    caption = f"A deeper filter has a slice of weights for each input channel. {legend}"
    picture = context.new_picture("filters", f"filters-{name}", title, caption)
    draw_grid(rows, picture.path, title, side=0.38, font=7, footer=legend)
    return picture


def _kernel(weight: Tensor) -> str:
    return f"{weight.shape[1]} × {weight.shape[2]} × {weight.shape[3]}"


def convolutions(model: Net) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def find_convolution(model: Net, name: str) -> tuple[str, nn.Conv2d]:
    """Name and module of the convolution `name`, or of the first one in the stage or block `name`; for "" the first
    of the net. UserError where there is none."""
    known = convolutions(model)
    if not known:
        raise UserError(f"{model.name} has no convolution, so there are no filters to draw")
    if not name:
        return next(iter(known.items()))
    if name in known:
        return name, known[name]
    inside = [part for module in model.stages.get(name, []) for part in module.modules()]
    inside += list(dict(model.named_modules()).get(name, nn.Identity()).modules())
    for known_name, layer in known.items():
        if any(layer is part for part in inside):
            return known_name, layer
    choices = [*model.stages, *known]
    raise UserError(
        f"{model.name} has no convolution '{name}'.{did_you_mean(name, choices)}\n"
        f"its stages: {', '.join(model.stages)}; and the layers of kind conv that `cnnbench summary` lists"
    )


@dataclass(frozen=True)
class FilterProperties:
    """Properties of K filters, each (K,): share of the energy in colours, hue in turns, spatial frequency in cycles
    per pixel, orientation in turns."""

    colour: Tensor
    hue: Tensor
    frequency: Tensor
    orientation: Tensor


def filter_properties(weight: Tensor) -> FilterProperties:
    """weight: float (K, 3 or 1, h, w)."""
    light = weight.mean(1)
    energy = weight.pow(2).sum((1, 2, 3)).clamp_min(1e-12)
    chroma = weight - light[:, None]
    colour = chroma.pow(2).sum((1, 2, 3)) / energy
    if weight.shape[1] == 3:
        # The colour where the filter is most coloured, on the two axes of colour opposition.
        strongest = chroma.pow(2).sum(1).flatten(1).argmax(1)
        r, g, b = chroma.flatten(2)[torch.arange(len(weight)), :, strongest].unbind(1)
        hue = torch.atan2(math.sqrt(3) * (g - b), 2 * r - g - b) / (2 * math.pi) % 1
    else:
        hue = torch.zeros(len(weight))
    size = 16  # zero-padded beyond the kernel, for a finer grid of frequencies
    power = torch.fft.fft2(light, s=(size, size)).abs().pow(2)
    rows, columns = torch.meshgrid(*[torch.fft.fftfreq(size)] * 2, indexing="ij")
    share = power / power.sum((1, 2), keepdim=True).clamp_min(1e-12)
    frequency = (share * (rows**2 + columns**2).sqrt()).sum((1, 2))
    double = torch.atan2((share * 2 * rows * columns).sum((1, 2)), (share * (columns**2 - rows**2)).sum((1, 2)))
    return FilterProperties(colour, hue, frequency, double / (2 * math.pi) % 1)


def sort_filters(weight: Tensor, by: str) -> list[int]:
    """Indices of the filters in order. `colour`: gray ones from coarse to fine, then coloured ones by hue;
    `frequency`: from coarse to fine; `none`: as in the net."""
    if by == "none":
        return list(range(len(weight)))
    found = filter_properties(weight)
    if by == "frequency":
        return torch.argsort(found.frequency).tolist()
    keys = [
        (bool(colour > COLOURED), float(hue) if colour > COLOURED else float(frequency))
        for colour, hue, frequency in zip(found.colour, found.hue, found.frequency, strict=True)
    ]
    return sorted(range(len(weight)), key=lambda index: keys[index])


def filter_images(weight: Tensor, together: bool) -> list[np.ndarray]:
    """RGB arrays of filters (K, 3 or 1, h, w). Zero is middle gray; the largest absolute value, of all filters if
    `together`, else of each filter, is black or white."""
    largest = weight.abs().amax(dim=(0, 1, 2, 3) if together else (1, 2, 3), keepdim=True).clamp_min(1e-12)
    return [to_rgb(image) for image in 0.5 + 0.5 * weight / largest]


def strongest_channels(weight: Tensor, units: Sequence[int], count: int = CHANNELS) -> list[int]:
    """The `count` input channels with the largest weights (K, C, h, w) in the filters `units`, in ascending order."""
    norms = weight[list(units)].pow(2).sum((0, 2, 3))
    return sorted(norms.topk(min(count, len(norms))).indices.tolist())


def slice_images(weight: Tensor, largest: float) -> list[np.ndarray]:
    """RGB arrays of slices (C, h, w) of one filter: orange above zero, purple below, white at zero."""
    return [colour_mapped(values, -largest, largest, "PuOr_r") for values in weight]
