"""Pictures of detection: a batch with its boxes, answers beside the truth, classes, curves, mistakes by kind."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from cnnbench.data import Source
from cnnbench.data.boxes import CLASS, CORNERS, present
from cnnbench.data.geometry import as_tensor
from cnnbench.data.sources import Arrays, Files, image_ids, read_item
from cnnbench.output.figure import BLUE, GREY, array, new_figure, picture_axes, save_figure, short_label
from cnnbench.output.rgb import to_rgb
from cnnbench.tasks.detection.verdicts import MISTAKES, NAMES, Verdicts, average_precision, curve
from cnnbench.tasks.segmentation.palette import voc_colors

BATCH = 12  # images of a training batch in one picture
SHOWN = 12  # images of a validation in one picture
EACH = 6  # mistakes of a kind in one picture
CURVES = 20  # classes that the curves show; of more, the largest
LEGEND = 20  # classes that a legend names
MARGIN = 0.6  # of a box's longer side, around it in a picture of a mistake
CAPTION = 26  # characters under a picture


class Drawn(NamedTuple):
    """A box in a picture: its corners, the class, and what is written above it."""

    corners: Sequence[float]
    label: int
    text: str = ""
    truth: bool = False  # drawn as a dashed line
    meant: bool = False  # what a picture is about, drawn as a thicker line


def color_of(label: int) -> Any:
    """Colour of a class, the same in every picture, as RGB in 0..1."""
    return voc_colors()[1 + label % 254] / 255 * 0.85 + 0.15


def _show(ax: Axes, picture: np.ndarray) -> None:
    """Show an image so that corners are where they are said to be: the left edge of its first pixel is 0."""
    height, width = picture.shape[:2]
    ax.imshow(picture, extent=(0, width, height, 0))


def draw_boxes(ax: Axes, boxes: Sequence[Drawn], width: float = 1.4) -> None:
    """Draw boxes over the image that an Axes shows."""
    for one in boxes:
        left, top, right, bottom = one.corners
        color, dark = color_of(one.label), (0, 0, 0, 0.5)
        style: Any = (0, (3, 2)) if one.truth else "-"
        own = 2 * width if one.meant else width
        for line, ink in ((own, color),) if one.truth else ((own + 1.2, dark), (own, color)):
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=ink, linewidth=line,
                                   linestyle=style))  # fmt: skip
        if one.text:
            ink = "black" if color.mean() > 0.55 else "white"
            ax.text(left, top, one.text, fontsize=5.5, color=ink, va="bottom", clip_on=True,
                    bbox={"facecolor": color, "edgecolor": "none", "pad": 0.6, "alpha": 0.85})  # fmt: skip


def true_boxes(table: Any) -> list[Drawn]:
    return [Drawn(row[CORNERS], int(row[CLASS]), truth=True) for row in array(present(table)).tolist()]


def found_boxes(detections: Any, least: float) -> list[Drawn]:
    """Detections (n, 6) with at least this score, the likeliest on top."""
    rows = [row for row in array(detections).tolist() if row[1] >= least]
    return [Drawn(row[2:], int(row[0]), f"{row[1]:.2f}") for row in reversed(rows)]


def plot_train_batch(images: Tensor, tables: Tensor, classes: Sequence[str], path: Path) -> Figure:
    """Draw the first images, uint8 (N, C, H, W), of a batch as the net sees them, with their boxes."""
    shown = list(zip(images[:BATCH], tables[:BATCH], strict=True))
    columns = min(4, len(shown))
    side = f"{images.shape[3]} × {images.shape[2]}"
    figure, axes = _grid(math.ceil(len(shown) / columns), columns, 2.1, 1.0,
                         f"Training batch with its boxes, as the net sees it: {side} pixels")  # fmt: skip
    for ax, (image, table) in zip(axes.flat, shown, strict=False):
        _show(ax, to_rgb(image))
        draw_boxes(ax, [one._replace(truth=False) for one in true_boxes(table)])
    _legend(figure, [int(label) for table in tables[:BATCH] for label in present(table)[:, CLASS]], classes)
    return save_figure(figure, path)


def plot_answers(images: Tensor, tables: Tensor, found: Tensor, classes: Sequence[str], least: float, path: Path,
                 title: str) -> Figure:  # fmt: skip
    """Draw images as the net sees them with the true boxes (dashed) and the net's (with its scores)."""
    count = min(SHOWN, len(images))
    columns = min(3, count)
    figure, axes = _grid(math.ceil(count / columns), columns, 2.9, 1.0, f"{title}\nboxes of a score from {least:g} on")
    for ax, image, table, boxes in zip(axes.flat, images[:count], tables, found, strict=False):
        _show(ax, to_rgb(image))
        draw_boxes(ax, [*true_boxes(table), *found_boxes(boxes, least)], 1.1)
    labels = [int(label) for table in tables[:count] for label in present(table)[:, CLASS]]
    _legend(figure, labels, classes, truth=True)
    return save_figure(figure, path)


