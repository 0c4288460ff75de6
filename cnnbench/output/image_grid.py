"""How a net did, in pictures: sheets of images with its answers under them, and what its confidence is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnbench.output.figure import array, label, new_figure, save
from cnnbench.tasks.classification.metrics import Calibration

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#767676"
PIXELS = 320  # longest side of the pictures that a sheet is given
PAGE = 36  # cells on one sheet
# Inches of a cell: its width with the gap beside it, the picture, a line of text, a bar.
WIDTH, GAP, PICTURE, LINE, BAR = 2.1, 0.15, 1.55, 0.2, 0.19
MARGIN = 0.2


@dataclass(frozen=True)
class Cell:
    """A picture uint8 (H, W, 3), what is written under it, and a bar for each class: name, probability, is it true."""

    picture: np.ndarray
    title: str
    note: str
    bars: Sequence[tuple[str, float, bool]]


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
    ax.text(left + room - 0.05, middle - 0.02, percent(probability), va="center", ha="right", fontsize=7.5)


def percent(probability: float) -> str:
    """With a digit where it matters: 100 % and 0 % are said only where they are exact."""
    value = 100 * float(probability)
    if 99.95 <= value < 100:
        return ">99.9 %"
    return "<0.1 %" if 0 < value < 0.05 else f"{value:.1f} %"


def calibration(found: Calibration, path: str | Path, title: str) -> Figure:
    """How often the net is right against how sure it is: on the diagonal its confidence means what it says.

    Below: how many of the answers are that sure.
    """
    counts, confidence, accuracy = array(found.counts), array(found.confidence), array(found.accuracy)
    figure = new_figure(5.6, 6.0, f"{title}\ncalibration error {found.error:.2f} % (ECE, {len(counts)} bins)")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    edges, used = np.arange(len(counts)) / len(counts), counts > 0
    width = 1 / len(counts)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 2)), linewidth=1, label="confidence as it should be")
    ax.bar(edges[used], accuracy[used], width, align="edge", color=BLUE, alpha=0.45, edgecolor="white",
           label="share of right answers")  # fmt: skip
    ax.plot(confidence[used], accuracy[used], "o", color=VERMILLION, markersize=4, label="mean confidence of the bin")
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="right answers")
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    below.bar(edges, 100 * counts / max(counts.sum(), 1), width, align="edge", color=GREY, edgecolor="white")
    below.set(xlabel="confidence: probability of the answer", ylabel="answers, %")
    for axes in (ax, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return save(figure, path)
