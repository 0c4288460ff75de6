"""The pictures every run leaves behind: learning curves, a batch as the net sees it, predictions, the confusion matrix.

Drawn with matplotlib's object interface: no pyplot, so nothing global and no display. Colours are Okabe and Ito's and
viridis, and nothing is told by colour alone. Every function writes its file in one step (beside, then renamed) and
returns the Figure. Tensors and numpy arrays are both fine.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from cnnbench.output.figure import array, label, new_figure, save

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#767676"
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": BLUE, "linestyle": (0, (4, 1.5))},
    "val": {"color": VERMILLION, "linestyle": "-"},
}
PANELS = {"loss": "loss", "top1_error": "top-1 error, %", "top5_error": "top-5 error, %"}
SHOWN = 32  # pictures in a grid
COLUMNS = 8
# Numbers of classes up to which the confusion matrix shows counts, names, and one class to a cell.
WRITTEN, LABELLED, SUMMED = 20, 150, 250


class Box(NamedTuple):
    """Where a picture lies, in inches from the figure's lower left corner."""

    x: float
    y: float
    width: float
    height: float


class Series(NamedTuple):
    """One curve: the epochs that recorded a value, and the values (NaN where they were not finite)."""

    epochs: np.ndarray
    values: np.ndarray

    @property
    def best(self) -> int | None:
        """Index of the smallest finite value."""
        return int(np.nanargmin(self.values)) if np.isfinite(self.values).any() else None


def curves(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> Figure:
    """Loss and errors of training and validation over the epochs, each above the learning rate that made it."""
    panels = [key for key in PANELS if any(len(series(rows, f"{key}/{split}").epochs) for split in STYLES)] or ["loss"]
    figure = new_figure(4.3 * len(panels) + 0.4, 4.6, title)
    axes = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[5, 1])
    for column, key in enumerate(panels):
        _curve_panel(axes[0, column], rows, key)
        _lr_panel(axes[1, column], series(rows, "lr"), labelled=column == 0)
    _epoch_axis(axes[1, 0], sorted({row["epoch"] for row in rows}) or [0])
    return save(figure, path)


def schedule(epochs: Sequence[float], rates: Sequence[float], path: str | Path, title: str) -> Figure:
    """The learning rate over the epochs, from zero so that drops are seen as large as they are."""
    figure = new_figure(8, 4.2, title)
    ax = figure.subplots()
    ax.plot(epochs, rates, color=BLUE, linewidth=1.8)
    ax.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.08 * max(rates)))
    _quiet(ax)
    return save(figure, path)


def lr_range(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], lr: float | None,
             path: str | Path, title: str) -> Figure:  # fmt: skip
    """The loss of each step over its learning rate, with the suggested one; what is far above the start is cut off."""
    figure = new_figure(8, 4.6, title)
    ax = figure.subplots()
    known = len(smoothed)
    ax.plot(rates[:known], losses[:known], ".", color=GREY, markersize=4, label="loss of each step")
    ax.plot(rates[:known], smoothed, color=BLUE, linewidth=2, label="smoothed")
    if known:
        low, first = min(smoothed), smoothed[0]
        room = max(first - low, 0.05 * first)
        ax.set_ylim(low - 0.15 * room, first + 0.5 * room)
    if lr is not None:
        at = float(np.interp(np.log10(lr), np.log10(rates[:known]), smoothed))
        ax.axvline(lr, color=VERMILLION, linestyle=(0, (4, 1.5)), linewidth=1.4, zorder=1)
        ax.plot([lr], [at], "o", color=VERMILLION, markersize=8, label=f"suggestion: lr {lr:.2g}")
    ax.set(xscale="log", xlim=(rates[0], rates[-1]), xlabel="learning rate of the step", ylabel="training loss")
    ax.legend(frameon=False, loc="lower left")
    _quiet(ax)
    return save(figure, path)


def train_batch(images: Any, targets: Any, classes: Sequence[str], path: str | Path) -> Figure:
    """The first pictures (N,C,H,W uint8) of a batch as the net sees them, each under its class."""
    pictures, targets = _pictures(images), array(targets)
    figure, ax, boxes, width = _grid(pictures, f"Training batch, as the net sees it: {_size(images)}", lines=1)
    for box, picture, target in zip(boxes, pictures, targets, strict=False):
        _picture(ax, box, picture)
        _above(ax, box, label(classes[int(target)], width), 3)
    return save(figure, path)


