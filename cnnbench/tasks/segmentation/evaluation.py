"""Evaluation of a segmentation net: the confusion of its classes, each image's own score, and the worst images."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnbench import data
from cnnbench.config.sections import Format
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import image_ids
from cnnbench.output.tables import csv_text, render
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.measurement import Judged, Measurement, crop_text
from cnnbench.tasks.metric import headline
from cnnbench.tasks.passes import answers, judge, predictions
from cnnbench.tasks.segmentation import METRICS, report
from cnnbench.tasks.segmentation.metrics import ImagesMeter, Scores, best, scores
from cnnbench.utils.console import warn_if_undrawn, warn_in_result
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural

if TYPE_CHECKING:
    from cnnbench.tasks.segmentation.plots import Shown
    from cnnbench.tasks.segmentation.task import Segmentation


def measure(task: "Segmentation", one: Judged, runtime: Runtime) -> Measurement:
    """Metrics of one net over every image, with tables and pictures of classes and of the images."""
    meter, seconds = judge(task, one, runtime)
    assert isinstance(meter, ImagesMeter)
    kept, confusion = answers(meter, runtime), meter.confusion.cpu()
    assert kept is not None
    how = crop_text(one.dataset, one.spec.input.image_size, one.spec.input.crop_ratio)
    found = scores(confusion)
    classes = dict(zip(one.dataset.classes, found.iou, strict=True))
    return Measurement(
        n=meter.n,
        seconds=seconds,
        result={
            **meter.compute(),
            "n": meter.n,
            "crop": how,
            "protocol": {"name": how},
            "iou": {name: iou if iou == iou else None for name, iou in classes.items()},  # NaN: it does not occur
        },
        write=lambda folder, result: write(folder, result, task, one, runtime, confusion, kept),
        page=lambda result, brief: page(result, found, confusion, one.dataset.classes, brief),
    )


def write(path: Path, result: dict[str, Any], task: "Segmentation", one: Judged, runtime: Runtime, confusion: Tensor,
          kept: Tensor) -> None:  # fmt: skip
    """Write the tables as CSV and the pictures. What fails is a warning in the result."""
    from cnnbench.tasks.segmentation import plots

    classes = one.dataset.classes
    title = f"{result['model']} on {result['data']}, {result['split']}, {result['crop']}, {result['precision']}"
    rows = report.per_class(scores(confusion), confusion, classes)
    table = [
        ["true \\ answer", *classes],
        *([name, *row] for name, row in zip(classes, confusion.tolist(), strict=True)),
    ]

    def draw_worst(file: Path) -> None:
        shown = worst(task, one, runtime, kept, plots.ROWS)
        plots.plot_answers(shown, classes, task.colors, file, f"{title}\nthe images of the lowest mean IoU")

    files: dict[str, Callable[[Path], object]] = {
        ANSWERS: lambda file: report.write_answers(kept, image_ids(one.reading.source), file),
        "classes.csv": lambda file: write_text(file, render(rows, Format.csv) + "\n"),
        "confusion_matrix.csv": lambda file: write_text(file, csv_text(table) + "\n"),
        "classes.png": lambda file: plots.plot_classes(confusion, classes, task.colors, file, title),
        "confusion_matrix.png": lambda file: plots.plot_confusion(confusion, classes, file, title),
        "mistakes.png": draw_worst,
    }
    for name, make in files.items():
        with warn_if_undrawn(name, partial(warn_in_result, result)):
            make(path / name)


def worst(task: "Segmentation", one: Judged, runtime: Runtime, kept: Tensor, count: int) -> "list[Shown]":
    """The images of the lowest mean IoU, with the net's answers; never one without a pixel that counts."""
    order = torch.where(kept[:, 2] > 0, kept[:, 0], torch.inf).argsort(stable=True)[:count]
    source = one.reading.source.subset(order)
    names = data.image_names(source, torch.arange(len(source)))
    shown = answered(task, one.model, one.spec, runtime, replace(one.dataset, val=source))
    return [replace(image, name=name) for image, name in zip(shown, names, strict=True)]


def answered(task: "Segmentation", net: Callable[[Tensor], Any], spec: ModelSpec, runtime: Runtime,
             dataset: data.Dataset) -> "list[Shown]":  # fmt: skip
    """The validation images of a data set with their masks and the net's answers."""
    from cnnbench.tasks.segmentation.plots import Shown

    batches = data.eval_loader(dataset.val, dataset, image_size=spec.input.image_size, batch_size=8, workers=0)
    normalize = Normalize(runtime, spec.input.mean, spec.input.std)
    return [
        Shown(image.cpu(), mask.cpu(), answer.cpu())
        for batch, _, outputs in predictions(net, batches.epoch(), runtime, normalize)
        for image, mask, answer in zip(batch["image"], batch["target"], best(task.answer(outputs)), strict=True)
    ]


def page(result: dict[str, Any], found: Scores, confusion: Tensor, classes: list[str], brief: bool) -> str:
    """The classes and the numbers for the terminal. brief: the numbers alone."""
    tables = [] if brief else [render(report.per_class(found, confusion, classes), Format.table), ""]
    lines = [
        f"{headline(METRICS, result)}, loss {result['loss']:.4f}",
        f"measured: {result['crop']}, {result['precision']}; {plural(result['n'], result['split'] + ' image')}, "
        f"{result['images_per_second']:,.0f} a second",
        f"-> {result['run_dir']}",
    ]
    return "\n".join([*tables, *lines])
