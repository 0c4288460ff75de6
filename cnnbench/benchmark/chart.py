"""Bar chart of a benchmark: images per second of each variant, and the time of each part of a step."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnbench.benchmark.timing import PARTS
from cnnbench.output.figure import new_figure, save_figure, short_label
from cnnbench.utils.format import milliseconds, plural

# Okabe and Ito's colours; neighbours differ in lightness too, and each part has its own hatching.
COLOURS = dict(zip(PARTS, ("#F0E442", "#56B4E9", "#0072B2", "#D55E00"), strict=True))
HATCHES = dict(zip(PARTS, ("..", "", "//", "xx"), strict=True))
TRAIN, ANSWER = "#0072B2", "#E69F00"
BAR = 0.38


def draw_benchmark(nets: list[dict[str, Any]], path: str | Path, machine: str) -> Figure:
    """Chart, saved at `path`: left the speed in training and inference, right the parts of a step per image."""
    bars = [(net, one) for net in nets for one in net["variants"] if not one["error"]]
    several = len(nets) > 1
    names = [f"{short_label(net['model'], 22)}\n{one['variant']}" if several else one["variant"] for net, one in bars]
    titles = dict.fromkeys(f"{net['model']}, batch {net['batch_size']:,}" for net in nets)
    what = "; ".join(titles) if not several else f"{len(nets)} nets"
    figure = new_figure(11, 1.7 + 0.72 * len(bars), f"{what} on {machine}: {nets[0]['data']} images")
    left, right = figure.subplots(1, 2, sharey=True)
    _rates(left, bars)
    _parts(right, bars)
    left.set_yticks(np.arange(len(bars)), names, fontsize=10)
    left.set_ylim(len(bars) - 0.4, -0.6)
    return save_figure(figure, path)


def _rates(ax: Axes, bars: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    places = np.arange(len(bars))
    series = (("training", "train", TRAIN, -BAR / 2), ("answers", "inference", ANSWER, BAR / 2))
    for name, key, colour, shift in series:
        values = np.array([one[f"{key}_images_per_second"] for _, one in bars])
        spreads = [one[f"{key}_spread"] for _, one in bars]
        ax.barh(places + shift, values, BAR, color=colour, label=name, xerr=spreads, error_kw={"elinewidth": 1})
        for place, value, spread in zip(places, values, spreads, strict=True):
            ax.annotate(f"{value:,.0f}", (value + spread, place + shift), (4, 0), textcoords="offset points",
                        va="center", fontsize=9)  # fmt: skip
    top = max(one[f"{key}_images_per_second"] + one[f"{key}_spread"] for _, one in bars for _, key, _, _ in series)
    ax.set(xlabel="images per second", xlim=(0, 1.18 * top))
    _finish(ax)


def _parts(ax: Axes, bars: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    begin = np.zeros(len(bars))
    for part in PARTS:
        values = np.array([one[f"{part}_ms"] / net["batch_size"] for net, one in bars])
        ax.barh(np.arange(len(bars)), values, 2 * BAR, begin, color=COLOURS[part], hatch=HATCHES[part], label=part,
                edgecolor="white", linewidth=0.5)  # fmt: skip
        begin += values
    for place, ((net, one), total) in enumerate(zip(bars, begin, strict=True)):
        text = f"{milliseconds(one['step_ms'])} for {plural(net['batch_size'], 'image')}"
        ax.annotate(text, (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set(xlabel="milliseconds of a training step per image", xlim=(0, 1.42 * float(begin.max())))
    _finish(ax)


def _finish(ax: Axes) -> None:
    ax.grid(axis="x", alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=9, borderaxespad=0.2)
