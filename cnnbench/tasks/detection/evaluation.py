"""Evaluation of a detector: COCO's and VOC's numbers, class by class, the curves behind them, the mistakes by kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cnnbench.config.sections import Format
from cnnbench.data.sources import Source, image_ids
from cnnbench.output.tables import csv_text, render
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.detection import METRICS
from cnnbench.tasks.detection.decode import LEAST
from cnnbench.tasks.detection.metrics import BoxMeter, Found, coco_stats
from cnnbench.tasks.detection.results import as_coco_results
from cnnbench.tasks.detection.verdicts import FOUND, MISTAKES, NAMES, Verdicts, judge, voc
from cnnbench.tasks.measurement import Judged, Measurement, crop_text
from cnnbench.tasks.metric import headline
from cnnbench.tasks.passes import judge as judge_net
from cnnbench.utils.console import warn_if_undrawn, warn_in_result
from cnnbench.utils.files import json_text, write_text
from cnnbench.utils.format import Percent, plural

if TYPE_CHECKING:
    from cnnbench.tasks.detection.task import Detection

SURE = 0.5  # score from which on a box is drawn and counts as a mistake
RULE = (
    "COCO's: IoU 0.5 to 0.95 in steps of 0.05, 101 recalls, at most 100 boxes of an image and class, scores from "
    f"{LEAST:g} on; voc_ap_11 and voc_ap: Pascal VOC's at IoU 0.5, of 11 recalls and of all"
)


def measure(task: "Detection", one: Judged, runtime: Runtime) -> Measurement:
    """Metrics of one net over every image, with tables and pictures of classes, curves and mistakes."""
    meter, seconds = judge_net(task, one, runtime)
    assert isinstance(meter, BoxMeter)
    found, truth = (rows.cpu() for rows in meter.rows())
    classes = one.dataset.classes
    numbers, judged = coco_stats(found, truth, len(classes)), judge(found, truth, len(classes))
    rows = per_class(numbers, judged, judge(found, truth, len(classes), SURE), classes)
    how = crop_text(one.dataset, one.spec.input.image_size, one.spec.input.crop_ratio)
    return Measurement(
        n=meter.n,
        seconds=seconds,
        result={
            "loss": meter.mean_loss(),
            **{name: known(value) for name, value in numbers.stats.items()},
            "voc_ap_11": mean(voc(judged, eleven=True)),
            "voc_ap": mean(voc(judged, eleven=False)),
            "n": meter.n,
            "boxes": int(judged.objects.sum()),
            "rule": RULE,
            "crop": how,
            "protocol": {"name": how},
            "ap50_of": {row["class"]: known(float(row["AP50"])) if row["boxes"] else None for row in rows},
        },
        write=lambda folder, result: write(folder, result, one, found, truth, rows),
        page=lambda result, brief: page(result, rows, brief),
    )


def known(value: float) -> float | None:
    """The number; None for NaN, where there is nothing to be measured."""
    return value if value == value else None


def mean(values: Sequence[float]) -> float | None:
    found = [value for value in values if value == value]
    return float(np.mean(found)) if found else None


def per_class(numbers: Found, judged: Verdicts, sure: Verdicts, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class: its objects, its average precisions, and recall and precision at the score SURE."""
    of_class, eleven, all_points = numbers.precision.mean(1), voc(judged, eleven=True), voc(judged, eleven=False)
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(classes):
        own = sure.boxes[:, 0] == label
        right, count, said = int((sure.verdict[own] == FOUND).sum()), int(judged.objects[label]), int(own.sum())
        values = (of_class[:, label].mean(), of_class[0, label], of_class[5, label], eleven[label], all_points[label])
        names = ("AP", "AP50", "AP75", "VOC 11-point", "VOC all-point")
        rows.append({
            "class": name,
            "boxes": count,
            **{key: Percent(value) if count else None for key, value in zip(names, values, strict=True)},
            f"recall at {SURE:g}": Percent(100 * right / count) if count else None,
            f"precision at {SURE:g}": Percent(100 * right / said) if said else None,
        })  # fmt: skip
    return rows


