"""Metrics of a detector: COCO's by faster-coco-eval, of all images at once."""

import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.boxes import AREA, CLASS, COLUMNS, CORNERS, KIND, PLAIN
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.detection import AP50, AP75, MAP, METRICS
from cnnbench.tasks.detection.decode import KEPT, SCORE, detections, in_file, sizes_of
from cnnbench.tasks.meter import Meter
from cnnbench.utils.errors import UserError

PACKAGE = "faster_coco_eval"
STATS = (MAP.name, AP50.name, AP75.name, "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100")  # COCO's order


class BoxMeter(Meter):
    """Detections of all images with the truth, side by side. They are gathered, not added up: a match is of an image,
    but precision at a score is of all images."""

    def __init__(self, runtime: Runtime, classes: int, side: int, overlap: float) -> None:
        super().__init__(runtime)
        self.classes, self.side, self.overlap = classes, side, overlap
        self.found = [torch.zeros(0, KEPT, 6, device=runtime.device)]
        self.truth: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        sizes = sizes_of(targets)
        self.found.append(in_file(detections(outputs, self.side, overlap=self.overlap), sizes, self.side))
        tables = targets.clone()
        tables[:, 1:, CORNERS] *= (sizes / self.side).repeat(1, 2)[:, None]
        self.truth.append(tables)

    def rows(self) -> list[Tensor]:
        """Detections (n, KEPT, 6) and tables (n, rows, 7), in pixels of the files, an image in each row."""
        return [torch.cat(self.found), torch.cat(self.truth) if self.truth else torch.zeros(0, 0, COLUMNS)]

    def gather(self, gather: Callable[[Tensor], Tensor]) -> None:
        """A process without images has no row, and knows no height of a table."""
        self.found, self.truth = ([gather(rows.to(self.loss.device))] for rows in self.rows())

    def metrics(self) -> dict[str, float]:
        found, truth = (one.cpu() for one in self.rows())
        stats = coco_stats(found, truth, self.classes).stats
        return {metric.name: stats[metric.name] for metric in METRICS}


@dataclass(frozen=True)
class Found:
    """COCO's numbers, in percent. precision: (IoU thresholds, recalls, classes), at the recalls 0, 0.01, …, 1; NaN for
    a class without objects."""

    stats: dict[str, float]
    precision: np.ndarray


def check_package() -> None:
    """UserError where the package that counts is not installed."""
    if find_spec(PACKAGE) is None:
        raise UserError("task=detection needs faster-coco-eval: pip install 'cnnbench[detection]'")


def coco_stats(found: Tensor, truth: Tensor, classes: int) -> Found:
    """Numbers of detections (N, KEPT, 6) and tables (N, rows, 7) in pixels. What is difficult counts as a crowd does:
    neither to find it is a mistake, nor to miss it."""
    check_package()
    from faster_coco_eval import COCO, COCOeval_faster

    with redirect_stdout(StringIO()):
        known = COCO(as_coco(truth, classes))
        counted = COCOeval_faster(known, known.loadRes(as_results(found)), "bbox", print_function=lambda *_: None)
        counted.run()
    values = [100 * float(value) if value >= 0 else math.nan for value in counted.stats[: len(STATS)]]
    precision = np.asarray(counted.eval["precision"])[:, :, :, 0, -1].astype(float)
    return Found(dict(zip(STATS, values, strict=True)), np.where(precision < 0, math.nan, 100 * precision))


def as_coco(truth: Tensor, classes: int) -> dict[str, Any]:
    """Tables as the content of a COCO file."""
    annotations: list[dict[str, Any]] = []
    for image, table in enumerate(truth.double().tolist()):
        for row in table[1:]:
            if row[CLASS] >= 0:
                left, top, right, bottom = row[CORNERS]
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": int(row[CLASS]) + 1,
                    "bbox": [left, top, right - left, bottom - top], "area": row[AREA],
                    "iscrowd": int(row[KIND] != PLAIN),
                })  # fmt: skip
    return {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": number + 1, "name": str(number)} for number in range(classes)],
        "annotations": annotations,
    }


def as_results(found: Tensor) -> np.ndarray:
    """Detections as rows (n, 7): image, left, top, width, height, score, category."""
    image, place = (found[:, :, SCORE] > 0).nonzero(as_tuple=True)
    label, score, left, top, right, bottom = found[image, place].double().unbind(1)
    return torch.stack([image.double(), left, top, right - left, bottom - top, score, label + 1], dim=1).numpy()
