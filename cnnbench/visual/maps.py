"""Feature maps: what each unit of a layer answers, place by place, to one image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnbench.visual.sheet import coloured


@dataclass(frozen=True, eq=False)
class Map:
    """One unit's answer to an image, as a picture, and its smallest and largest value."""

    unit: int
    picture: np.ndarray
    low: float
    high: float


def strongest(maps: Tensor, count: int) -> list[int]:
    """The units whose maps (C, H, W) vary most over the places, in their own order: an even map shows nothing,
    nor does one that only finds the edge of the image, where the padding begins."""
    inside = maps[:, 1:-1, 1:-1] if min(maps.shape[1:]) > 4 else maps
    spread = inside.flatten(1).std(1, correction=0)
    return sorted(spread.topk(min(count, len(spread))).indices.tolist())


def draw(maps: Tensor, units: list[int]) -> list[Map]:
    """Each unit's map (C, H, W) from its own smallest to its own largest value, dark to bright."""
    found = []
    for unit in units:
        values = torch.nan_to_num(maps[unit].float())
        low, high = float(values.min()), float(values.max())
        found.append(Map(unit, coloured(values, low, high), low, high))
    return found
