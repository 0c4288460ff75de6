"""Evaluation of a colorization beside gray and one mean colour, and the judgement of a classifier on its images."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnbench import data
from cnnbench.config.commands import EvaluateConfig
from cnnbench.config.sections import Format, PrepareConfig
from cnnbench.data import EvalTransform
from cnnbench.output.tables import render
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.colorization import METRICS
from cnnbench.tasks.colorization.bins import TEMPERATURE
from cnnbench.tasks.colorization.lab import lab_to_rgb
from cnnbench.tasks.colorization.metrics import ColourMeter, ab_of, enlarged
from cnnbench.tasks.measurement import Judged, Measurement, crop_text, progress
from cnnbench.tasks.metric import headline
from cnnbench.tasks.passes import add_up, check_loss, predictions
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.weights import load, sources

if TYPE_CHECKING:
    from cnnbench.tasks.colorization.task import Colorization

NET, GRAY, MEAN, TRUTH = "this net", "gray", "mean ab", "truth"


@dataclass
class Judge:
    """A classifier, and how many images of each kind it puts into their class."""

    source: str
    net: Any
    normalize: Normalize
    transform: EvalTransform
    classes: Tensor  # class of the classifier for each of the data's
    right: dict[str, Tensor] = field(default_factory=dict)

    def look(self, name: str, images: Tensor, targets: Tensor) -> None:
        """Add images uint8 (N, 3, H, W) with their classes in the data."""
        logits = self.net(self.normalize(self.transform(images)))
        hits = (logits.argmax(1) == self.classes[targets]).sum()
        self.right[name] = self.right.get(name, torch.zeros_like(hits)) + hits


def load_judge(where: str, one: Judged, runtime: Runtime) -> Judge:
    """Judge of these weights. UserError where it is no classifier of the data's classes in colour."""
    found = sources.load(where, None, None)
    empty = PrepareConfig(image_size=None, crop_ratio=None, interpolation=None, mean=None, std=None, classes=None)
    net, spec, _ = load.ready(found, None, empty, None, None)
    if spec.task != "classification" or spec.input.in_channels != 3:
        raise UserError(f"judge={where} is for {spec.task}: it takes a classifier of images in colour")
    names = one.dataset.extra["classes"]
    if not names:
        raise UserError(f"judge={where} needs classes, which data={one.dataset.name} has not")
    if missing := [name for name in names if name not in spec.labels]:
        raise UserError(f"judge={where} does not know the class {missing[0]} of data={one.dataset.name}")
    given, numbers = spec.input, [spec.labels.index(name) for name in names]
    return Judge(
        source=found.source,
        net=runtime.place(net).eval(),
        normalize=Normalize(runtime, given.mean, given.std),
        transform=EvalTransform(given.image_size, given.crop_ratio, given.interpolation),
        classes=torch.tensor(numbers, device=runtime.device),
    )


def measure(task: "Colorization", one: Judged, cfg: EvaluateConfig, runtime: Runtime) -> Measurement:
    """Measurement of one net over every image, with gray and the mean colour of the training images beside it."""
    judge = load_judge(cfg.judge, one, runtime) if cfg.judge else None
    begin = time.perf_counter()
    temperature = cfg.temperature or TEMPERATURE
    meters = {name: ColourMeter(runtime, temperature) for name in (NET, GRAY, MEAN)}
    shown = None
    for batch, lab, outputs in _batches(one, runtime):
        ab = enlarged(ab_of(task.answer(outputs), temperature), *lab.shape[2:])
        meters[NET].add(task.loss(outputs, lab), outputs, lab)
        shown = shown or (lab.cpu(), ab.cpu())
        for name, colour in ((GRAY, torch.zeros(1, 2, 1, 1)), (MEAN, task.mean_ab)):
            meters[name].add_colours(colour.to(lab.device).expand_as(ab), lab)
            meters[name].n += len(lab)
        if judge:
            _ask(judge, ab, lab, one.reading.source.targets[batch["index"].cpu()].to(lab.device))
    for meter in meters.values():
        add_up(meter, runtime)
    check_loss(meters[NET], one.weights.source)
    rows = table(meters, judge, runtime)
    return _measurement(one, meters[NET], rows, judge, runtime, time.perf_counter() - begin, temperature, shown)