def plot_classes(rows: Sequence[dict[str, Any]], path: Path, title: str) -> Figure:
    """Draw AP and AP50 of each class that has objects, the best first, with the number of its objects."""
    order = sorted((row for row in rows if row["boxes"]), key=lambda row: -float(row["AP"]))
    figure = new_figure(7.2, 1.6 + 0.32 * len(order), title)
    ax = figure.subplots()
    for place, row in enumerate(order):
        ax.barh(place, row["AP50"], color="#9ecae1", height=0.7, label="AP50" if not place else None)
        ax.barh(place, row["AP"], color=BLUE, height=0.4, label="AP, IoU 0.5 to 0.95" if not place else None)
        values = f"{float(row['AP']):.1f} / {float(row['AP50']):.1f} %"
        ax.text(float(row["AP50"]) + 1, place, values, va="center", fontsize=8)
        ax.text(131, place, f"{row['boxes']:,}", va="center", ha="right", fontsize=8, color=GREY)
    ax.text(131, -0.75, "objects", va="center", ha="right", fontsize=8, color=GREY)
    ax.set(xlim=(0, 132), ylim=(len(order) - 0.4, -1.1), xlabel="average precision, %", xticks=range(0, 101, 20))
    ax.set_yticks(range(len(order)), [short_label(row["class"], 24) for row in order], fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save_figure(figure, path)


def plot_curves(judged: Verdicts, classes: Sequence[str], path: Path, title: str) -> Figure:
    """Draw precision over recall of each class at IoU 0.5, and where the score falls below 0.5."""
    figure = new_figure(7.2, 5.0, f"{title}\nprecision and recall at IoU 0.5, as the score falls")
    ax = figure.subplots()
    known = sorted(np.flatnonzero(judged.objects).tolist(), key=lambda label: -judged.objects[label])[:CURVES]
    for label in sorted(known):
        recall, precision, score = curve(judged, label)
        area = average_precision(recall, precision, eleven=False)
        name = short_label(classes[label], 20)
        ax.plot(100 * recall, 100 * precision, color=color_of(label) * 0.85, linewidth=1.6,
                label=f"{name}: {area:.1f} %, {judged.objects[label]:,}")  # fmt: skip
        sure = int((score >= 0.5).sum())
        if sure:
            ax.plot(100 * recall[sure - 1], 100 * precision[sure - 1], "o", color=color_of(label) * 0.85, markersize=6,
                    markeredgecolor="black")  # fmt: skip
    ax.plot([], [], "o", color="white", markeredgecolor="black", label="score 0.5")
    ax.set(xlim=(0, 100.5), ylim=(0, 101), xlabel="recall, % of the objects", ylabel="precision, % of the boxes")
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False, title="area under the curve, objects", title_fontsize=8, loc="lower left")
    return save_figure(figure, path)