def val_predictions(images: Any, targets: Any, probabilities: Any, classes: Sequence[str], path: str | Path) -> Figure:
    """The first pictures (N,C,H,W uint8) with what they are and what the net says, from its N,classes probabilities.

    A wrong answer has a cross, bold type and a thick frame beside its colour.
    """
    pictures, targets, probabilities = _pictures(images), array(targets), array(probabilities)
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted[: len(pictures)] != targets[: len(pictures)]).sum())
    title = f"Validation: the truth above, the net's answer below; {wrong} of these {len(pictures)} wrong (✗)"
    figure, ax, boxes, width = _grid(pictures, title, lines=2)
    for box, picture, target, guess, row in zip(boxes, pictures, targets, predicted, probabilities, strict=False):
        right = guess == target
        _picture(ax, box, picture, GREY if right else VERMILLION, 0.6 if right else 3)
        _above(ax, box, label(classes[int(target)], width), 15)
        answer = f"{'✓' if right else '✗'} {label(classes[int(guess)], width - 9)}, {percent(row[guess])}"
        _above(ax, box, answer, 4, color=GREY if right else VERMILLION, fontweight="normal" if right else "bold")
    return save(figure, path)


def confusion_matrix(matrix: Any, classes: Sequence[str], path: str | Path, title: str) -> Figure:
    """Integer counts (rows: the truth, columns: the prediction), coloured by their share of the row.

    Up to 20 classes the counts are written in; with more, the pairs most often confused are listed beside. Where the
    classes outnumber the pixels, neighbours are summed.
    """
    counts = array(matrix)
    n, total, wrong = len(counts), int(counts.sum()), int(counts.sum() - np.trace(counts))
    error = f"top-1 error {100 * wrong / max(total, 1):.2f} % ({wrong:,} of {total:,})"
    side = 7.0 if n > LABELLED else min(max(4.6, 0.55 * n if n <= WRITTEN else 0.11 * n), 12)
    widths = [side + 2, 3.4][: 1 + (n > WRITTEN)]
    figure = new_figure(sum(widths), side + 1, f"{title}\n{error}")
    ax, *beside = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    group = math.ceil(n / SUMMED)
    shares = row_shares(grouped(counts, group))
    _share_image(figure, ax, shares, n, group)
    if n <= LABELLED:
        _class_ticks(ax, [label(name, 24) for name in classes])
    if beside:
        _confused_list(beside[0], counts, classes)
    else:
        _written_counts(ax, counts, shares)
    return save(figure, path)


def series(rows: Sequence[Mapping[str, Any]], key: str) -> Series:
    """The curve of one key; rows without it are left out, infinities become NaN."""
    points = [(row["epoch"], float(row[key])) for row in rows if row.get(key) is not None]
    epochs, values = np.array(points, dtype=float).reshape(-1, 2).T
    return Series(epochs, np.where(np.isfinite(values), values, np.nan))


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row of the counts as fractions of its sum; NaN, drawn blank, for a class without images."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.where(sums > 0, counts / np.maximum(sums, 1), np.nan)


def grouped(counts: np.ndarray, size: int) -> np.ndarray:
    """The counts of `size` neighbouring classes summed, in both directions; the last group may be smaller."""
    starts = np.arange(0, len(counts), size)
    return np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)


def confused(counts: np.ndarray, k: int) -> list[tuple[int, int, int]]:
    """The k largest (count, true class, predicted class) off the diagonal."""
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:k]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [(int(errors[i, j]), i, j) for i, j in pairs if errors[i, j] > 0]


def percent(probability: float) -> str:
    """A probability for people: 100 % and 0 % are said only where they are exact."""
    value = 100 * float(probability)
    if 99.5 <= value < 100:
        return ">99 %"
    return "<1 %" if 0 < value < 0.5 else f"{value:.0f} %"


def _curve_panel(ax: Axes, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    finite: list[float] = []
    for split, style in STYLES.items():
        curve = series(rows, f"{key}/{split}")
        if not len(curve.epochs):
            continue
        digits = "#.3g" if key == "loss" else ".2f"
        text = f"{split}   last {curve.values[-1]:{digits}}"
        if split == "val" and curve.best is not None and len(curve.epochs) > 1:
            epoch, value = curve.epochs[curve.best], curve.values[curve.best]
            text += f",  best {value:{digits}} in epoch {epoch:.0f}"
            ax.plot(epoch, value, "o", markersize=9, markerfacecolor="none", color=style["color"])
        lost = curve.epochs[np.isnan(curve.values)]
        if len(lost):
            text += f",  × {len(lost)} not finite"
            ax.plot(lost, np.full(len(lost), 0.97 if split == "val" else 0.93), "x", color=style["color"],
                    transform=ax.get_xaxis_transform())  # fmt: skip
        marker = "." if len(curve.epochs) <= 30 else ""
        ax.plot(*curve, **style, linewidth=1.6, marker=marker, label=text)
        finite += curve.values[np.isfinite(curve.values)].tolist()
    ax.set_ylabel(PANELS[key])
    _value_axis(ax, finite, percent=key != "loss")
    if ax.lines:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), frameon=False, fontsize=8, borderaxespad=0.2)


