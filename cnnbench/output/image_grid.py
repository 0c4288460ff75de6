"""Grids of small images with titles and notes, drawn sharp: every image lies on whole pixels of the figure."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnbench.output.figure import GREY, VERMILLION, new_figure, save_figure, short_label, title_height
from cnnbench.output.rgb import resized_rgb

DPI = 144
MARGIN, GAP = 0.18, 0.08  # inches
LABEL = 1.05  # width of the labels left of the rows
WIDE = 16 / 9  # aspect of a page: about that of a slide


@dataclass(frozen=True, eq=False)
class Tile:
    """An image, uint8 (H, W, 3), with a title above and a note below it; `marked` draws a thick coloured frame."""

    picture: np.ndarray
    title: str = ""
    note: str = ""
    marked: bool = False


@dataclass(frozen=True, eq=False)
class Row:
    """Tiles side by side, with a name at their left."""

    tiles: Sequence[Tile] = field(default_factory=tuple)
    name: str = ""


def draw_grid(rows: Sequence[Row], path: str | Path, title: str, *, side: float = 1.5, footer: str = "",
              font: float = 8.5) -> Figure:  # fmt: skip
    """One page of all rows. side: width of a tile in inches, an image keeps its aspect; footer: how to read the page;
    font: points of the titles and notes."""
    line = font / 60  # inches of a line of text
    columns = max(len(row.tiles) for row in rows)
    left = MARGIN + (LABEL if any(row.name for row in rows) else 0)
    width = max(left + columns * (side + GAP) + MARGIN, 5.2)
    left += (width - left - columns * (side + GAP) - MARGIN) / 2
    top = title_height(title, width) + 0.07
    foot = [part for text in footer.splitlines() for part in textwrap.wrap(text, int(width * 15))]
    heights = [_row_height(row, side, line) for row in rows]
    height = top + sum(heights) + 0.16 * len(foot) + 1.5 * MARGIN
    width, height = math.ceil(width * DPI) / DPI, math.ceil(height * DPI) / DPI
    figure = new_figure(width, height, title, layout=None, dpi=DPI)
    canvas = np.full((round(height * DPI), round(width * DPI), 3), 255, np.uint8)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    for row, tall in zip(rows, heights, strict=True):
        _draw_row(ax, canvas, row, left, top, side, font)
        top += tall
    for number, text in enumerate(foot):
        ax.text(
            MARGIN,
            height - 0.16 * (len(foot) - number) - 0.06,
            short_label(text, 400),
            va="top",
            fontsize=8,
            color=GREY,
        )
    ax.imshow(canvas, extent=(0, width, height, 0), interpolation="nearest", aspect="auto", zorder=-1)
    return save_figure(figure, path)


def in_rows(tiles: Sequence[Tile], columns: int | None = None) -> list[Row]:
    """Rows of equal length; without `columns`, a grid in the shape of a slide."""
    columns = columns or best_columns(len(tiles))
    return [Row(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]


def best_columns(count: int) -> int:
    """Number of columns of a grid of `count` tiles that has about the shape of a slide and few empty places."""

    def penalty(columns: int) -> float:
        rows = math.ceil(count / columns)
        return 4 * (rows * columns - count) / count + 0.35 * abs(math.log(columns / rows / WIDE))

    return min(range(1, min(count, 24) + 1), key=penalty)


def _draw_row(ax: Axes, canvas: np.ndarray, row: Row, left: float, top: float, side: float, font: float) -> None:
    """Draw a row with its upper left corner at (left, top), in inches: texts into ax, images into the canvas."""
    top_of_images = top + _title_height(row, font / 60)
    if row.name:
        middle = top_of_images + max(_image_height(tile, side) for tile in row.tiles) / 2
        ax.text(left - 0.1, middle, _folded(row.name, 14), ha="right", va="center", fontsize=font + 0.5)
    for number, tile in enumerate(row.tiles):
        x = left + number * (side + GAP)
        _paste(canvas, tile, x, top_of_images, side)
        _write(ax, tile, x, top_of_images, side, font)


def _image_height(tile: Tile, side: float) -> float:
    return side * tile.picture.shape[0] / tile.picture.shape[1]


def _title_height(row: Row, line: float) -> float:
    return line if any(tile.title for tile in row.tiles) else 0


def _row_height(row: Row, side: float, line: float) -> float:
    below = line if any(tile.note for tile in row.tiles) else 0
    return _title_height(row, line) + max(_image_height(tile, side) for tile in row.tiles) + below + GAP


def _paste(canvas: np.ndarray, tile: Tile, x: float, y: float, side: float) -> None:
    """Copy the tile's image to the canvas, with its frame."""
    left, top, width = round(x * DPI), round(y * DPI), round(side * DPI)
    height = max(1, round(_image_height(tile, side) * DPI))
    if tile.marked:
        colour = [int(VERMILLION[at : at + 2], 16) for at in (1, 3, 5)]
        canvas[max(top - 4, 0) : top + height + 4, max(left - 4, 0) : left + width + 4] = colour
    else:  # a thin line, so that white edges of an image are seen
        canvas[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1] = 200
    canvas[top : top + height, left : left + width] = resized_rgb(tile.picture, height, width)


def _write(ax: Axes, tile: Tile, x: float, y: float, side: float, font: float) -> None:
    room = max(3, int(side * 125 / font))
    if tile.title:
        ax.text(x + side / 2, y - 0.03, short_label(tile.title, room), ha="center", va="bottom", fontsize=font)
    if tile.note:
        below = y + _image_height(tile, side) + 0.035
        ax.text(x + side / 2, below, short_label(tile.note, int(room * 1.15)), ha="center", va="top", fontsize=font - 1,
                color=GREY)  # fmt: skip


def _folded(name: str, width: int) -> str:
    """Name on up to four lines, broken at its dots and blanks."""
    lines = [line for part in name.splitlines() for line in textwrap.wrap(part.replace(".", ". "), width)][:4]
    return "\n".join(short_label(part.replace(". ", "."), width) for part in lines)
