"""HTML page of the report: sortable tables, plots, and every run with its command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnbench.output import html
from cnnbench.output.figure import as_png
from cnnbench.reporting import charts, compare, text
from cnnbench.reporting.compare import Comparison
from cnnbench.reporting.gather import GatheredRuns
from cnnbench.reporting.group import RunGroup, distinct_metrics, group_labels
from cnnbench.sweeps.study_result import StudyResult
from cnnbench.tasks import metrics_of
from cnnbench.tasks.classification import TOP5
from cnnbench.tasks.metric import Metric
from cnnbench.transfer.comparison import NEEDED, draw_comparison, worth_drawing

CURVES = (
    "Solid: validation; dashed: training. Several runs are drawn as their mean, with a band from their minimum to "
    "their maximum."
)
COSTS = "Bars: one standard deviation over the runs. Sizes are those of the net at inference, for one image."
BESIDE = (
    "Differences in percentage points; negative: the error here is lower. Compare the protocols first: ten crops lower "
    "the error by about two points."
)
HISTORY = (
    "The errors of the winners and of VGG are of ensembles on the test images of their year; the human error is of one "
    "annotator on 1,500 images. Your own runs are single nets on the validation images."
)


def write_report_page(path: Path, title: str, found: GatheredRuns, groups: list[RunGroup], compared: Comparison,
                      history: bool) -> None:  # fmt: skip
    """Write the page to `path`."""
    sections: list[tuple[str, list[str]]] = [("Results", _results(groups))]
    sections.append(("Missing jobs", _missing(found)))
    for data in dict.fromkeys(group.first.data for group in groups):
        of = [group for group in groups if group.first.data == data]
        sections.append((f"On {data}", _pictures(of, data)))
    sections.append(("Do they differ?", _comparison(compared)))
    sections.append(("Search", [part for path, one in found.searches.items() for part in _search(path, one)]))
    sections.append(("Measured and published", _published(groups)))
    own = imagenet_groups(groups)
    if own or history:
        sections.append(("The ImageNet challenge", _history(own)))
    sections.append(("Commands", _commands(groups)))
    runs = [run for group in groups for run in group.runs]
    sections.append(("Every run", [html.table([text.run_row(run, groups[0].metrics) for run in runs])] if runs else []))
    sections.append(("Not reported", [html.paragraph(line) for line in found.remarks()]))
    sections = [(name, parts) for name, parts in sections if parts]
    body = [html.paragraph(line) for line in found.states()]
    body.append(html.navigation([name for name, _ in sections]))
    for name, parts in sections:
        body += [html.heading(name), *parts]
    html.write_document(path, title, body, html.SORTING)


def imagenet_groups(groups: Sequence[RunGroup]) -> list[RunGroup]:
    return [group for group in groups if group.first.data == "imagenet" and group.mean(TOP5.name) is not None]


def _results(groups: list[RunGroup]) -> list[str]:
    rows, measured = text.main_rows(groups, page=True)
    parts = [html.table(rows)] if rows else []
    parts += [html.paragraph(f"{_sentence(measured)}.")] if measured else []
    parts += [html.table(waiting)] if (waiting := text.unfinished_rows(groups)) else []
    if any(len(group.done) > 1 for group in groups):
        units = _units(groups[0].metrics)
        parts.append(html.paragraph(f"{units}; ±: standard deviation over the runs with the seeds in the table."))
    return parts


def _missing(found: GatheredRuns) -> list[str]:
    rows = found.missing_jobs()
    return [html.table(rows), html.paragraph(text.GO_ON)] if rows else []


def _units(metrics: Sequence[Metric]) -> str:
    """`Errors in percent`, or the unit of each metric."""
    if all(metric.axis.endswith(" error, %") for metric in metrics):
        return "Errors in percent"
    return ", ".join(f"{metric.label} in {metric.unit}" if metric.unit else metric.label for metric in metrics)


def _word(metric: Metric) -> str:
    """Metric in a title: `error` for any error, else its label."""
    return "error" if metric.label.endswith(" error") else metric.label


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _pictures(groups: list[RunGroup], data: str) -> list[str]:
    names, parts = group_labels(groups), []
    more = f" The first {charts.SHOWN} of {len(groups)} are drawn." if len(groups) > charts.SHOWN else ""
    if figure := charts.draw_learning_curves(groups, names, f"Learning curves on {data}"):
        parts.append(html.picture(as_png(figure), f"learning curves on {data}", CURVES + more))
    for metric in distinct_metrics((group.primary,) for group in groups):
        what = f"{_word(metric)} on {data}"
        if figure := charts.draw_costs(groups, names, metric, f"{_sentence(what)} against what it costs"):
            parts.append(html.picture(as_png(figure), f"{what} against cost", COSTS))
    for model in dict.fromkeys(group.first.model for group in groups):
        results: list[dict[str, Any]] = [run.result for group in groups if group.first.model == model
                                         for run in group.done if run.result.keys() >= NEEDED]  # fmt: skip
        if worth_drawing(results):
            what = _sentence(f"{_word(metrics_of(results[0])[0])} against the number of training images")
            picture = as_png(draw_comparison(results))
            parts.append(html.picture(picture, f"transfer of {model} on {data}", f"{what}, and against seconds."))
    return parts


def _search(path: Path, search: StudyResult) -> list[str]:
    parts = [html.paragraph(f"{path}: {search.best}"), html.code(search.command)]
    if search.importance:
        picture = as_png(charts.draw_importance(search))
        parts += [html.picture(picture, f"importance of the settings in {path}", search.how), html.table(search.rows())]
    return parts


def _comparison(compared: Comparison) -> list[str]:
    notes = [html.paragraph(line) for line in compared.notes]
    if len(compared.pairs) < 2:
        return [*(html.paragraph(compare.sentence(pair)) for pair in compared.pairs), *notes]
    return [html.table(compare.rows(compared.pairs)), html.paragraph(compare.how_read(compared.pairs)), *notes]


def _published(groups: list[RunGroup]) -> list[str]:
    rows = text.published_rows(groups)
    if not rows:
        return []
    return [
        html.table([{key: value for key, value in row.items() if key != "citation"} for row in rows]),
        html.paragraph(BESIDE),
        *(html.paragraph(text) for text in dict.fromkeys(row["citation"] for row in rows)),
    ]


def _history(own: list[RunGroup]) -> list[str]:
    pairs = [(name, group.mean(TOP5.name) or 0.0) for name, group in zip(group_labels(own), own, strict=True)]
    figure = charts.draw_history(pairs)
    return [html.picture(as_png(figure), "the ImageNet challenge", HISTORY), html.table(text.history_rows(own))]


def _commands(groups: list[RunGroup]) -> list[str]:
    if not groups:
        return []
    pairs = zip(group_labels(groups), groups, strict=True)
    return [html.table([{"net": name, "command": group.command_line} for name, group in pairs])]
