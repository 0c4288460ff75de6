"""Plot of transfer strategies: primary metric against the number of training images, and against seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cnnbench.output.figure import log_axis, new_figure
from cnnbench.tasks import metrics_of

# Okabe and Ito's colours, each with its own marker, so that no reader depends on colour.
STYLES = {
    "scratch": ("#767676", "x"),
    "svm": ("#0072B2", "o"),
    "deep_features": ("#56B4E9", "s"),
    "head": ("#009E73", "^"),
    "partial": ("#E69F00", "D"),
    "full": ("#D55E00", "v"),
}
NEEDED = {"strategy", "train_n", "wall_seconds", "model", "data"}  # keys of a result that the plot uses


def curves(results: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float, list[float]]]]:
    """Images, mean seconds and the primary metric of each seed, of each strategy, by the number of images."""
    primary = metrics_of(results[0])[0].name
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for result in (one for one in results if primary in one):
        by_images = found.setdefault(result["strategy"], {})
        by_images.setdefault(result["train_n"], []).append((result["wall_seconds"], result[primary]))
    return {
        strategy: [
            (images, sum(seconds for seconds, _ in runs) / len(runs), [value for _, value in runs])
            for images, runs in sorted(by_images.items())
        ]
        for strategy, by_images in found.items()
    }


def worth_drawing(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether transfer strategies ran on several amounts of data."""
    return len({result["train_n"] for result in results if "strategy" in result}) > 1


def draw_comparison(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot of results of one net on one data set."""
    first, metric = results[0], metrics_of(results[0])[0]
    figure = new_figure(9, 4.2, f"{first['model']} on {first['data']}: transfer and training from scratch")
    left, right = figure.subplots(1, 2, sharey=True)
    drawn = curves(results)
    for strategy, points in drawn.items():
        color, marker = STYLES[strategy]
        images, seconds, seeds = zip(*points, strict=True)
        means = [sum(values) / len(values) for values in seeds]
        reach = [[mean - min(values) for mean, values in zip(means, seeds, strict=True)],
                 [max(values) - mean for mean, values in zip(means, seeds, strict=True)]]  # fmt: skip
        style: dict[str, Any] = {"color": color, "marker": marker, "linewidth": 1.6, "markersize": 6, "capsize": 3}
        left.errorbar(images, means, reach, label=strategy, **style)
        right.errorbar(seconds, means, reach, **style)
    for ax, label in ((left, "training images"), (right, "seconds, features included")):
        log_axis(ax, label, lambda value: f"{value:,.0f}" if value == int(value) else f"{value:g}")
    left.set_ylabel(metric.axis)
    if metric.lower_is_better:
        left.set_ylim(0, 1.08 * left.get_ylim()[1])
    several = any(len(values) > 1 for points in drawn.values() for _, _, values in points)
    left.legend(frameon=False, title="mean; bars: all seeds" if several else None)
    return figure