@torch.no_grad()
def _batches(one: Judged, runtime: Runtime) -> Iterator[tuple[data.Batch, Tensor, Any]]:
    reading, given = one.reading, one.spec.input
    loader = data.eval_loader(
        reading.source,
        one.dataset,
        image_size=given.image_size,
        batch_size=reading.batch_size,
        workers=reading.workers,
        rank=runtime.group.rank,
        world_size=runtime.group.size,
    )
    net, normalize = runtime.place(one.model).eval(), Normalize(runtime, given.mean, given.std)
    with progress(len(reading.source)) as advance, runtime.cached_weight_casts():
        for batch, lab, outputs in predictions(net, reading.until(loader.epoch()), runtime, normalize):
            yield batch, lab, outputs
            advance(len(lab))


def _ask(judge: Judge, ab: Tensor, lab: Tensor, targets: Tensor) -> None:
    for name, colours in ((NET, ab), (GRAY, torch.zeros_like(ab)), (TRUTH, lab[:, 1:])):
        judge.look(name, lab_to_rgb(torch.cat([lab[:, :1], colours], dim=1)), targets)


def table(meters: dict[str, ColourMeter], judge: Judge | None, runtime: Runtime) -> dict[str, dict[str, float]]:
    """Metrics of each kind of colours, by its name."""
    rows = {name: meter.metrics() for name, meter in meters.items()}
    net = meters[NET]
    rows[TRUTH] = {"colourfulness": net.true_colour.item() / max(net.n, 1)}
    if judge:
        for name, right in judge.right.items():
            runtime.group.all_reduce_sum(right)
            rows[name]["judged_top1_error"] = 100 * (1 - right.item() / net.n)
    return rows


def text(rows: dict[str, dict[str, float]], judge: Judge | None) -> str:
    """Rows as a table for people."""
    columns = {metric.name: (f"{metric.label} {metric.unit}".strip(), metric.decimals) for metric in METRICS}
    if judge:
        columns["judged_top1_error"] = (f"top-1 error % by {judge.source}", 2)
    shown = [
        {"colours": name, **{label: f"{row[key]:.{decimals}f}" if key in row else "" for key, (label, decimals)
                             in columns.items()}}
        for name, row in rows.items()
    ]  # fmt: skip
    return render(shown, Format.table)


def _measurement(one: Judged, meter: ColourMeter, rows: dict[str, dict[str, float]], judge: Judge | None,
                 runtime: Runtime, seconds: float, temperature: float, shown: Any) -> Measurement:  # fmt: skip
    values = meter.compute()
    how = crop_text(one.dataset, one.spec.input.image_size, one.spec.input.crop_ratio)
    about = {"temperature": temperature, "judge": judge.source if judge else None, "colours": rows}

    def write(folder: Path, result: dict[str, Any]) -> None:
        from cnnbench.tasks.colorization import plots

        title = f"{one.spec.model['name']} on {result['data']}, {result['split']}"
        lab, ab = shown
        plots.plot_answers(lab, ab, folder / "predictions.png", title)
        plots.plot_errors(meter.errors, folder / "errors.png", title)
        plots.plot_colours(meter.errors.sum(1), meter.answered, folder / "colours.png", title)

    page = f"{headline(METRICS, values)}, loss {values['loss']:.4f}"
    said = f"measured: {how}, {runtime.precision}, T {temperature:g}; {plural(meter.n, 'image')}"
    return Measurement(
        n=meter.n,
        seconds=seconds,
        result={**values, "n": meter.n, "crop": how, "protocol": {"name": how, "temperature": temperature}, **about},
        write=write,
        page=lambda result, brief: "\n".join([page if brief else text(rows, judge), said, f"-> {result['run_dir']}"]),
    )
