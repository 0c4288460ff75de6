"""Pictures of a segmentation: a batch with its masks, answers beside the truth, IoU by class, the confusion matrix."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from cnnbench.data.sources import IGNORE
from cnnbench.output.figure import BLUE, GREY, VERMILLION, array, new_figure, picture_axes, save_figure, short_label
from cnnbench.output.rgb import to_rgb
from cnnbench.tasks.segmentation.metrics import counts, judged_alone, scores
from cnnbench.tasks.segmentation.palette import Colors
from cnnbench.utils.format import plural

ROWS = 6  # images with their answers in one picture
BATCH = 12  # images of a training batch in one picture
STRENGTH = 0.6  # of the colours over an image
LEGEND = 24  # classes that a legend names; more are counted
CELLS = 24  # classes up to which the confusion matrix has numbers
WRONG, RIGHT = (213, 94, 0), (225, 225, 225)  # VERMILLION; light gray


@dataclass(frozen=True, eq=False)
class Shown:
    """An image uint8 (C, H, W) with its mask and the net's answer, classes (H, W), and its name."""

    image: Tensor
    mask: Tensor
    answer: Tensor
    name: str = ""

    def miou(self, classes: int) -> float:
        return float(judged_alone(counts(self.answer[None], self.mask[None], classes))[0, 0])


def coloured(mask: Any, colors: Colors) -> np.ndarray:
    """RGB array (H, W, 3) of a mask."""
    return colors[array(mask).astype(np.int64)]


def overlay(image: Any, mask: Any, colors: Colors) -> np.ndarray:
    """RGB array of an image under the colours of its mask; pixels that do not count show the image."""
    picture, tints = to_rgb(image).astype(float), coloured(mask, colors)
    mixed = (1 - STRENGTH) * picture + STRENGTH * tints
    return np.where((array(mask) == IGNORE)[..., None], picture, mixed).round().astype(np.uint8)


def where_wrong(mask: Any, answer: Any) -> np.ndarray:
    """RGB array: wrong pixels in colour, right ones light gray, those that do not count white."""
    truth, said = array(mask), array(answer)
    picture = np.where((truth != said)[..., None], np.array(WRONG), np.array(RIGHT))
    return np.where((truth == IGNORE)[..., None], 255, picture).astype(np.uint8)


def present(masks: Iterable[Any], classes: int) -> list[int]:
    """Classes that occur in masks."""
    found = {int(value) for mask in masks for value in np.unique(array(mask))}
    return [value for value in sorted(found) if value < classes]


def plot_train_batch(images: Tensor, masks: Tensor, classes: Sequence[str], colors: Colors, path: Path) -> Figure:
    """Draw the first images, uint8 (N, C, H, W), of a batch as the net sees them, under their masks (N, H, W)."""
    shown = list(zip(images[:BATCH], masks[:BATCH], strict=True))
    height, width = images.shape[2:]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    title = f"Training batch under its masks, as the net sees it: {width} × {height} pixels"
    figure, axes = _grid(rows, columns, 1.9, height / width, title)
    for ax, (image, mask) in zip(axes.flat, shown, strict=False):
        ax.imshow(overlay(image, mask, colors))
    _legend(figure, present([mask for _, mask in shown], len(classes)), classes, colors)
    return save_figure(figure, path)


def plot_answers(shown: Sequence[Shown], classes: Sequence[str], colors: Colors, path: Path, title: str) -> Figure:
    """Draw a row for each image: itself, the truth, the net's answer, and where that is wrong."""
    aspect = max(one.image.shape[1] / one.image.shape[2] for one in shown)
    figure, axes = _grid(len(shown), 4, 2.2, aspect, title)
    for head, ax in zip(("image", "truth", "answer", "wrong"), axes[0], strict=True):
        ax.set_title(head, fontsize=9)
    for row, one in zip(axes, shown, strict=True):
        pictures = (to_rgb(one.image), overlay(one.image, one.mask, colors), overlay(one.image, one.answer, colors),
                    where_wrong(one.mask, one.answer))  # fmt: skip
        for ax, picture in zip(row, pictures, strict=True):
            ax.imshow(picture)
        row[0].set_ylabel(short_label(Path(one.name).name, 22), fontsize=7)
        row[3].set_ylabel(f"mean IoU {one.miou(len(classes)):.1f} %", fontsize=8)
        row[3].yaxis.set_label_position("right")
    found = present([part for one in shown for part in (one.mask, one.answer)], len(classes))
    _legend(figure, found, classes, colors, [Patch(color=VERMILLION, label="wrong")])
    return save_figure(figure, path)