def kinds(judged: Verdicts) -> dict[str, int]:
    """How many mistakes there are of each kind."""
    counts = Counter(NAMES[kind] for kind in judged.verdict.tolist() if kind in NAMES)
    return {name: len(judged.missed) if name == "missed" else counts[name] for name in MISTAKES}


def write(path: Path, result: dict[str, Any], one: Judged, found: Tensor, truth: Tensor, rows: list[dict[str, Any]]
          ) -> None:  # fmt: skip
    """Write the tables and the pictures. What fails is a warning in the result."""
    from cnnbench.tasks.detection import plots

    classes, source = one.dataset.classes, one.reading.source
    title = f"{result['model']} on {result['data']}, {result['split']}, {result['precision']}"
    judged, sure = judge(found, truth, len(classes)), judge(found, truth, len(classes), SURE)
    files: dict[str, Callable[[Path], object]] = {
        "detections.json": lambda file: write_detections(found, source, one, file),
        "classes.csv": lambda file: write_text(file, render(rows, Format.csv) + "\n"),
        "mistakes.csv": lambda file: write_mistakes(sure, image_ids(source), classes, truth, file),
        "classes.png": lambda file: plots.plot_classes(rows, file, f"{title}\nmAP {result['map']:.2f} %"),
        "precision_recall.png": lambda file: plots.plot_curves(judged, classes, file, title),
        "mistakes.png": lambda file: plots.plot_mistakes(sure, kinds(sure), source, truth, classes, file, title),
    }
    for name, make in files.items():
        with warn_if_undrawn(name, partial(warn_in_result, result)):
            make(path / name)


def write_detections(found: Tensor, source: Source, one: Judged, file: Path) -> None:
    """Write all detections in COCO's result format."""
    ids = one.spec.extra.get("category_ids")
    rows = [row for boxes, name in zip(found, image_ids(source), strict=True)
            for row in as_coco_results(boxes[boxes[:, 1] > 0].tolist(), name, ids)]  # fmt: skip
    write_text(file, json_text(rows, indent=None) + "\n")


def write_mistakes(judged: Verdicts, images: Sequence[str], classes: Sequence[str], truth: Tensor, file: Path) -> None:
    """Write a row for each mistake: image, kind, class, score, corners; the missed objects last."""
    rows: list[list[Any]] = [["image", "kind", "class", "score", "left", "top", "right", "bottom"]]
    for box, image, verdict in zip(judged.boxes.tolist(), judged.image, judged.verdict.tolist(), strict=True):
        if verdict in NAMES:
            corners = [f"{value:.1f}" for value in box[2:]]
            rows.append([images[image], NAMES[verdict], classes[int(box[0])], f"{box[1]:.4f}", *corners])
    for image, row in judged.missed:
        label, *corners = truth[image, row, :5].tolist()
        rows.append([images[image], "missed", classes[int(label)], "", *(f"{value:.1f}" for value in corners)])
    write_text(file, csv_text(rows) + "\n")


def page(result: dict[str, Any], rows: list[dict[str, Any]], brief: bool) -> str:
    """The classes and the numbers for the terminal. brief: the numbers alone."""
    tables = [] if brief else [render(rows, Format.table), ""]
    lines = [
        f"{headline(METRICS, result)}, VOC 11-point {result['voc_ap_11'] or 0:.2f} %, all-point "
        f"{result['voc_ap'] or 0:.2f} %, loss {result['loss']:.4f}",
        f"measured: {result['crop']}, {result['precision']}; {plural(result['n'], result['split'] + ' image')} with "
        f"{plural(result['boxes'], 'box')}, {result['images_per_second']:,.0f} a second",
        f"-> {result['run_dir']}",
    ]
    return "\n".join([*tables, *lines])
