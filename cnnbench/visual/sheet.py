"""Sheets of small pictures with their labels, drawn sharp: every picture lands on whole pixels of the figure."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnnbench.output.figure import GREY, VERMILLION, array, label, new_figure, save

DPI = 144
MARGIN, GAP = 0.18, 0.08  # inches
LABEL = 1.05  # width of the labels left of the rows
WIDE = 16 / 9  # a sheet is about as wide as a slide
SMOOTH = 100  # pictures with a longer side than this are photographs, resized smoothly; others show their pixels


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture, uint8 (H, W, 3), with a title above and a note below it; `marked`: a frame that stands out."""

    picture: np.ndarray
    title: str = ""
    note: str = ""
    marked: bool = False


@dataclass(frozen=True, eq=False)
class Row:
    """Tiles side by side, under one name at their left."""

    tiles: Sequence[Tile] = field(default_factory=tuple)
    name: str = ""


def draw(rows: Sequence[Row], path: str | Path, title: str, *, side: float = 1.5, footer: str = "",
         font: float = 8.5) -> Figure:  # fmt: skip
    """One sheet. side: width of a tile in inches, for which a picture keeps its aspect; footer: how to read it."""
    line = font / 60  # inches of a line of text
    columns = max(len(row.tiles) for row in rows)
    left = MARGIN + (LABEL if any(row.name for row in rows) else 0)
    width = max(left + columns * (side + GAP) + MARGIN, 5.2)
    left += (width - left - columns * (side + GAP) - MARGIN) / 2
    title = "\n".join(part for text in title.splitlines() for part in textwrap.wrap(text, int(width * 10.5)))
    heads = 0.2 * (1 + title.count("\n")) + 0.16
    foot = [part for text in footer.splitlines() for part in textwrap.wrap(text, int(width * 15))]
    heights = [_height(row, side, line) for row in rows]
    height = heads + sum(heights) + 0.16 * len(foot) + 1.5 * MARGIN
    width, height = math.ceil(width * DPI) / DPI, math.ceil(height * DPI) / DPI
    figure = new_figure(width, height, title, layout=None, dpi=DPI)
    canvas = np.full((round(height * DPI), round(width * DPI), 3), 255, np.uint8)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    top = heads
    for row, tall in zip(rows, heights, strict=True):
        above = line if any(tile.title for tile in row.tiles) else 0
        if row.name:
            middle = top + above + max(_tall(tile, side) for tile in row.tiles) / 2
            ax.text(left - 0.1, middle, _folded(row.name, 14), ha="right", va="center", fontsize=font + 0.5)
        for number, tile in enumerate(row.tiles):
            x = left + number * (side + GAP)
            _place(canvas, tile, x, top + above, side)
            _write(ax, tile, x, top + above, side, font)
        top += tall
    for number, text in enumerate(foot):
        ax.text(MARGIN, height - 0.16 * (len(foot) - number) - 0.06, label(text, 400), va="top", fontsize=8, color=GREY)
    ax.imshow(canvas, extent=(0, width, height, 0), interpolation="nearest", aspect="auto", zorder=-1)
    return save(figure, path)


