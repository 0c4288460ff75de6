"""The report in pictures: learning curves side by side, error against what it costs, the ImageNet challenge.

Colours are Okabe and Ito's, each with a marker of its own; validation is solid and training dashed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnbench.facts import HISTORY
from cnnbench.figures import label, log_axis, new_figure
from cnnbench.plots import PANELS, Series, series
from cnnbench.reporting.group import Group

STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
          ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"), ("#8B6508", "*"))  # fmt: skip
GREY, DASHES = "#767676", (0, (4, 1.5))
SHOWN = len(STYLES)  # groups in one picture
NAME = 44  # characters of a group's name in a legend
HEADROOM = 3  # times the largest last error is what an axis of curves shows: the first epochs would flatten the rest


def curves(groups: Sequence[Group], names: Sequence[str], title: str) -> Figure | None:
    """Top-1 and top-5 error of training and validation over the epochs: of each group the mean over its runs, with a
    band from the least to the largest of them. None where no run has an epoch behind it."""
    groups, names = groups[:SHOWN], names[:SHOWN]
    lines = [[(split, key, averaged(group, f"{key}/{split}")) for key in ("top1_error", "top5_error")
              for split in ("train", "val")] for group in groups]  # fmt: skip
    panels = [key for key in ("top1_error", "top5_error")
              if any(found.any() for one in lines for _, k, (_, found) in one if k == key)]  # fmt: skip
    if not panels:
        return None
    figure = new_figure(4.9 * len(panels) + 2.6, 4.6, title)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        last: list[float] = []
        for (color, marker), one in zip(STYLES, lines, strict=False):
            for split, key, (epochs, values) in one:
                if key == panel and len(epochs):
                    _band(ax, epochs, values, color, marker, split)
                    last.append(float(np.nanmean(values[:, -1])))
        top = max(float(line.get_ydata().max()) for line in ax.lines)
        ax.set(
            xlabel="epoch", ylabel=PANELS[panel], ylim=(0, max(min(top * 1.05, max(HEADROOM * max(last), top / 5)), 1))
        )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        _quiet(ax)
    how = [
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, linestyle=DASHES, label="training"),
    ]
    _legend(figure, names, how)
    return figure


def averaged(group: Group, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs that all runs of the group have behind them, and the values, (runs, epochs)."""
    found = [one for run in group.runs if len((one := _whole(run.rows, key)).epochs)]
    if not found:
        return np.empty(0), np.empty((0, 0))
    common = sorted(set.intersection(*(set(one.epochs.tolist()) for one in found)))
    if len(found) > 1 and not common:
        found, common = found[:1], found[0].epochs.tolist()
    return np.array(common), np.array([[one.values[one.epochs == epoch][-1] for epoch in common] for one in found])


def _whole(rows: list[dict[str, Any]], key: str) -> Series:
    return series([row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)], key)


