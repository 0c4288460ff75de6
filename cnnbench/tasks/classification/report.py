"""Report of an evaluation, in files and on the terminal: headline, errors per class, confusion, worst mistakes."""

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnbench.config.sections import Format
from cnnbench.data.balance import unequal
from cnnbench.data.sources import Source, image_ids
from cnnbench.output.tables import csv_text, render
from cnnbench.output.tensorboard import fresh_events
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.classification import BALANCED, MACRO_F1, METRICS, USUAL, answers, plots
from cnnbench.tasks.classification.coverage import LEAST
from cnnbench.tasks.classification.metrics import Evaluation, class_figures, kept_answers
from cnnbench.tasks.classification.mistakes import draw_mistake_cards
from cnnbench.utils.console import warn_if_undrawn, warn_in_result
from cnnbench.utils.files import write_text
from cnnbench.utils.format import Percent, display_width, plural, shorten, shorten_apart
from cnnbench.utils.statistics import wilson

CONFUSED = 10  # pairs that are listed
LISTED = 10  # classes of a long list that are printed: those with the largest errors
FEW = 100  # classes whose figures stand in result.json too; classes.csv has those of any number
NAME = 24  # characters of a class name in a table
SAID = (0.8, 0.95)  # values of min_probability that the page tells of


def headline(found: Evaluation) -> dict[str, Any]:
    wrong = zip(USUAL, (found.top1_wrong, found.top5_wrong), strict=True)
    measured = {metric.short: count for metric, count in wrong if metric.name in found.errors}
    return {
        **found.errors,
        "loss": found.loss,
        "n": found.n,
        **{f"{name}_wrong": count for name, count in measured.items()},
        **{f"{name}_interval": list(wilson(count, found.n)) for name, count in measured.items()},
        "calibration_error": found.calibration.error,
        "selective": {
            "area": found.coverage.area,
            "least_area": found.coverage.least_area,
            "points": [found.coverage.at(least) for least in LEAST],
        },
    }


