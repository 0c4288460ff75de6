"""Pages of images, each with a title, a note and a bar for each of its likeliest classes under it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnbench.output.figure import BLUE, GREY, VERMILLION, new_figure, save_figure, short_label, title_height
from cnnbench.utils.format import probability_percent

PIXELS = 320  # longest side of the pictures on cards
PAGE = 36  # cards on one page
# Inches of a card: its width with the gap beside it, the picture, a line of text, a bar.
WIDTH, GAP, PICTURE, LINE, BAR = 2.1, 0.15, 1.55, 0.2, 0.19
MARGIN = 0.2


@dataclass(frozen=True)
class Card:
    """A picture, uint8 (H, W, 3), with a title, a note and bars under it: class, probability, whether it is true."""

    picture: np.ndarray
    title: str
    note: str
    bars: Sequence[tuple[str, float, bool]]


def draw_cards(cards: Sequence[Card], path: str | Path, title: str) -> Figure:
    """One page of all cards, in the shape of a slide, after figure 4 of the AlexNet paper."""
    bars = max(len(card.bars) for card in cards)
    height = PICTURE + 2 * LINE + bars * BAR + 2 * GAP
    columns = min(len(cards), max(1, round(math.sqrt(len(cards) * 16 / 9 * height / WIDTH))))
    rows = math.ceil(len(cards) / columns)
    width = max(columns * WIDTH + GAP, 6.4) + MARGIN
    head = title_height(title, width)
    total = rows * height + head + 0.17
    figure = new_figure(width, total, title, layout=None)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, total))
    ax.axis("off")
    left = (width - columns * WIDTH + GAP) / 2
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        _draw_card(ax, card, left + column * WIDTH, total - head - 0.12 - row * height)
    return save_figure(figure, path)


def _draw_card(ax: Axes, card: Card, left: float, top: float) -> None:
    """Draw a card with its upper left corner at (left, top), in inches."""
    room = WIDTH - GAP
    scale = min(room / card.picture.shape[1], PICTURE / card.picture.shape[0])
    wide, high = card.picture.shape[1] * scale, card.picture.shape[0] * scale
    x, y = left + (room - wide) / 2, top - PICTURE + (PICTURE - high) / 2
    smooth = "nearest" if max(card.picture.shape[:2]) < 100 else "antialiased"
    ax.imshow(card.picture, extent=(x, x + wide, y, y + high), interpolation=smooth, aspect="auto", zorder=2)
    ax.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=GREY, linewidth=0.6, zorder=3))
    at = top - PICTURE - LINE / 2 - 0.02
    ax.text(left + room / 2, at, short_label(card.title, 24), ha="center", va="center", fontsize=9.5, fontweight="bold")
    ax.text(
        left + room / 2, at - LINE + 0.03, short_label(card.note, 34), ha="center", va="center", fontsize=7, color=GREY
    )
    for number, (name, probability, true) in enumerate(card.bars):
        bottom = at - 1.5 * LINE - (number + 1) * BAR + 0.03
        _draw_bar(ax, left, bottom, room, name, probability, true)


def _draw_bar(ax: Axes, left: float, bottom: float, room: float, name: str, probability: float, true: bool) -> None:
    color, middle = VERMILLION if true else BLUE, bottom + BAR / 2
    ax.add_patch(Rectangle((left, bottom), room, BAR - 0.03, facecolor="#F2F2F2", edgecolor="none"))
    ax.add_patch(
        Rectangle((left, bottom), room * probability, BAR - 0.03, facecolor=color, alpha=0.35, edgecolor="none")
    )
    weight = "bold" if true else "normal"
    text = f"{short_label(name, 22 if not true else 18)}{' ✓' if true else ''}"
    ax.text(left + 0.05, middle - 0.02, text, va="center", fontsize=7.5, fontweight=weight)
    ax.text(
        left + room - 0.05, middle - 0.02, probability_percent(probability, 1), va="center", ha="right", fontsize=7.5
    )
