"""Plots of the report: learning curves, error against cost, the ImageNet challenge, importance of settings.

Colours are Okabe and Ito's, each with its own marker. Validation is solid, training dashed.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnbench.output.figure import log_axis, new_figure, short_label, short_labels
from cnnbench.output.plots import series
from cnnbench.reporting.group import RunGroup
from cnnbench.sweeps.study_result import StudyResult
from cnnbench.tasks.classification import TOP5
from cnnbench.tasks.classification.published import HISTORY
from cnnbench.tasks.metric import Metric
from cnnbench.utils.format import si_letter

STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
          ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"), ("#8B6508", "*"))  # fmt: skip
BLUE, GREY = "#0072B2", "#767676"
SHOWN = len(STYLES)  # groups in one plot
SIZES = {"params": "parameters", "macs": "multiply-adds for one image", "wall_seconds": "seconds of training"}
NAME = 44  # characters of a group's name in a legend
HEADROOM = 3  # an axis ends at this multiple of the largest final error, so early epochs do not flatten the rest


class Curve(NamedTuple):
    """Mean, minimum and maximum over the runs of a group at each epoch; NaN if no run has a finite value."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw_learning_curves(groups: Sequence[RunGroup], names: Sequence[str], title: str) -> Figure | None:
    """Plots of each metric of training and validation over the epochs: the mean of each group's runs, with a band from
    their minimum to their maximum. None if no run has two epochs behind it: a point is no curve."""
    metrics = groups[0].metrics if groups else ()
    panels = {metric: [{split: mean_curve(group, f"{metric.name}/{split}") for split in ("train", "val")}
                       for group in groups[:SHOWN]] for metric in metrics}  # fmt: skip
    panels = {metric: lines for metric, lines in panels.items()  # without those that are 0, as top k of k classes
              if any(np.nan_to_num(one.mean).any() for line in lines for one in line.values())}  # fmt: skip
    curves = [one for lines in panels.values() for line in lines for one in line.values()]
    if not any(len(one.epochs) > 1 for one in curves):
        return None
    figure = new_figure(4.9 * len(panels) + 2.6, 4.6, title)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (metric, lines) in zip(axes, panels.items(), strict=True):
        _curve_panel(ax, metric, lines)
    drawn = {index: name for index, name in enumerate(names[:SHOWN])
             if any(len(one.epochs) for lines in panels.values() for one in lines[index].values())}  # fmt: skip
    how = [Line2D([], [], color=GREY, label="validation"),
           Line2D([], [], color=GREY, linestyle="--", label="training")]  # fmt: skip
    _legend(figure, drawn, how)
    return figure


def mean_curve(group: RunGroup, key: str) -> Curve:
    found = [series(run.rows, key) for run in group.runs]
    epochs = np.unique(np.concatenate([one.epochs for one in found]))
    values = np.full((len(found), len(epochs)), np.nan)
    for row, one in zip(values, found, strict=True):
        row[np.searchsorted(epochs, one.epochs)] = one.values
    known = np.ma.masked_invalid(values)
    return Curve(epochs, *(getattr(known, name)(axis=0).filled(np.nan) for name in ("mean", "min", "max")))