def per_class(found: Evaluation, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class: its images, how many of them were taken for another, and for which most often; and how
    far an answer with this class can be trusted (precision). Empty cells: there is nothing to divide by."""
    counts, figures = found.confusion.numpy(), class_figures(found.confusion)
    rows = []
    for index, name in enumerate(classes):
        n, others = int(counts[index].sum()), counts[index].copy()
        others[index] = 0
        most = int(others.argmax())
        rows.append({
            "class": name,
            "n": n,
            "wrong": int(others.sum()),
            "error": Percent(100 * others.sum() / n) if n else None,
            "most often taken for": classes[most] if others[most] else None,
            "times": int(others[most]) or None,
            "precision": _percent(figures.precision[index]),
            "recall": _percent(figures.recall[index]),
            "f1": _percent(figures.f1[index]),
        })  # fmt: skip
    return rows


def _percent(value: float) -> Percent | None:
    return None if math.isnan(value) else Percent(value)


def figures_by_class(found: Evaluation, classes: Sequence[str]) -> list[dict[str, Any]] | None:
    """Precision, recall and F1 of each class for result.json; None for so many classes that the file would be long."""
    if len(classes) > FEW:
        return None
    kept = ("class", "n", "precision", "recall", "f1")
    return [{key: row[key] for key in kept} for row in per_class(found, classes)]


def confused(found: Evaluation, classes: Sequence[str], k: int = CONFUSED) -> list[dict[str, Any]]:
    """The pairs of classes that were confused most often."""
    return [
        {"true": classes[i], "answer": classes[j], "images": count}
        for count, i, j in plots.confused_pairs(found.confusion.numpy(), k)
    ]


def write(
    path: Path, result: dict[str, Any], found: Evaluation, classes: Sequence[str], source: Source, logits: Tensor
) -> None:
    """Write the tables as CSV, the pictures, and the same for TensorBoard. What fails is a warning in the result."""
    title = f"{result['model']} on {result['data']}, {result['split']}, {result['crop']}, {result['precision']}"

    def draw_mistakes(file: Path) -> None:
        file.unlink(missing_ok=True)
        if found.top1_wrong:
            draw_mistake_cards(source, classes, logits, file, title)

    def write_answers(file: Path) -> None:
        answers.write(file, kept_answers(logits, source.targets), image_ids(source), classes)

    files: dict[str, Callable[[Path], object]] = {
        ANSWERS: write_answers,
        "confusion_matrix.csv": lambda file: write_text(file, confusion_table(found, classes)),
        "classes.csv": lambda file: write_text(file, render(per_class(found, classes), Format.csv) + "\n"),
        "confusion_matrix.png": lambda file: plots.plot_confusion_matrix(found.confusion, classes, file, title),
        "calibration.png": lambda file: plots.plot_calibration(found.calibration, file, title),
        "coverage.png": lambda file: plots.plot_coverage(found.coverage, file, title),
        "mistakes.png": draw_mistakes,
        "TensorBoard's events": lambda _: _write_events(path, result),
    }
    for name, make in files.items():
        with warn_if_undrawn(name, partial(warn_in_result, result)):
            make(path / name)


def confusion_table(found: Evaluation, classes: Sequence[str]) -> str:
    """CSV of the counts, true classes in rows."""
    counts = ([name, *row] for name, row in zip(classes, found.confusion.tolist(), strict=True))
    return csv_text([["true \\ answer", *classes], *counts]) + "\n"


def _write_events(path: Path, result: dict[str, Any]) -> None:
    """Write numbers and pictures for TensorBoard, under the tags that trainings use, in place of an earlier call's."""
    step = result["epochs"] or 0
    with closing(fresh_events(path)) as events:
        for key in (*(metric.name for metric in METRICS), "loss", "calibration_error"):
            if key in result:
                events.add_scalar(f"{key}/{result['split']}", result[key], step)
        for name in ("confusion_matrix", "calibration", "coverage", "mistakes"):
            events.add_picture(name, path / f"{name}.png", step)


# On the terminal


def page(result: dict[str, Any], found: Evaluation, classes: Sequence[str], brief: bool = False) -> str:
    """The confusion matrix where it fits, else the classes with the largest errors; the pairs most often confused; the
    numbers. brief: the numbers alone."""
    parts = [] if brief else [_tables(found, classes), _pairs(found, classes)]
    return "\n\n".join([*filter(None, parts), _numbers(result, found)])


def _tables(found: Evaluation, classes: Sequence[str]) -> str:
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120
    for more in (("precision", "f1"), ()) if len(classes) <= plots.WRITTEN else ():
        matrix = _matrix(found, classes, more)
        if matrix and max(map(display_width, matrix.splitlines())) <= width:
            return matrix
    short = shorten_apart(classes, NAME)
    rows = [{**row, "class": short[row["class"]]} for row in per_class(found, classes)]
    if len(rows) <= plots.WRITTEN:
        return render(rows, Format.table)
    rows = sorted(rows, key=lambda row: -(row["error"] or 0))[:LISTED]
    return f"The {LISTED} classes with the largest errors:\n{render(rows, Format.table)}"


def _matrix(found: Evaluation, classes: Sequence[str], more: Sequence[str]) -> str | None:
    """True classes in rows, answers in columns, then figures of the class, `more` of them. None where names cannot be
    told apart when they are shortened."""
    short = [shorten(name, 10) for name in classes]
    if len({*short, "n", "error", *more}) < len(classes) + 2 + len(more):
        return None
    rows = []
    for row, counts in zip(per_class(found, classes), found.confusion.tolist(), strict=True):
        cells = {name: count or None for name, count in zip(short, counts, strict=True)}
        shown = {key: row[key] for key in ("n", "error", *more)}
        rows.append({"true \\ answer": shorten(row["class"], NAME), **cells, **shown})
    return render(rows, Format.table)


def _pairs(found: Evaluation, classes: Sequence[str]) -> str:
    short = shorten_apart(classes, NAME)
    pairs = [
        f"{short[pair['true']]} → {short[pair['answer']]} ({pair['images']:,})" for pair in confused(found, classes, 5)
    ]
    return f"Most often confused: {', '.join(pairs)}" if pairs else ""


def _numbers(result: dict[str, Any], found: Evaluation) -> str:
    errors = [
        "{} (95 %: {:.2f} to {:.2f}), ".format(metric.text(result[metric.name]), *result[f"{metric.short}_interval"])
        for metric in USUAL
        if metric.name in result
    ]
    if unequal(found.confusion.sum(1).tolist()):
        errors += [f"{metric.text(result[metric.name])}, " for metric in (BALANCED, MACRO_F1)]
    protocol = result["protocol"]
    how = [
        result["crop"],
        protocol["interpolation"],
        result["precision"],
        *([f"temperature {_shown(protocol['temperature'])}"] if protocol["temperature"] else []),
        *([f"mean {protocol['averaged']}"] if protocol["averaged"] else []),
    ]
    lines = [
        f"{''.join(errors)}loss {result['loss']:.4f}, calibration error {result['calibration_error']:.2f} %",
        f"measured: {', '.join(how)}; {result['n']:,} {result['split']} images, "
        f"{result['images_per_second']:,.0f} a second",
    ]
    if f"chosen by {result['split']} images" in (result["select_on"] or ""):
        lines.append(f"of the {result['select_on']}: the error is too low")
    if shift := result["shift"]:
        lines.append(
            f"shifted by {plural(shift['pixels'], 'pixel')}: {shift['survived']:.2f} % of the answers survive, "
            f"top-1 error {shift['top1_error']:.2f} %"
        )
    return "\n".join([*lines, *_trust(result), f"-> {result['run_dir']}"])


def _shown(temperature: float | Sequence[float]) -> str:
    return f"{temperature:.3g}" if isinstance(temperature, float) else " and ".join(map(_shown, temperature))


def _trust(result: dict[str, Any]) -> list[str]:
    """What holding unsure answers back would give, and what the fit of a temperature has changed."""
    points = [
        point for point in result["selective"]["points"] if point["min_probability"] in SAID and point["answered"]
    ]
    held = [f"{point['min_probability']:g}: {point['coverage']:.1f} % answered, {point['error']:.2f} % of these wrong"
            for point in points]  # fmt: skip
    lines = [f"min_probability={'; '.join(held)}"] if held else []
    if not (fitted := result.get("calibration")):
        return lines
    on = fitted["fitted_on"]
    images = "these images" if on["split"] == result["split"] else plural(on["n"], f"{on['split']} image")
    lines.append(f"temperature {fitted['temperature']:.3g}, fitted on {images}: loss {fitted['loss_before']:.4f} -> "
                 f"{fitted['loss_after']:.4f}, calibration error {fitted['calibration_error_before']:.2f} -> "
                 f"{fitted['calibration_error_after']:.2f} %")  # fmt: skip
    if result["stored"]:
        lines.append(f"stored in {result['stored']}: evaluate, predict, visualize and export use it from now on")
    return lines
