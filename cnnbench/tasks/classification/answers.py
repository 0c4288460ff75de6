"""answers.csv: what a net answered to each image. `evaluate` and trainings write it, reports read it."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.output.tables import csv_text
from cnnbench.utils.files import write_text

if TYPE_CHECKING:  # a report reads the file without torch
    from torch import Tensor

COLUMNS = ("image", "truth", "answer", "probability", "truth_probability", "truth_rank", "loss")


def write(path: Path, kept: "Tensor", names: Sequence[str], classes: Sequence[str]) -> None:
    """Write a row for each image, in their order. kept: rows of `metrics.kept_answers`, on the CPU."""
    others = range(2, (kept.shape[1] - 3) // 2 + 1)
    head = [*COLUMNS, *(one for place in others for one in (f"answer_{place}", f"probability_{place}"))]
    rows = (_row(name, row, classes) for name, row in zip(names, kept.tolist(), strict=True))
    write_text(path, csv_text([head, *rows]) + "\n")


def _row(name: str, kept: Sequence[float], classes: Sequence[str]) -> list[str | int]:
    truth, rank, log, *rest = kept
    half = len(rest) // 2
    pairs = [(classes[int(best)], _number(math.exp(one))) for best, one in zip(rest[:half], rest[half:], strict=True)]
    (answer, probability), *others = pairs
    judged = _number(math.exp(log)), int(rank), _number(abs(log))
    return [name, classes[int(truth)], answer, probability, *judged, *(cell for pair in others for cell in pair)]


def _number(value: float) -> str:
    return f"{value:.6g}"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one file: the images' names and truths, in order, and whether each answer is wrong."""

    images: list[str]  # paths below the folder that all share, or numbers
    truths: list[str]
    wrong: np.ndarray  # bool (N,)

    @property
    def numbered(self) -> bool:
        """Whether images have no names: the numbers of another data set's are the same."""
        return self.images[0] == "0"

    def same_images(self, other: "Answers") -> bool:
        return self.images == other.images and self.truths == other.truths


def read(path: Path) -> Answers:
    """Answers of a file. OSError where it cannot be read, ValueError where it is damaged."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    if tuple(head[: len(COLUMNS)]) != COLUMNS or not rows or any(len(row) != len(head) for row in rows):
        raise ValueError("it is no table of answers")
    images, truths, _, _, _, ranks, *_ = zip(*rows, strict=True)
    return Answers(_relative(images), list(truths), np.array([int(rank) > 1 for rank in ranks]))


def _relative(images: Sequence[str]) -> list[str]:
    """Paths below the folder that all images share: it may have moved, or be named in another way."""
    shared = os.path.commonprefix(images).rpartition("/")[0]  # noqa: RUF071  # cut at a whole folder
    return [image[len(shared) :].lstrip("/") for image in images]
