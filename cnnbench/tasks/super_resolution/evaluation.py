"""Evaluation of a net that enlarges: beside bicubic interpolation, image by image, with the parts that differ most."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench import data
from cnnbench.config.sections import Format
from cnnbench.data.sources import Source, image_names
from cnnbench.output.tables import render
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.measurement import Judged, Measurement
from cnnbench.tasks.passes import measure_net, predictions
from cnnbench.tasks.super_resolution import (
    BICUBIC_PSNR,
    BICUBIC_RGB,
    BICUBIC_SSIM,
    CONSISTENCY,
    PSNR,
    PSNR_RGB,
    SSIM,
)
from cnnbench.tasks.super_resolution.checks import sizes
from cnnbench.utils.console import warn_if_undrawn, warn_in_result
from cnnbench.utils.format import plural

if TYPE_CHECKING:
    from cnnbench.tasks.super_resolution.task import SuperResolution

LISTED = 20  # images that are printed one by one
DRAWN = 4  # that are drawn: evenly spaced by what the net gains
NAME = "Y of BT.601"


def measure(task: "SuperResolution", one: Judged, runtime: Runtime) -> Measurement:
    """Metrics of a net and of bicubic interpolation over whole images."""
    found = measure_net(task, one, runtime)
    odd = sum(any(side % task.scale for side in size) for _, size in sizes(one.reading.source))
    cut = f", {plural(odd, 'image')} cut to sides that {task.scale} divides" if odd else ""
    how = f"whole images{cut}, without {plural(task.scale, 'pixel')} of the border, on {NAME}"
    result = {**found.result, "scale": task.scale, "crop": "whole images",
              "protocol": {"name": NAME, "shaved": task.scale, "rounded": True, "cut": odd}}  # fmt: skip

    def write(folder: Path, result: dict[str, Any]) -> None:
        found.write(folder, result)
        rows = read_answers(folder / ANSWERS)
        with warn_if_undrawn("examples.png", partial(warn_in_result, result)):
            draw_examples(task, one, runtime, chosen(rows), folder / "examples.png")

    def page(result: dict[str, Any], brief: bool) -> str:
        rows = read_answers(Path(result["run_dir"]) / ANSWERS)
        images = [] if brief or len(rows) > LISTED else [render(listed(rows), Format.table)]
        numbers = f"measured: {how}; {runtime.precision}; {plural(found.n, 'image')}"
        table = render(side_by_side(result, one.spec.model["name"]), Format.table)
        return "\n\n".join([*images, table]) + f"\n{numbers}\n-> {result['run_dir']}"

    return replace(found, result=result, write=write, page=page)


def side_by_side(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Rows of a table: bicubic interpolation and the net."""
    pairs = {PSNR: BICUBIC_PSNR, SSIM: BICUBIC_SSIM, PSNR_RGB: BICUBIC_RGB}
    known = {ours: bicubic for ours, bicubic in pairs.items() if ours.name in values}
    bicubic = {ours.axis: f"{values[one.name]:.{one.decimals}f}" for ours, one in known.items()}
    net = {ours.axis: f"{values[ours.name]:.{ours.decimals}f}" for ours in known}
    return [{"": "bicubic", **bicubic, CONSISTENCY.axis: "-"},
            {"": name, **net, CONSISTENCY.axis: f"{values[CONSISTENCY.name]:.2f}"}]  # fmt: skip


def read_answers(file: Path) -> list[dict[str, Any]]:
    """Rows of answers.csv, the numbers as numbers."""
    import csv

    with file.open(newline="") as lines:
        return [{key: value if key == "image" else float(value) for key, value in row.items()}
                for row in csv.DictReader(lines)]  # fmt: skip


def listed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"image": Path(row["image"]).name, BICUBIC_PSNR.axis: row[BICUBIC_PSNR.name], PSNR.axis: row[PSNR.name],
         "gain, dB": row[PSNR.name] - row[BICUBIC_PSNR.name], SSIM.axis: row[SSIM.name]}
        for row in rows
    ]  # fmt: skip


def chosen(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Images to draw: from the least to the largest gain over bicubic interpolation."""
    order = sorted(range(len(rows)), key=lambda index: rows[index][PSNR.name] - rows[index][BICUBIC_PSNR.name])
    wanted = min(DRAWN, len(order))
    return [order[round(place * (len(order) - 1) / max(wanted - 1, 1))] for place in range(wanted)]


def draw_examples(task: "SuperResolution", one: Judged, runtime: Runtime, indices: Sequence[int], file: Path) -> None:
    from cnnbench.tasks.super_resolution import plots

    some = one.reading.source.subset(torch.tensor(indices, dtype=torch.int64))
    given = one.spec.input
    batches = data.eval_loader(some, one.dataset, image_size=given.image_size, batch_size=DRAWN, workers=0)
    found = predictions(one.model.eval(), batches.epoch(0), runtime, Normalize(runtime, given.mean, given.std))
    examples = [
        plots.Example(low, answer, truth[: task.channels], name)
        for (batch, targets, outputs), names in zip(found, grouped(some, batches), strict=True)
        for low, answer, truth, name in zip(batch["image"], task.answer(outputs), targets, names, strict=True)
    ]
    plots.draw_examples(examples, task.scale, file, f"{one.spec.model['name']} on {one.dataset.name}")


def grouped(source: Source, batches: data.Loader) -> list[list[str]]:
    """Names of the images of each batch."""
    return [[Path(name).name for name in image_names(source, indices)] for indices in batches.order.batches(0)]
