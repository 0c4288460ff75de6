"""Tables of a segmentation: how each image was judged, the classes, the page on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnbench.output.tables import csv_text
from cnnbench.tasks.segmentation import MIOU, PIXELS
from cnnbench.tasks.segmentation.metrics import Scores
from cnnbench.utils.files import write_text
from cnnbench.utils.format import Percent


def write_answers(kept: Tensor, images: Sequence[str], path: Path) -> None:
    """Write a row for each image, in their order. kept: rows of `ImagesMeter.answers`, on the CPU."""
    rows = [[image, f"{miou:.6g}", f"{accuracy:.6g}", int(pixels)]
            for image, (miou, accuracy, pixels) in zip(images, kept.tolist(), strict=True)]  # fmt: skip
    write_text(path, csv_text([["image", MIOU.name, PIXELS.name, "pixels"], *rows]) + "\n")


def per_class(found: Scores, confusion: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class: its share of the pixels, its IoU and accuracy, and for what it was taken most often.

    What cannot be said of a class that does not occur is None.
    """
    total = max(sum(found.pixels), 1)
    rows = []
    for index, name in enumerate(classes):
        others = confusion[index].clone()
        others[index] = 0
        most, pixels = int(others.argmax()), found.pixels[index]
        rows.append({
            "class": name,
            "pixels": Percent(100 * pixels / total),
            "IoU": Percent(found.iou[index]) if pixels else None,
            "accuracy": Percent(found.accuracy[index]) if pixels else None,
            "most often taken for": classes[most] if others[most] else None,
            "share": Percent(100 * int(others[most]) / pixels) if others[most] else None,
        })  # fmt: skip
    return rows
