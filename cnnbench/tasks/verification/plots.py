"""Pictures of verification: a training batch, ROC and distances, the most confident wrong pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cnnbench.data.pairs import Pairs
from cnnbench.output.batch_grid import draw_picture, first_pictures, picture_boxes, write_above
from cnnbench.output.figure import BLUE, GREY, VERMILLION, new_figure, save_figure
from cnnbench.output.image_grid import Row, Tile, draw_grid
from cnnbench.tasks.verification.metrics import FAR, area, best_threshold, equal_error_rate, judged, roc, true_accepts

BINS = 40
COLUMNS = 5  # wrong pairs in a row
LINES = (("-", BLUE), ((0, (5, 2)), VERMILLION), ((0, (1, 1.5)), GREY))


@dataclass(frozen=True, eq=False)
class WrongPair:
    """Two pictures uint8 (H, W, 3) and what was said of them."""

    first: np.ndarray
    second: np.ndarray
    same: bool
    distance: float
    threshold: float
    names: str


def draw_batch(images: Any, people: Any, path: Path) -> None:
    """The first images of a training batch, each with its person's number above."""
    pictures = first_pictures(images)
    height, width = images.shape[2:]
    title = f"Training batch, as the net sees it: {width} × {height} pixels, with the numbers of the people"
    figure, ax, boxes, _ = picture_boxes(pictures, title, lines=1)
    for box, picture, person in zip(boxes, pictures, people.tolist(), strict=False):
        draw_picture(ax, box, picture)
        write_above(ax, box, f"person {person}", 3)
    save_figure(figure, path)


def draw_distances(found: Mapping[str, np.ndarray], pairs: Pairs, path: Path, title: str) -> None:
    """ROC of each of these, by name, and how the distances of the first lie. found: distances (P,) of the pairs."""
    same = pairs.same.numpy()
    first = next(iter(found.values()))
    accuracy = judged(first, pairs)
    text = f"accuracy {100 * accuracy.accuracy:.2f} ± {100 * accuracy.standard_error:.2f} %, {pairs.origin}"
    figure = new_figure(9.6, 4.4, f"{title}\n{text}")
    left, right = figure.subplots(1, 2)
    for (name, far), (line, colour) in zip(found.items(), LINES, strict=False):
        _draw_roc(left, name, far, same, line, colour)
    left.plot([0, 1], [1, 0], color=GREY, linewidth=0.6, label="both errors equal")
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), label="chance")
    left.set(xlabel="pairs of two people that are accepted (FAR)", ylabel="pairs of one person that are accepted (TAR)",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")  # fmt: skip
    left.legend(loc="lower right", fontsize=8, framealpha=1, edgecolor="white")
    _draw_histogram(right, first, same)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    save_figure(figure, path)


def _draw_roc(ax: Axes, name: str, far: np.ndarray, same: np.ndarray, line: Any, colour: str) -> None:
    curve = roc(far, same)
    label = f"{name}: " if name else ""
    label += f"AUC {area(curve):.3f}, equal error rate {100 * equal_error_rate(curve):.1f} %"
    ax.plot(curve.false, curve.true, color=colour, linestyle=line, linewidth=1.8, label=label)
    ax.plot([FAR], [true_accepts(curve)], "o", color=colour, markersize=4.5, clip_on=False,
            label=f"TAR at FAR 1e-2: {100 * true_accepts(curve):.1f} %")  # fmt: skip


def _draw_histogram(ax: Axes, far: np.ndarray, same: np.ndarray) -> None:
    edges = np.linspace(far.min(), max(far.max(), far.min() + 1e-6), BINS + 1).tolist()
    ax.hist(far[same], edges, color=BLUE, alpha=0.55, label="one person")
    ax.hist(far[~same], edges, color=VERMILLION, histtype="step", linewidth=1.6, label="two people")
    threshold = best_threshold(far, same)
    early = threshold < (edges[0] + edges[-1]) / 2  # the words stand where the line is not
    ax.axvline(threshold, color="black", linewidth=1, linestyle=(0, (4, 2)))
    ax.annotate(f" {threshold:.3f} divides these best ", (threshold, 0.985), xycoords=("data", "axes fraction"),
                fontsize=8, va="top", ha="left" if early else "right")  # fmt: skip
    ax.set(xlabel="distance of the embeddings (1 - cosine)", ylabel="pairs")
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])
    ax.legend(loc="upper right" if early else "upper left", bbox_to_anchor=(int(early), 0.94), fontsize=8,
              frameon=False)  # fmt: skip


def draw_mistakes(pairs: Sequence[WrongPair], path: Path, title: str) -> None:
    """The wrong pairs, farthest from the threshold first: two people taken for one, and one person taken for two."""
    rows = []
    for same, name in ((False, "two people, taken for one"), (True, "one person, taken for two")):
        kind = [pair for pair in pairs if pair.same is same]
        for start in range(0, len(kind), COLUMNS):
            rows.append(Row([_tile(pair) for pair in kind[start : start + COLUMNS]], "" if start else name))
    footer = "Distance, and behind / the threshold of the pair's fold, which the other folds gave."
    draw_grid(rows, path, title, side=1.9, footer=footer)


def _tile(pair: WrongPair) -> Tile:
    return Tile(beside(pair.first, pair.second), f"{pair.distance:.3f} / {pair.threshold:.3f}", pair.names)


def beside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two pictures of one height with a white line between them."""
    height = min(len(first), len(second))
    line = np.full((height, max(1, height // 32), 3), 255, np.uint8)
    return np.concatenate([first[:height], line, second[:height]], axis=1)
