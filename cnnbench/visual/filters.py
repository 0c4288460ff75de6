"""The filters of a convolution: as pictures where they look at colours or at gray, by slices in deeper layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError, did_you_mean
from cnnbench.visual.sheet import as_picture, coloured

SLICES = 24  # input channels of a deeper filter that are shown
COLOURED = 0.25  # part of a filter's energy that lies in its colours, from which on it counts as a coloured one


def convolutions(model: Net) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def find(model: Net, name: str) -> tuple[str, nn.Conv2d]:
    """The convolution of that name, or the first one of the stage of that name; by default the net's first."""
    known = convolutions(model)
    if not known:
        raise UserError(f"{model.name} has no convolution whose filters could be shown")
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
class Look:
    """Of each filter: how much of its energy is in its colours, their hue in turns, its frequency in cycles per pixel
    and its orientation in turns."""

    colour: Tensor
    hue: Tensor
    frequency: Tensor
    orientation: Tensor


def look(weight: Tensor) -> Look:
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
    size = 16  # more places than a filter has, so that frequencies between them are seen
    power = torch.fft.fft2(light, s=(size, size)).abs().pow(2)
    rows, columns = torch.meshgrid(*[torch.fft.fftfreq(size)] * 2, indexing="ij")
    share = power / power.sum((1, 2), keepdim=True).clamp_min(1e-12)
    frequency = (share * (rows**2 + columns**2).sqrt()).sum((1, 2))
    double = torch.atan2((share * 2 * rows * columns).sum((1, 2)), (share * (columns**2 - rows**2)).sum((1, 2)))
    return Look(colour, hue, frequency, double / (2 * math.pi) % 1)


def order(weight: Tensor, by: str) -> list[int]:
    """The filters' numbers. `colour`: gray ones first, from coarse to fine, then the coloured by their hue;
    `frequency`: from coarse to fine; `none`: as they are."""
    if by == "none":
        return list(range(len(weight)))
    seen = look(weight)
    if by == "frequency":
        return torch.argsort(seen.frequency).tolist()
    keys = [
        (bool(colour > COLOURED), float(hue) if colour > COLOURED else float(frequency))
        for colour, hue, frequency in zip(seen.colour, seen.hue, seen.frequency, strict=True)
    ]
    return sorted(range(len(weight)), key=lambda index: keys[index])


def pictures(weight: Tensor, together: bool) -> list[np.ndarray]:
    """Each filter (K, 3 or 1, h, w) as a picture: zero is middle gray, the largest value (of all filters together, or
    of each) is full light or dark."""
    largest = weight.abs().amax(dim=(0, 1, 2, 3) if together else (1, 2, 3), keepdim=True).clamp_min(1e-12)
    return [as_picture(picture) for picture in 0.5 + 0.5 * weight / largest]


def strongest_slices(weight: Tensor, units: Sequence[int], count: int = SLICES) -> list[int]:
    """The input channels that these filters (K, C, h, w) weigh most, in their own order."""
    norms = weight[list(units)].pow(2).sum((0, 2, 3))
    return sorted(norms.topk(min(count, len(norms))).indices.tolist())


def slices(weight: Tensor, unit: int, channels: Sequence[int], largest: float) -> list[np.ndarray]:
    """One filter's weights of each input channel: orange above zero, purple below, white at zero."""
    return [coloured(weight[unit, channel], -largest, largest, "PuOr_r") for channel in channels]
