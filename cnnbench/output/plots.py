"""Line plots of a training: learning curves, the learning-rate schedule, the learning-rate range test.

Drawn with matplotlib's object interface, without pyplot: no global state, no display. Colours are those of Okabe and
Ito, and no curve differs by colour alone. Every function writes its file atomically and returns the Figure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from cnnbench.output.figure import BLUE, GREY, VERMILLION, new_figure, round_ticks, save_figure

STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": BLUE, "linestyle": (0, (4, 1.5))},
    "val": {"color": VERMILLION, "linestyle": "-"},
}


class Quantity(NamedTuple):
    """Label of an axis, which of its values is the best, and the format of a value in the legend.

    from_zero: whether the axis begins at 0. line: label and key of a level line, such as that of a plain method.
    """

    axis: str
    lower_is_better: bool = True
    number: str = ".2f"
    from_zero: bool = True
    line: tuple[str, str] | None = None


LOSS = Quantity("loss", number="#.3g")


class Series(NamedTuple):
    """One curve: the epochs that recorded a value, and the values (NaN where they were not finite)."""

    epochs: np.ndarray
    values: np.ndarray

    def best(self, lower_is_better: bool = True) -> int | None:
        """Index of the best finite value."""
        if not np.isfinite(self.values).any():
            return None
        return int(np.nanargmin(self.values) if lower_is_better else np.nanargmax(self.values))


def plot_curves(
    rows: Sequence[Mapping[str, Any]], path: str | Path, title: str, metrics: Mapping[str, Quantity]
) -> Figure:
    """Plot loss and metrics of training and validation over the epochs, with the learning rate below.

    Of a single epoch the values are marks beside their numbers, without lines.
    metrics: quantities by the names of the metrics in the rows.
    """
    shown = {"loss": LOSS, **metrics}
    panels = [key for key in shown if any(len(series(rows, f"{key}/{split}").epochs) for split in STYLES)] or ["loss"]
    epochs = sorted({row["epoch"] for row in rows}) or [0]
    figure = new_figure(4.3 * len(panels) + 0.4, 4.6, title)
    heights = [5, 1] if len(epochs) > 1 else [1]  # a single lr is no curve
    axes = figure.subplots(len(heights), len(panels), sharex=True, squeeze=False, height_ratios=heights)
    for column, key in enumerate(panels):
        _curve_panel(axes[0, column], rows, key, shown[key])
        if len(epochs) > 1:
            _lr_panel(axes[1, column], series(rows, "lr"), labelled=column == 0)
        axes[-1, column].set_xlabel("epoch")
    _epoch_axis(axes[-1, 0], epochs)
    return save_figure(figure, path)


def plot_schedule(epochs: Sequence[float], rates: Sequence[float], path: str | Path, title: str) -> Figure:
    """Plot the learning rate over the epochs, on an axis that begins at zero."""
    figure = new_figure(8, 4.2, title)
    ax = figure.subplots()
    marker = "o" if len(rates) == 1 else ""
    ax.plot(epochs, rates, color=BLUE, linewidth=1.8, drawstyle="steps-post", marker=marker)
    ax.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.08 * max(rates)))
    _quiet(ax)
    return save_figure(figure, path)


def plot_lr_range(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], lr: float | None,
             path: str | Path, title: str) -> Figure:  # fmt: skip
    """Plot the loss of each step over its learning rate, and the suggested lr. Losses far above the first are cut."""
    figure = new_figure(8, 4.6, title)
    ax = figure.subplots()
    known = len(smoothed)
    ax.plot(
        rates[:known],
        losses[:known],
        ".",
        color=GREY,
        markersize=4 if known > 1 else 9,
        label="loss of each step",
        clip_on=known > 1,
    )
    if known > 1:
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
    return save_figure(figure, path)


def series(rows: Sequence[Mapping[str, Any]], key: str) -> Series:
    """Curve of one key. Rows without the key are left out, infinities become NaN."""
    points = [(row["epoch"], float(row[key])) for row in rows if row.get(key) is not None]
    epochs, values = np.array(points, dtype=float).reshape(-1, 2).T
    return Series(epochs, np.where(np.isfinite(values), values, np.nan))


def _curve_panel(ax: Axes, rows: Sequence[Mapping[str, Any]], key: str, shown: Quantity) -> None:
    finite: list[float] = []
    for split, style in STYLES.items():
        curve = series(rows, f"{key}/{split}")
        if not len(curve.epochs):
            continue
        text, best = f"{split}   last {curve.values[-1]:{shown.number}}", curve.best(shown.lower_is_better)
        if split == "val" and best is not None and len(curve.epochs) > 1:
            epoch, value = curve.epochs[best], curve.values[best]
            text += f",  best {value:{shown.number}} in epoch {epoch:.0f}"
            ax.plot(epoch, value, "o", markersize=9, markerfacecolor="none", color=style["color"])
        lost = curve.epochs[np.isnan(curve.values)]
        if len(lost):
            text += f",  × {len(lost)} not finite"
            ax.plot(lost, np.full(len(lost), 0.97 if split == "val" else 0.93), "x", color=style["color"],
                    transform=ax.get_xaxis_transform())  # fmt: skip
        ax.plot(*curve, **(style | _marks(len(curve.epochs), split)), linewidth=1.6, label=text)
        finite += curve.values[np.isfinite(curve.values)].tolist()
    if shown.line is not None and len((level := series(rows, shown.line[1])).values):
        text = f"{shown.line[0]}   {level.values[-1]:{shown.number}}"
        ax.axhline(level.values[-1], color=GREY, linestyle=(0, (1, 1.5)), linewidth=1.4, label=text)
        finite.append(float(level.values[-1]))
    ax.set_ylabel(shown.axis)
    if shown.from_zero:
        _value_axis(ax, finite, percent=key != "loss")
    else:
        ax.margins(y=0.08)
        _quiet(ax)
    if ax.lines:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), frameon=False, fontsize=8, borderaxespad=0.2)


def _marks(epochs: int, split: str) -> dict[str, Any]:
    """Style of the points of a curve: a point alone is a mark, not a line."""
    if epochs == 1:
        return {"linestyle": "", "marker": "os"[split == "val"], "markersize": 7}
    return {"marker": "." if epochs <= 30 else ""}


def _epoch_axis(ax: Axes, epochs: list[int]) -> None:
    """Place the ticks of the x axis at whole epochs."""
    margin = 0.03 * (epochs[-1] - epochs[0]) or 0.5
    ax.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    ax.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) <= 8 else MaxNLocator(integer=True, nbins=8))


def _value_axis(ax: Axes, values: list[float], percent: bool) -> None:
    """Begin the y axis at 0; make it logarithmic for a loss that spans two decades."""
    if not percent and values and min(values) > 0 and max(values) > 100 * min(values):
        ax.set_yscale("log")
        round_ticks(ax.yaxis, *ax.get_ylim(), lambda value: f"{value:g}")
    elif values:
        ax.set_ylim(0, max(max(values) * 1.06, 1 if percent else 1e-6))
    _quiet(ax)


def _lr_panel(ax: Axes, lr: Series, labelled: bool) -> None:
    ax.plot(*lr, color=GREY, linewidth=1.2, marker="." if len(lr.epochs) <= 30 else "")
    top = float(np.nanmax(lr.values, initial=0))
    ax.set(ylim=(0, 1.15 * top or 1))
    ax.set_yticks([0, top] if top else [0], ["0", f"{top:.3g}"] if top else ["0"])
    if labelled:
        ax.set_ylabel("lr", color=GREY)
    _quiet(ax)


def _quiet(ax: Axes) -> None:
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.tick_params(labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
