"""Pictures of a classification: a batch with its classes, predictions, the confusion matrix, calibration, coverage."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from cnnbench.output.batch_grid import draw_picture, first_pictures, picture_boxes, write_above
from cnnbench.output.figure import BLUE, GREY, VERMILLION, array, new_figure, save_figure, short_label
from cnnbench.tasks.classification.coverage import LEAST, Coverage
from cnnbench.tasks.classification.metrics import Calibration
from cnnbench.utils.format import plural, probability_percent

# Numbers of classes up to which the confusion matrix shows counts, names, and one class to a cell.
WRITTEN, LABELLED, SUMMED = 20, 150, 250
SPIKE = 10  # percent of the images below which a few answers make the error jump, beyond the picture if need be


def plot_train_batch(images: Any, targets: Any, classes: Sequence[str], path: str | Path) -> Figure:
    """Draw the first images, uint8 (N, C, H, W), of a batch as the net sees them, each with its class above; of a mixed
    image, whose target is a row of shares, with its two classes."""
    pictures, targets = first_pictures(images), array(targets)
    title, lines = f"Training batch, as the net sees it: {_size(images)}", targets.ndim  # two classes of a mixed image
    figure, ax, boxes, width = picture_boxes(pictures, title, lines)
    for box, picture, target in zip(boxes, pictures, targets, strict=False):
        draw_picture(ax, box, picture)
        write_above(ax, box, target_label(target, classes, width), 3)
    return save_figure(figure, path)


def target_label(target: Any, classes: Sequence[str], width: int) -> str:
    """Name of a class, by its number; or of the two with the largest shares, with these in percent, in two lines."""
    if np.ndim(target) == 0:
        return short_label(classes[int(target)], width)
    largest = [number for number in np.argsort(-target, kind="stable")[:2] if target[number] >= 0.005]
    return "\n".join(f"{100 * target[number]:.0f} % {short_label(classes[number], width - 6)}" for number in largest)


def plot_val_predictions(
    images: Any, targets: Any, probabilities: Any, classes: Sequence[str], path: str | Path
) -> Figure:
    """Draw the first images, uint8 (N, C, H, W), with their classes and the answers of probabilities (N, classes).

    A wrong answer has a cross, bold type and a thick frame as well as another colour.
    """
    pictures, targets, probabilities = first_pictures(images), array(targets), array(probabilities)
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted[: len(pictures)] != targets[: len(pictures)]).sum())
    title = f"Validation: the truth above, the net's answer below; {wrong} of these {len(pictures)} wrong (✗)"
    figure, ax, boxes, width = picture_boxes(pictures, title, lines=2)
    for box, picture, target, guess, row in zip(boxes, pictures, targets, predicted, probabilities, strict=False):
        right = guess == target
        draw_picture(ax, box, picture, GREY if right else VERMILLION, 0.6 if right else 3)
        write_above(ax, box, short_label(classes[int(target)], width), 15)
        answer = (
            f"{'✓' if right else '✗'} {short_label(classes[int(guess)], width - 9)}, {probability_percent(row[guess])}"
        )
        write_above(ax, box, answer, 4, color=GREY if right else VERMILLION, fontweight="normal" if right else "bold")
    return save_figure(figure, path)


def plot_confusion_matrix(matrix: Any, classes: Sequence[str], path: str | Path, title: str) -> Figure:
    """Draw counts (rows: true classes, columns: predicted classes), coloured by their share of the row.

    With up to 20 classes the counts are written into the cells; with more, the most confused pairs are listed beside
    the matrix. With more than 250 classes, neighbouring classes share a cell.
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
        _class_ticks(ax, [short_label(name, 24) for name in classes])
    if beside:
        _confused_list(beside[0], counts, classes)
    else:
        _written_counts(ax, counts, shares)
    return save_figure(figure, path)


def plot_calibration(found: Calibration, path: str | Path, title: str) -> Figure:
    """Draw accuracy against confidence (reliability diagram), and the share of the answers in each bin of confidence.

    A calibrated net lies on the diagonal.
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
    return save_figure(figure, path)


def plot_coverage(found: Coverage, path: str | Path, title: str) -> Figure:
    """Draw the error of the answers that are given against their share, where the least sure are held back.

    Circles are what `predict min_probability=` would give. The dashed line is a net that does not know when it is
    wrong.
    """
    figure = new_figure(5.6, 4.6, f"{title}\nerror over all coverages {found.area:.2f} % (area under the curve)")
    ax = figure.subplots()
    coverage, error = map(array, found.curve())
    ax.axhline(error[-1], color=GREY, linestyle=(0, (4, 2)), linewidth=1, label="held back at random")
    ax.plot(coverage, error, color=BLUE, linewidth=1.8, label="the least sure held back")
    marks = [mark for mark in map(found.at, LEAST) if mark["answered"]]
    ax.plot([mark["coverage"] for mark in marks], [mark["error"] for mark in marks], "o", color=VERMILLION,
            markersize=4.5, label="min_probability=")  # fmt: skip
    top = 1.1 * max(float(error[coverage >= SPIKE].max()), 0.1)
    _name_marks(ax, marks, top)
    ax.set(xlim=(0, 106), ylim=(0, top), xlabel="coverage: images that are answered, %",
           ylabel="error of these answers, %")  # fmt: skip
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return save_figure(figure, path)


def _name_marks(ax: Axes, marks: Sequence[dict[str, Any]], top: float) -> None:
    """Write the probability beside each mark, from the least sure on, but not over the one before."""
    last: tuple[float, float] | None = None
    for mark in marks:
        at = mark["coverage"], mark["error"]
        if last is None or abs(last[0] - at[0]) > 6 or abs(last[1] - at[1]) > 0.06 * top:
            shift, side = ((5, -8), "left") if at[1] > 0.05 * top else ((-4, 4), "right")  # below the curve
            ax.annotate(f"{mark['min_probability']:g}", at, shift, textcoords="offset points", fontsize=8, ha=side,
                        color=VERMILLION)  # fmt: skip
            last = at


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Rows of the counts divided by their sums; NaN, drawn blank, for a class without images."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.where(sums > 0, counts / np.maximum(sums, 1), np.nan)


def grouped(counts: np.ndarray, size: int) -> np.ndarray:
    """Counts summed over `size` neighbouring classes, in both directions; the last group may be smaller."""
    starts = np.arange(0, len(counts), size)
    return np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)


def confused_pairs(counts: np.ndarray, k: int) -> list[tuple[int, int, int]]:
    """The k most confused pairs: (count, true class, predicted class), largest count first."""
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(errors, axis=None, kind="stable")[::-1][:k]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [(int(errors[i, j]), i, j) for i, j in pairs if errors[i, j] > 0]


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
    pairs = [
        f"{count:,} ×  {short_label(classes[i], 18)} → {short_label(classes[j], 18)}"
        for count, i, j in confused_pairs(counts, 20)
    ]
    text = "\n".join(["Most often confused (true → predicted)", "", *pairs])
    ax.text(0, 0.97, text, va="top", fontsize=8, linespacing=1.6).set_in_layout(False)
    ax.axis("off")


def _class_ticks(ax: Axes, names: list[str]) -> None:
    size = 9 if len(names) <= WRITTEN else 6.5
    level = len(names) <= 12 and max(map(len, names)) <= 5
    ax.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if level else 90)
    ax.set_yticks(range(len(names)), names, fontsize=size)


def _size(images: Any) -> str:
    channels, height, width = images.shape[1:]
    return f"{width} × {height} pixels, {plural(channels, 'channel')}"