def _band(ax: Axes, epochs: np.ndarray, values: np.ndarray, color: str, marker: str, split: str) -> None:
    solid = split == "val"
    style: dict[str, Any] = {"linewidth": 1.8, "marker": marker} if solid else {"linewidth": 1.1, "linestyle": DASHES}
    ax.plot(epochs, values.mean(axis=0), color=color, markersize=5, markevery=max(1, len(epochs) // 8), **style)
    if len(values) > 1 and solid:
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)


def costs(groups: Sequence[Group], names: Sequence[str], title: str) -> Figure | None:
    """Top-1 error against parameters, multiply-adds and seconds of training; hollow: what the paper has."""
    some = [(group, name) for group, name in zip(groups, names, strict=True) if group.mean("top1_error") is not None]
    if not some:
        return None
    figure = new_figure(12.2, 4.4, title)
    axes = figure.subplots(1, 3, sharey=True)
    panels = (
        ("params", "parameters"),
        ("macs", "multiply-adds for one image"),
        ("wall_seconds", "seconds of training"),
    )
    for ax, (key, text) in zip(axes, panels, strict=True):
        for index, (group, _) in reversed([*enumerate(some)]):
            color, marker = STYLES[index] if index < SHOWN else (GREY, ".")
            _point(ax, group, key, color, marker)
        if ax.lines:
            log_axis(ax, text, _amount)
        else:
            ax.set_axis_off()
    axes[0].set_ylabel(PANELS["top1_error"])
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(max(0, low - 0.1 * (high - low)), high)
    paper = any(group.facts for group, _ in some)
    how = [Line2D([], [], color=GREY, marker="o", fillstyle="none", linestyle="", label="published")] if paper else []
    others = [Line2D([], [], color=GREY, marker=".", linestyle="", label=f"{len(some) - SHOWN} more")]
    _legend(figure, [name for _, name in some[:SHOWN]], how + (others if len(some) > SHOWN else []))
    return figure


def _point(ax: Axes, group: Group, key: str, color: str, marker: str) -> None:
    error, x = group.mean("top1_error"), group.mean(key)
    if error is None or not x or (key == "wall_seconds" and group.first.command == "evaluate"):
        return
    ax.errorbar(x, error, yerr=group.std("top1_error"), color=color, marker=marker, markersize=8, capsize=3)
    if group.facts and group.facts.top1_error is not None and key != "wall_seconds":
        ax.plot(x, group.facts.top1_error, color=color, marker=marker, markersize=9, fillstyle="none")


def _amount(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _legend(figure: Figure, names: Sequence[str], how: list[Line2D]) -> None:
    of = [Line2D([], [], color=color, marker=marker, label=label(name, NAME))
          for (color, marker), name in zip(STYLES, names, strict=False)]  # fmt: skip
    figure.legend(handles=[*of, *how], loc="outside right center", frameon=False, fontsize=9)


def _quiet(ax: Axes) -> None:
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def history(own: Sequence[tuple[str, float]] = ()) -> Figure:
    """The top-5 errors of the ImageNet challenge as bars, with their depth, and one's own: name and error."""
    own = sorted(own, key=lambda pair: pair[1])[:SHOWN]
    bars = [*HISTORY]
    figure = new_figure(9.6 + 0.95 * len(own), 5.0, "ImageNet challenge (ILSVRC): top-5 error of classification, %")
    ax = figure.subplots()
    errors = [entry.top5_error for entry in bars] + [error for _, error in own]
    colors = ["#0072B2" if entry.layers else "#767676" for entry in bars] + ["#E69F00"] * len(own)
    colors[len(bars) - 1] = "#009E73"
    drawn = ax.bar(range(len(errors)), errors, color=colors, width=0.62)
    for index, bar in enumerate(drawn):
        bar.set_hatch("//" if index >= len(bars) else ".." if bars[index].year is None else "")
        bar.set_edgecolor("white")
        depth = _depth(index)
        text = f"{errors[index]:g}" if index < len(bars) else f"{errors[index]:.2f}"
        ax.annotate(text, (index, errors[index]), (0, 4), textcoords="offset points", ha="center", fontsize=12,
                    fontweight="bold")  # fmt: skip
        if depth:
            ax.annotate(depth, (index, errors[index]), (0, 20), textcoords="offset points", ha="center", fontsize=9)
    ticks = [f"{entry.year or ''}\n{entry.net}\n{entry.team}" if entry.year else "\nhuman\n" for entry in bars]
    ax.set_xticks(range(len(errors)), [*ticks, *(f"here\n{_two_lines(name)}" for name, _ in own)], fontsize=8.5)
    ax.set(ylim=(0, 33), ylabel="top-5 error, %")
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _depth(index: int) -> str:
    entry = HISTORY[index] if index < len(HISTORY) else None
    if entry is None or entry.year is None:
        return ""
    return f"{entry.layers} layers" if entry.layers else "not deep"


def _two_lines(name: str) -> str:
    text = label(name, 26)
    return text if len(text) <= 13 else f"{text[:13]}\n{text[13:]}"