def grid(tiles: Sequence[Tile], columns: int | None = None) -> list[Row]:
    """The tiles in rows of equal length, in the shape of a slide."""
    columns = columns or best_columns(len(tiles))
    return [Row(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]


def best_columns(count: int) -> int:
    """Of the grids for so many tiles, one that is about as wide as a slide and leaves few places empty."""

    def penalty(columns: int) -> float:
        rows = math.ceil(count / columns)
        return 4 * (rows * columns - count) / count + 0.35 * abs(math.log(columns / rows / WIDE))

    return min(range(1, min(count, 24) + 1), key=penalty)


def mosaic(pictures: Sequence[np.ndarray], columns: int, gap: int = 1) -> np.ndarray:
    """Pictures of one size (H, W, 3) as one, with white lines between them."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        y, x = row * (height + gap), column * (width + gap)
        whole[y : y + height, x : x + width] = picture
    return whole


def as_picture(image: Any) -> np.ndarray:
    """uint8 or floating 0..1 (C, H, W), gray or coloured, as uint8 (H, W, 3)."""
    values = array(image)
    if values.dtype != np.uint8:
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3)))


def coloured(values: Any, low: float, high: float, colours: str = "viridis") -> np.ndarray:
    """Numbers (H, W) from low to high as a picture in matplotlib's colours of that name."""
    import matplotlib

    scaled = (array(values) - low) / max(high - low, 1e-12)
    return np.rint(255 * matplotlib.colormaps[colours](scaled.clip(0, 1))[..., :3]).astype(np.uint8)


def overlay(image: Any, values: Any, signed: bool) -> np.ndarray:
    """Values (H, W) in colour over the image (C, H, W) in gray, stronger ones hiding more of it. Signed ones: orange
    above zero, purple below; others from nothing to bright yellow. The largest of this image is full."""
    import matplotlib

    gray = as_picture(image).mean(2, keepdims=True) / 255
    scaled = array(values) / max(float(np.abs(array(values)).max()), 1e-12)
    colours = matplotlib.colormaps["PuOr_r"](0.5 + scaled / 2) if signed else matplotlib.colormaps["inferno"](scaled)
    strength = 0.9 * np.abs(scaled)[..., None]
    ground = 0.35 + 0.6 * gray if signed else 0.75 * gray
    return np.rint(255 * ((1 - strength) * ground + strength * colours[..., :3])).clip(0, 255).astype(np.uint8)


def number_text(value: float) -> str:
    """Three digits, without powers of ten where it is not much larger or smaller than one."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at another size: photographs smoothly, small ones pixel by pixel."""
    from PIL import Image

    shrinks = height < picture.shape[0]
    smooth = max(picture.shape[:2]) > SMOOTH or shrinks
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def _tall(tile: Tile, side: float) -> float:
    return side * tile.picture.shape[0] / tile.picture.shape[1]


def _height(row: Row, side: float, line: float) -> float:
    above = line if any(tile.title for tile in row.tiles) else 0
    below = line if any(tile.note for tile in row.tiles) else 0
    return above + max(_tall(tile, side) for tile in row.tiles) + below + GAP


def _place(canvas: np.ndarray, tile: Tile, x: float, y: float, side: float) -> None:
    """The tile's picture on the canvas, and around it the frame that marks it."""
    left, top, width = round(x * DPI), round(y * DPI), round(side * DPI)
    height = max(1, round(_tall(tile, side) * DPI))
    if tile.marked:
        colour = [int(VERMILLION[at : at + 2], 16) for at in (1, 3, 5)]
        canvas[max(top - 4, 0) : top + height + 4, max(left - 4, 0) : left + width + 4] = colour
    else:  # a hair line, so that a picture with white edges has an end
        canvas[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1] = 200
    canvas[top : top + height, left : left + width] = resized(tile.picture, height, width)


def _write(ax: Any, tile: Tile, x: float, y: float, side: float, font: float) -> None:
    room = max(3, int(side * 125 / font))
    if tile.title:
        ax.text(x + side / 2, y - 0.03, label(tile.title, room), ha="center", va="bottom", fontsize=font)
    if tile.note:
        ax.text(x + side / 2, y + _tall(tile, side) + 0.035, label(tile.note, int(room * 1.15)), ha="center", va="top",
                fontsize=font - 1, color=GREY)  # fmt: skip


def _folded(name: str, width: int) -> str:
    """A name over a few lines, broken at its dots and blanks."""
    lines = [line for part in name.splitlines() for line in textwrap.wrap(part.replace(".", ". "), width)][:4]
    return "\n".join(label(part.replace(". ", "."), width) for part in lines)