def _epoch_axis(ax: Axes, epochs: list[int]) -> None:
    """Whole epochs only, whether there is one of them or three hundred."""
    margin = 0.03 * (epochs[-1] - epochs[0]) or 0.5
    ax.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    ax.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) <= 8 else MaxNLocator(integer=True, nbins=8))


def _value_axis(ax: Axes, values: list[float], percent: bool) -> None:
    """Errors start at 0, which is the aim; a loss that spans two decades gets a logarithmic axis."""
    if not percent and values and min(values) > 0 and max(values) > 100 * min(values):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif values:
        ax.set_ylim(0, max(max(values) * 1.06, 1 if percent else 1e-6))
    _quiet(ax)


def _lr_panel(ax: Axes, lr: Series, labelled: bool) -> None:
    ax.plot(*lr, color=GREY, linewidth=1.2, marker="." if len(lr.epochs) <= 30 else "")
    top = float(np.nanmax(lr.values, initial=0))
    ax.set(xlabel="epoch", ylim=(0, 1.15 * top or 1))
    ax.set_yticks([0, top] if top else [0], ["0", f"{top:.3g}"] if top else ["0"])
    if labelled:
        ax.set_ylabel("lr", color=GREY)
    _quiet(ax)


def _quiet(ax: Axes) -> None:
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.tick_params(labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def _share_image(figure: Figure, ax: Axes, shares: np.ndarray, n: int, group: int) -> None:
    # The square root keeps a confusion of one percent visible beside a diagonal of ninety.
    image = ax.imshow(shares, cmap="viridis", norm=PowerNorm(0.5, 0, 1), extent=(-0.5, n - 0.5, n - 0.5, -0.5),
                      interpolation="nearest")  # fmt: skip
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1]
    bar = figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02, ticks=ticks)
    bar.ax.set_yticklabels([f"{100 * tick:g} %" for tick in ticks], fontsize=8)
    bar.set_label("share of the images of the true class", fontsize=9)
    note = f", {group} classes to a cell" if group > 1 else ""
    ax.set(xlabel=f"predicted class{note}", ylabel=f"true class{note}")


def _written_counts(ax: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 9 if len(counts) <= 12 else 7.5
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "black" if shares[row, column] > 0.4 else "white"
            ax.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=color)


def _confused_list(ax: Axes, counts: np.ndarray, classes: Sequence[str]) -> None:
    pairs = [f"{count:,} ×  {label(classes[i], 18)} → {label(classes[j], 18)}" for count, i, j in confused(counts, 20)]
    text = "\n".join(["Most often confused (true → predicted)", "", *pairs])
    ax.text(0, 0.97, text, va="top", fontsize=8, linespacing=1.6).set_in_layout(False)
    ax.axis("off")


def _class_ticks(ax: Axes, names: list[str]) -> None:
    size = 9 if len(names) <= WRITTEN else 6.5
    level = len(names) <= 12 and max(map(len, names)) <= 5
    ax.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if level else 90)
    ax.set_yticks(range(len(names)), names, fontsize=size)


def _grid(pictures: np.ndarray, title: str, lines: int) -> tuple[Figure, Axes, list[Box], int]:
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


def _picture(ax: Axes, box: Box, picture: np.ndarray, color: str = GREY, width: float = 0.6) -> None:
    gray = picture.shape[-1] == 1
    interpolation = "nearest" if max(picture.shape) < 100 else "antialiased"
    extent = (box.x, box.x + box.width, box.y, box.y + box.height)
    ax.imshow(picture[..., 0] if gray else picture, cmap="gray" if gray else None, vmin=0, vmax=255,
              interpolation=interpolation, extent=extent, aspect="auto")  # fmt: skip
    ax.add_patch(Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=color, linewidth=width))


def _above(ax: Axes, box: Box, text: str, points: float, **style: Any) -> None:
    """A line of text so many points above a picture."""
    middle = box.x + box.width / 2, box.y + box.height
    ax.annotate(text, middle, (0, points), textcoords="offset points", ha="center", fontsize=8, **style)


def _pictures(images: Any) -> np.ndarray:
    """The first images as N,H,W,C."""
    return array(images[:SHOWN]).transpose(0, 2, 3, 1)


def _size(images: Any) -> str:
    channels, height, width = images.shape[1:]
    return f"{width} × {height} pixels, {channels} channel{'s' * (channels > 1)}"
