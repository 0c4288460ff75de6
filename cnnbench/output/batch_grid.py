"""The first images of a batch side by side, with lines of text above each."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnbench.output.figure import GREY, array, new_figure, title_height

SHOWN = 32  # images of a batch that are drawn
COLUMNS = 8


class Box(NamedTuple):
    """Position and size of a picture, in inches from the lower left corner of the figure."""

    x: float
    y: float
    width: float
    height: float


def first_pictures(images: Any) -> np.ndarray:
    """Array (N, H, W, C) of the first images of a batch (N, C, H, W); of other than 1 or 3 channels their mean."""
    pictures = array(images[:SHOWN]).transpose(0, 2, 3, 1)
    return pictures if pictures.shape[-1] in (1, 3) else pictures.mean(axis=-1, keepdims=True)


def picture_boxes(pictures: np.ndarray, title: str, lines: int) -> tuple[Figure, Axes, list[Box], int]:
    """Figure, Axes, a box for each picture with room for `lines` of text above, and the characters that a line holds.

    All boxes lie in one Axes over the whole figure, measured in inches: 32 Axes take matplotlib a quarter of a second.
    """
    columns = min(COLUMNS, max(len(pictures), 1))
    rows = max(math.ceil(len(pictures) / columns), 1)
    aspect = pictures.shape[1] / pictures.shape[2]
    cell, gap = min(3.0, max(1.5, 6 / columns)), 0.1  # inches
    step = cell * aspect + gap + 0.16 * lines
    width = max(columns * cell + gap, 7.2)
    head = title_height(title, width)
    height = rows * step + head + gap
    figure = new_figure(width, height, title, layout=None)
    left = (width - columns * cell + gap) / 2
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)
    ax.axis("off")
    places = [divmod(index, columns) for index in range(len(pictures))]
    boxes = [
        Box(left + column * cell, height - head - (row + 1) * step, cell - gap, (cell - gap) * aspect)
        for row, column in places
    ]
    return figure, ax, boxes, int(cell * 14)


def draw_picture(ax: Axes, box: Box, picture: np.ndarray, color: str = GREY, width: float = 0.6) -> None:
    gray = picture.shape[-1] == 1
    interpolation = "nearest" if max(picture.shape) < 100 else "antialiased"
    extent = (box.x, box.x + box.width, box.y, box.y + box.height)
    ax.imshow(picture[..., 0] if gray else picture, cmap="gray" if gray else None, vmin=0, vmax=255,
              interpolation=interpolation, extent=extent, aspect="auto")  # fmt: skip
    ax.add_patch(Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=color, linewidth=width))


def write_above(ax: Axes, box: Box, text: str, points: float, **style: Any) -> None:
    """Write a line of text above a picture, at a distance in points."""
    middle = box.x + box.width / 2, box.y + box.height
    ax.annotate(text, middle, (0, points), textcoords="offset points", ha="center", fontsize=8, **style)