def plot_mistakes(judged: Verdicts, counts: dict[str, int], source: Source, truth: Tensor, classes: Sequence[str],
                  path: Path, title: str) -> Figure:  # fmt: skip
    """Draw for each kind of mistake its surest ones, each with what is around it. Kinds that do not occur are named."""
    names = image_ids(source)
    absent = ", ".join(kind for kind in MISTAKES if not counts[kind])
    words = f"{title}\nmistakes at a score from 0.5 on, the surest of each kind{f'; none {absent}' if absent else ''}"
    seen = {kind: words for kind, words in MISTAKES.items() if counts[kind]}
    figure, axes = _grid(max(1, len(seen)), EACH, 1.5, 1.0, words)
    found = len(judged.boxes)
    for ax in [] if seen else axes[0]:
        ax.axis("off")
    for row, (kind, words) in zip(axes, seen.items(), strict=False):
        whole = f"of {int(judged.objects.sum()):,} objects" if kind == "missed" else f"of {found:,} boxes"
        row[0].set_title(f"{kind}: {counts[kind]:,} {whole} ({words})", fontsize=8, loc="left")
        examples = _examples(judged, kind, truth)
        for ax in row[len(examples) :]:
            ax.axis("off")  # else it would cover the words to its left
        for ax, (image, boxes) in zip(row, examples, strict=False):
            around = boxes[0].corners
            others = [one for one in true_boxes(truth[image]) if list(one.corners) != list(around)]
            _draw_part(ax, _pixels(source, image), [*others, *boxes], around)
            ax.set_xlabel(short_label(Path(names[image]).name, CAPTION), fontsize=5.5)
    labels = [int(box[0]) for box in judged.boxes.tolist()]
    _legend(figure, labels, classes, truth=True, meant=True)
    return save_figure(figure, path)


def _examples(judged: Verdicts, kind: str, truth: Tensor) -> list[tuple[int, list[Drawn]]]:
    """Image and boxes of the surest mistakes of a kind; of missed objects the largest, which are drawn as the truth."""
    if kind == "missed":
        rows = [(image, truth[image, at].tolist()) for image, at in judged.missed]
        rows.sort(key=lambda pair: -pair[1][-1])
        return [(image, [Drawn(row[CORNERS], int(row[CLASS]), truth=True, meant=True)]) for image, row in rows[:EACH]]
    own = (place for place, verdict in enumerate(judged.verdict.tolist()) if NAMES.get(verdict) == kind)
    return [
        (
            int(judged.image[place]),
            [one._replace(meant=True) for one in found_boxes(judged.boxes[place : place + 1], 0.0)],
        )
        for place in islice(own, EACH)
    ]


def _draw_part(ax: Axes, image: np.ndarray, boxes: Sequence[Drawn], around: Sequence[float]) -> None:
    """Show a square part of the image around a box."""
    left, top, right, bottom = around
    half = max(right - left, bottom - top, 16) * (0.5 + MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    _show(ax, image)
    draw_boxes(ax, boxes, 0.9)
    ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half))


def _pixels(source: Source, index: int) -> np.ndarray:
    """RGB array of an image at its own size."""
    assert isinstance(source, Arrays | Files)
    return to_rgb(as_tensor(read_item(source.item(index).image)))


def _grid(rows: int, columns: int, side: float, aspect: float, title: str) -> tuple[Figure, np.ndarray]:
    """Figure with room for a legend below, and Axes (rows, columns) without ticks. side: inches of a picture."""
    width = max(columns * side + 0.3, 6.0)
    figure = new_figure(width, rows * (side * aspect + 0.28) + 1.0, title)
    return figure, picture_axes(figure, rows, columns)


def _legend(figure: Figure, labels: Sequence[int], classes: Sequence[str], *, truth: bool = False, meant: bool = False
            ) -> None:  # fmt: skip
    """Write under the pictures which colour is which class, and what a dashed line is, and a thick one."""
    known = sorted(set(labels))
    handles: list[Any] = [Line2D([], [], color=color_of(label), linewidth=2, label=short_label(classes[label], 20))
                          for label in known[:LEGEND]]  # fmt: skip
    if len(known) > LEGEND:
        handles.append(Line2D([], [], linestyle="none", label=f"and {len(known) - LEGEND:,} more"))
    if truth:
        handles += [Line2D([], [], color="black", linestyle="--", label="true"),
                    Line2D([], [], color="black", label="the net's, with its score")]  # fmt: skip
    if meant:
        handles.append(Line2D([], [], color="black", linewidth=3, label="thick: the mistake"))
    columns = max(1, int(figure.get_figwidth() / 1.3))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
