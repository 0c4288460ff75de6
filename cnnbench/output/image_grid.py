"""Grids of images: pages of cells with bars under each image, and a batch of small images with lines of text above."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnbench.output.figure import BLUE, GREY, VERMILLION, array, label, new_figure, percent, save

PIXELS = 320  # longest side of the pictures that a sheet is given
PAGE = 36  # cells on one sheet
# Inches of a cell: its width with the gap beside it, the picture, a line of text, a bar.
WIDTH, GAP, PICTURE, LINE, BAR = 2.1, 0.15, 1.55, 0.2, 0.19
MARGIN = 0.2
SHOWN = 32  # images of a batch that are drawn
COLUMNS = 8  # of them in a row


@dataclass(frozen=True)
class Cell:
    """A picture uint8 (H, W, 3), what is written under it, and a bar for each class: name, probability, is it true."""

    picture: np.ndarray
    title: str
    note: str
    bars: Sequence[tuple[str, float, bool]]


class Box(NamedTuple):
    """Where a picture lies, in inches from the figure's lower left corner."""

    x: float
    y: float
    width: float
    height: float


def draw(cells: Sequence[Cell], path: str | Path, title: str) -> Figure:
    """One sheet of the cells, about as wide as a slide. In the manner of figure 4 of the AlexNet paper."""
    bars = max(len(cell.bars) for cell in cells)
    height = PICTURE + 2 * LINE + bars * BAR + 2 * GAP
    columns = min(len(cells), max(1, round(math.sqrt(len(cells) * 16 / 9 * height / WIDTH))))
    rows = math.ceil(len(cells) / columns)
    width, total = max(columns * WIDTH + GAP, 6.4) + MARGIN, rows * height + 0.45
    figure = new_figure(width, total, title, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, total))
    ax.axis("off")
    left = (width - columns * WIDTH + GAP) / 2
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        _cell(ax, cell, left + column * WIDTH, total - 0.4 - row * height)
    return save(figure, path)


def _cell(ax: Axes, cell: Cell, left: float, top: float) -> None:
    """The cell with its upper left corner there, in inches."""
    room = WIDTH - GAP
    scale = min(room / cell.picture.shape[1], PICTURE / cell.picture.shape[0])
    wide, high = cell.picture.shape[1] * scale, cell.picture.shape[0] * scale
    x, y = left + (room - wide) / 2, top - PICTURE + (PICTURE - high) / 2
    smooth = "nearest" if max(cell.picture.shape[:2]) < 100 else "antialiased"
    ax.imshow(cell.picture, extent=(x, x + wide, y, y + high), interpolation=smooth, aspect="auto", zorder=2)
    ax.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=GREY, linewidth=0.6, zorder=3))
    at = top - PICTURE - LINE / 2 - 0.02
    ax.text(left + room / 2, at, label(cell.title, 24), ha="center", va="center", fontsize=9.5, fontweight="bold")
    ax.text(left + room / 2, at - LINE + 0.03, label(cell.note, 34), ha="center", va="center", fontsize=7, color=GREY)
    for number, (name, probability, true) in enumerate(cell.bars):
        bottom = at - 1.5 * LINE - (number + 1) * BAR + 0.03
        _bar(ax, left, bottom, room, name, probability, true)


def _bar(ax: Axes, left: float, bottom: float, room: float, name: str, probability: float, true: bool) -> None:
    color, middle = VERMILLION if true else BLUE, bottom + BAR / 2
    ax.add_patch(Rectangle((left, bottom), room, BAR - 0.03, facecolor="#F2F2F2", edgecolor="none"))
    ax.add_patch(
        Rectangle((left, bottom), room * probability, BAR - 0.03, facecolor=color, alpha=0.35, edgecolor="none")
    )
    weight = "bold" if true else "normal"
    text = f"{label(name, 22 if not true else 18)}{' ✓' if true else ''}"
    ax.text(left + 0.05, middle - 0.02, text, va="center", fontsize=7.5, fontweight=weight)
    ax.text(left + room - 0.05, middle - 0.02, percent(probability, 1), va="center", ha="right", fontsize=7.5)


def first_pictures(images: Any) -> np.ndarray:
    """The first images as N,H,W,C."""
    return array(images[:SHOWN]).transpose(0, 2, 3, 1)


def picture_boxes(pictures: np.ndarray, title: str, lines: int) -> tuple[Figure, Axes, list[Box], int]:
    """A figure with a box for each picture and room for `lines` of text above it; and how many characters a line holds.

    All boxes lie in one Axes over the whole figure, measured in inches: 32 Axes take matplotlib a quarter of a second.
    """
    columns = min(COLUMNS, max(len(pictures), 1))
    rows = max(math.ceil(len(pictures) / columns), 1)
    aspect = pictures.shape[1] / pictures.shape[2]
    cell, gap, head = min(3.0, max(1.5, 6 / columns)), 0.1, 0.28  # inches
    step = cell * aspect + gap + 0.16 * lines
    width, height = max(columns * cell + gap, 7.2), rows * step + head + gap
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
    """A line of text so many points above a picture."""
    middle = box.x + box.width / 2, box.y + box.height
    ax.annotate(text, middle, (0, points), textcoords="offset points", ha="center", fontsize=8, **style)