def _curve_panel(ax: Axes, metric: Metric, lines: Sequence[Mapping[str, Curve]]) -> None:
    last, top = [1 / HEADROOM], 0.0
    for (color, marker), line in zip(STYLES, lines, strict=False):
        for split, one in line.items():
            style: dict[str, Any] = {"linewidth": 1.8, "marker": marker} if split == "val" else {"linestyle": "--"}
            if len(one.epochs) == 1:  # a mark, filled for the validation
                style = {"linestyle": "", "marker": marker, "fillstyle": "full" if split == "val" else "none"}
            ax.plot(one.epochs, one.mean, color=color, markersize=5, markevery=max(1, len(one.epochs) // 8), **style)
            if split == "val" and (one.low < one.high).any():
                ax.fill_between(one.epochs, one.low, one.high, color=color, alpha=0.15, linewidth=0)
            finite = one.mean[np.isfinite(one.mean)]
            last += finite[-1:].tolist()
            top = max([top, *finite.tolist()])
    ax.set(xlabel="epoch", ylabel=metric.axis)
    if metric.lower_is_better:
        ax.set_ylim(0, min(1.05 * top, max(HEADROOM * max(last), top / 5)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def draw_costs(groups: Sequence[RunGroup], names: Sequence[str], metric: Metric, title: str) -> Figure | None:
    """Plots of a metric against parameters, multiply-adds and seconds; hollow markers: published values. None of a
    single group that has none."""
    some = [(group, name) for group, name in zip(groups, names, strict=True) if group.mean(metric.name) is not None]
    panels = {key: text for key, text in SIZES.items() if any(_size(group, key) for group, _ in some)}
    if not panels or (len(some) == 1 and not some[0][0].published):  # a point alone compares nothing
        return None
    figure = new_figure(3.2 * len(panels) + 2.6, 4.4, title)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (key, text) in zip(axes, panels.items(), strict=True):
        for index, (group, _) in reversed([*enumerate(some)]):
            color, marker = STYLES[index] if index < SHOWN else (GREY, ".")
            _point(ax, group, metric, key, color, marker)
        log_axis(ax, text, si_letter)
    axes[0].set_ylabel(metric.axis)
    low, high = axes[0].get_ylim()
    room = max(0.1 * (high - low), 0.5 - (high - low) / 2)  # 0.01 points must not look like a difference
    least = min(group.mean(metric.name) or 0.0 for group, _ in some)
    axes[0].set_ylim(max(0, low - room) if least >= 0 else low - room, high + room)
    paper = any(group.published for group, _ in some)
    how = [Line2D([], [], color=GREY, marker="o", fillstyle="none", linestyle="", label="published")] if paper else []
    others = [Line2D([], [], color=GREY, marker=".", linestyle="", label=f"{len(some) - SHOWN} more")]
    _legend(figure, dict(enumerate(name for _, name in some[:SHOWN])), how + (others if len(some) > SHOWN else []))
    return figure


def _size(group: RunGroup, key: str) -> float | None:
    """Mean size or cost of a group; an evaluation has no seconds of training."""
    return None if key == "wall_seconds" and group.first.command == "evaluate" else group.mean(key)


def _point(ax: Axes, group: RunGroup, metric: Metric, key: str, color: str, marker: str) -> None:
    value, x = group.mean(metric.name), _size(group, key)
    if value is None or not x:
        return
    ax.errorbar(x, value, yerr=group.std(metric.name), color=color, marker=marker, markersize=8, capsize=3)
    printed = group.published.values.get(metric.name) if group.published else None
    if printed is not None and key != "wall_seconds":
        ax.plot(x, printed, color=color, marker=marker, markersize=9, fillstyle="none")


def _legend(figure: Figure, names: Mapping[int, str], how: list[Line2D]) -> None:
    short = short_labels(names.values(), NAME)
    of = [Line2D([], [], color=STYLES[index][0], marker=STYLES[index][1], label=short[name])
          for index, name in names.items()]  # fmt: skip
    figure.legend(handles=[*of, *how], loc="outside right center", frameon=False, fontsize=9)


def draw_history(own: Sequence[tuple[str, float]] = ()) -> Figure:
    """Bars of the ImageNet challenge's errors with the nets' depth, and of your own runs (name, error)."""
    own = sorted(own, key=lambda pair: pair[1])[:SHOWN]
    title = f"ImageNet challenge (ILSVRC): {TOP5.label} of classification, {TOP5.unit}"
    figure = new_figure(9.6 + 0.95 * len(own), 5.0, title)
    ax = figure.subplots()
    ticks = []
    for at, entry in enumerate(HISTORY):
        color, hatch = ("#009E73", "..") if entry.year is None else (BLUE if entry.layers else GREY, "")
        depth = "" if entry.year is None else f"{entry.layers} layers" if entry.layers else "not deep"
        _bar(ax, at, entry.error, f"{entry.error:g}", depth, color, hatch)
        ticks.append(f"{entry.year}\n{entry.net}\n{entry.team}" if entry.year else f"\n{entry.net}\n")
    for at, (name, error) in enumerate(own, start=len(HISTORY)):
        _bar(ax, at, error, f"{error:.2f}", "", "#E69F00", "//")
        ticks.append("\n".join(["here", *textwrap.wrap(short_label(name, 40), 13)[:3]]))
    ax.set_xticks(range(len(ticks)), ticks, fontsize=8.5)
    ax.set(ylim=(0, max(33, *(1.15 * error for _, error in own), 0)), ylabel=TOP5.axis)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def draw_importance(search: StudyResult) -> Figure:
    """Bars of each setting's share in the variance of the metric, the largest on top."""
    names, shares = [*search.importance], [100 * share for share in search.importance.values()]
    figure = new_figure(7.5, 1.5 + 0.42 * len(names), f"What mattered for the {search.objective.label}")
    ax = figure.subplots()
    bars = ax.barh(list(short_labels(names, NAME).values()), shares, color=BLUE, height=0.62)
    ax.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=5, fontsize=11, fontweight="bold")
    ax.invert_yaxis()
    ax.set(xlim=(0, 112), xlabel="share of the variance, %")
    ax.set_xticks(range(0, 101, 20))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _bar(ax: Axes, at: int, height: float, text: str, above: str, color: str, hatch: str) -> None:
    ax.bar(at, height, color=color, width=0.62, hatch=hatch, edgecolor="white")
    ax.annotate(text, (at, height), (0, 4), textcoords="offset points", ha="center", fontsize=12, fontweight="bold")
    ax.annotate(above, (at, height), (0, 20), textcoords="offset points", ha="center", fontsize=9)
