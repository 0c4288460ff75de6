"""Colours of the classes, the same in every picture and in masks that are written: the data set's own, else VOC's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnbench.data.sources import IGNORE

Colors = np.ndarray
"""uint8 (256, 3): a colour for each value of a mask."""

IGNORED = (224, 224, 192)  # of Pascal VOC's borders


def colors_of(extra: Mapping[str, Any]) -> Colors:
    """Colours of a data set or net, by its `extra`."""
    colors = voc_colors()
    own = extra.get("colors")
    if own:
        colors[: len(own)] = own
    colors[IGNORE] = IGNORED
    return colors


def voc_colors() -> Colors:
    """Pascal VOC's colours: the bits of a class's number, three at a time, are the highest bits of red, green, blue."""
    numbers, colors = np.arange(256), np.zeros((256, 3), np.int64)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= (numbers >> (3 * level + channel) & 1) << (7 - level)
    return colors.astype(np.uint8)