def plot_overlay(picture: np.ndarray, found: Sequence[int], classes: Sequence[str], colors: Colors, path: Path,
                 title: str) -> Figure:  # fmt: skip
    """Draw an image that lies under its answer already, and a legend of the classes found."""
    figure, axes = _grid(1, 1, 7.0, picture.shape[0] / picture.shape[1], title)
    axes[0, 0].imshow(picture)
    _legend(figure, found, classes, colors)
    return save_figure(figure, path)


def plot_classes(confusion: Tensor, classes: Sequence[str], colors: Colors, path: Path, title: str) -> Figure:
    """Draw the IoU of each class, the best first, with its share of the pixels; the mean is a line."""
    found = scores(confusion)
    order = sorted((index for index, pixels in enumerate(found.pixels) if pixels), key=lambda index: -found.iou[index])
    mean, total = found.means["miou"], sum(found.pixels)
    figure = new_figure(
        7.2, 1.3 + 0.26 * len(order), f"{title}\nmean IoU {mean:.2f} % of {plural(len(order), 'class')}"
    )
    ax = figure.subplots()
    places = range(len(order))
    ax.barh(places, [found.iou[index] for index in order], color=BLUE, height=0.7)
    ax.barh(
        places, [-1.6] * len(order), color=colors[order] / 255, height=0.7
    )  # the colour that the class has in pictures
    for place, index in zip(places, order, strict=True):
        share = 100 * found.pixels[index] / total
        ax.text(found.iou[index] + 1, place, f"{found.iou[index]:.1f} %", va="center", fontsize=8)
        ax.text(
            118, place, f"{share:.1f} %" if share >= 0.1 else "< 0.1 %", va="center", ha="right", fontsize=8, color=GREY
        )
    ax.axvline(mean, color=VERMILLION, linewidth=1, linestyle=(0, (4, 2)))
    ax.text(118, -1, "of the pixels", va="center", ha="right", fontsize=8, color=GREY)
    ax.set(xlim=(-2, 119), ylim=(len(order) - 0.4, -1.5), xlabel="IoU, %", xticks=range(0, 101, 20))
    ax.set_yticks(places, [short_label(classes[index], 24) for index in order], fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def plot_confusion(confusion: Tensor, classes: Sequence[str], path: Path, title: str) -> Figure:
    """Draw for each true class (row) the shares of its pixels that were taken for each class (column), in percent."""
    counts = array(confusion).astype(float)
    sums = counts.sum(1, keepdims=True)
    shares = np.where(sums > 0, 100 * counts / np.maximum(sums, 1), np.nan)
    side = min(max(4.6, 0.5 * len(classes)), 12)
    figure = new_figure(side + 1.6, side + 0.8, f"{title}\nshare of the pixels of each true class, %")
    ax = figure.subplots()
    ax.imshow(np.sqrt(shares), cmap="viridis", vmin=0, vmax=10)  # the root keeps one percent visible beside ninety
    small = len(classes) > 12
    if len(classes) <= CELLS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.05:
                text = f"{share:.0f}" if share >= 9.95 or small else f"{share:.1f}"
                ax.text(
                    column, row, text, ha="center", va="center", fontsize=7, color="black" if share > 40 else "white"
                )
    names = [short_label(name, 20) for name in classes]
    ax.set_xticks(range(len(names)), names, fontsize=8 if not small else 7, rotation=90)
    ax.set_yticks(range(len(names)), names, fontsize=8 if not small else 7)
    ax.set(xlabel="answer", ylabel="truth")
    return save_figure(figure, path)


def _grid(rows: int, columns: int, side: float, aspect: float, title: str) -> tuple[Figure, np.ndarray]:
    """Figure with room for a legend below, and Axes (rows, columns) without ticks. side: inches of a picture."""
    width = max(columns * side + 0.6, 6.0)
    figure = new_figure(width, rows * (side * aspect + 0.3) + 1.1, title)
    return figure, picture_axes(figure, rows, columns)


def _legend(figure: Figure, found: Sequence[int], classes: Sequence[str], colors: Colors,
            more: Sequence[Patch] = ()) -> None:  # fmt: skip
    """Write under the pictures which colour is which class; of very many classes the first ones."""
    named = [Patch(color=colors[index] / 255, label=short_label(classes[index], 20)) for index in found[:LEGEND]]
    if len(found) > LEGEND:
        named.append(Patch(color="none", label=f"and {len(found) - LEGEND:,} more"))
    columns = max(1, int(figure.get_figwidth() / 1.35))
    figure.legend(handles=[*named, *more], loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
