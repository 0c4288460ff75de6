"""Text of the report: for a terminal, or as Markdown, CSV or JSON."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cnnbench.analysis.published import FACTS
from cnnbench.config.sections import Format
from cnnbench.output.tables import fitted, flat, render
from cnnbench.reporting import compare
from cnnbench.reporting.compare import Comparison
from cnnbench.reporting.gather import GatheredRuns, Run
from cnnbench.reporting.group import RunGroup, group_labels, group_row, headings, setting_text
from cnnbench.tasks.classification import TOP5
from cnnbench.tasks.classification.published import HISTORY
from cnnbench.tasks.metric import Metric
from cnnbench.utils.files import json_text
from cnnbench.utils.format import Clock, MeanStd, Signed, shorten
from cnnbench.utils.text import printable

FACTORS = 6  # settings shown before the errors; the others come last
ON_PAGE = 9  # the same on a page of 1,280 pixels, where those that differ come first
LISTED = 20  # jobs without a result that a terminal shows
GO_ON = "A sweep's own command line, given again, does the jobs that are missing."
MEASURED = ("crop", "measured_in", "split", "n")  # how an error was measured
PROTOCOL = (*MEASURED, "select_on", "device", "date")
NAMES = {"select_on": "of the {}", "split": "{} images", "n": "n = {}", "crop": "{}", "measured_in": "{}",
         "device": "on {}", "date": "{}"}  # fmt: skip


def mean_std(metric: Metric, mean: float | None, std: float | None = None) -> MeanStd | None:
    return None if mean is None else MeanStd(mean, std, metric.decimals)


def signed_difference(metric: Metric, difference: float | None) -> Signed | None:
    return None if difference is None else Signed(difference, metric.decimals)


def table_row(group: RunGroup, names: dict[str, str], factors: int = FACTORS) -> dict[str, Any]:
    """Row of a group for the table. names: headings of the settings in their order."""
    full, keys = group_row(group), {name: _setting(group.keys[key]) for key, name in names.items()}
    first = dict([*keys.items()][:factors])
    primary = group.primary
    return {
        **first,
        "runs": full["runs"],
        "seeds": ",".join(map(str, full["seeds"])) or None,
        **{metric.label: mean_std(metric, full[metric.name], full[f"{metric.name}_std"]) for metric in group.metrics},
        **{f"train {metric.column}": mean_std(metric, full[f"train_{metric.name}"]) for metric in group.primaries},
        "published": mean_std(primary, full[f"published_{primary.name}"]),
        "difference": signed_difference(primary, full[primary.difference_key]),
        "params": full["params"],
        "macs": full["macs"],
        "time": Clock(full["seconds"]) if full["seconds"] is not None else None,
        "state": group.state,
        **{key: full[key] for key in PROTOCOL},
        **{key: value for key, value in keys.items() if key not in first},
    }


def _setting(value: Any) -> Any:
    """Setting for a table cell. Numbers stay numbers, so that they sort as numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number or value is None else shorten(setting_text(value), 40)


def protocol_part(key: str, value: Any) -> str:
    """One part of the measurement protocol in words."""
    return NAMES[key].format(f"{value:,}" if isinstance(value, int) else value)


def main_rows(groups: Sequence[RunGroup], *, page: bool = False) -> tuple[list[dict[str, Any]], str]:
    """Rows of the table without empty and constant columns, and a sentence with the constant ones."""
    names = headings(groups)
    if page:
        names = dict(
            sorted(names.items(), key=lambda item: len({setting_text(one.keys[item[0]]) for one in groups}) < 2)
        )
    rows = [table_row(group, names, ON_PAGE if page else FACTORS) for group in groups if group.done]
    if not rows:
        return [], ""
    same = {key: rows[0][key] for key in PROTOCOL if len({str(row[key]) for row in rows}) == 1}
    empty = {key for key in rows[0] if all(row[key] is None for row in rows)} if rows else set()
    if all(row["state"] == f"{row['runs']}/{row['runs']}" for row in rows):
        empty.add("state")
    kept = [{key: value for key, value in row.items() if key not in {*same, *empty}} for row in rows]
    words = [protocol_part(key, value) for key, value in same.items() if value is not None]
    return kept, f"measured: {', '.join(words)}" if words else ""


def unfinished_rows(groups: Sequence[RunGroup]) -> list[dict[str, Any]]:
    """Rows of the groups of which no run is finished: how far they are."""
    pairs = zip(group_labels(groups), groups, strict=True)
    return [{"not finished": name, "data": group.first.data, "state": group.state}
            for name, group in pairs if not group.done]  # fmt: skip


def published_rows(groups: Sequence[RunGroup]) -> list[dict[str, Any]]:
    """Rows of published and measured errors, each with its protocol."""
    rows = []
    for group, label in zip(groups, group_labels(groups), strict=True):
        if group.published is None or not group.done:
            continue
        full = group_row(group)
        own = [protocol_part(key, full[key]) for key in (*MEASURED, "select_on") if full[key] is not None]
        for metric in group.metrics:
            if full[metric.difference_key] is not None:
                rows.append({
                    "net": label if len(groups) > 1 else group.first.model,
                    "error": metric.column,
                    "here": mean_std(metric, full[metric.name], full[f"{metric.name}_std"]),
                    "paper": mean_std(metric, full[f"published_{metric.name}"]),
                    "difference": signed_difference(metric, full[metric.difference_key]),
                    "runs": full["runs"],
                    "measured here": ", ".join(own),
                    "measured in the paper": full["published_protocol"],
                    "citation": full["citation"],
                })  # fmt: skip
    return rows


def run_row(run: Run, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Row of one run: its metrics and its command line."""
    result = run.result
    return {
        "run": str(run.path),
        "status": run.status,
        "reason": run.reason or (None if result else run.so_far),
        **{metric.label: mean_std(metric, result.get(metric.name)) for metric in metrics},
        "time": Clock(result["wall_seconds"]) if isinstance(result.get("wall_seconds"), int | float) else None,
        "overrides": " ".join(run.overrides) or None,
        "warnings": "; ".join(map(str, result.get("warnings") or [])) or None,
    }


def history_rows(own: Sequence[RunGroup]) -> list[dict[str, Any]]:
    """Rows of the ImageNet challenge by year, then your own runs on ImageNet."""
    rows = [{"year": entry.year and str(entry.year), "team": entry.team, "net": entry.net, "layers": entry.layers,
             TOP5.label: mean_std(TOP5, entry.error), "note": entry.note or None}
            for entry in HISTORY]  # fmt: skip
    for group, label in zip(own, group_labels(own), strict=True):
        known = FACTS.get(group.first.model)
        full = group_row(group)
        how = ", ".join(protocol_part(key, full[key]) for key in MEASURED if full[key] is not None)
        rows.append({"year": None, "team": "here", "net": label, "layers": known.depth if known else None,
                     TOP5.label: mean_std(TOP5, group.mean(TOP5.name), group.std(TOP5.name)),
                     "note": how})  # fmt: skip
    return rows


def dispensable_columns(group: RunGroup) -> list[str]:
    """Columns that a narrow terminal leaves out, in this order."""
    return ["device", "date", "select_on", "split", "measured_in", "crop", "seeds", "n",
            *(f"train {metric.column}" for metric in group.primaries), "macs", "params",
            *(metric.label for metric in group.metrics if metric not in group.primaries),
            "time", "difference", "published"]  # fmt: skip


def render_report(
    found: GatheredRuns, groups: list[RunGroup], compared: Comparison, format: Format, width: int | None
) -> str:
    """Report text without a final newline."""
    if format is Format.json:
        return json_text(report_data(found, groups) | compared.data(), default=str)
    if format is Format.csv:
        return render([flat(group_row(group)) for group in groups if group.done], format)
    rows, measured = main_rows(groups)
    parts = [*found.states()] if format is Format.markdown else []
    parts += [fitted(rows, format, width, dispensable_columns(groups[0]))] if rows else []
    parts += [measured] if measured else []
    parts += [fitted(waiting, format, width)] if (waiting := unfinished_rows(groups)) else []
    parts += missing_parts(found, format, width)
    if any(len(group.done) > 1 for group in groups):
        parts.append("±: standard deviation over the runs")
    parts += comparison_parts(compared, format, width)
    if beside := published_rows(groups):
        shown = [{key: value for key, value in row.items() if format is Format.markdown or key != "citation"}
                 for row in beside]  # fmt: skip
        parts.append(fitted(shown, format, width, ("runs", "measured here")))
    for path, search in found.searches.items():
        parts += [f"{path}: {search.best}\n\n`{search.command}`" if format is Format.markdown else
                  f"{path}: {search.best}\n{search.command}"]  # fmt: skip
        parts += [render(search.rows(), format), search.how] if search.importance else []
    if format is Format.markdown:
        pairs = zip(group_labels(groups), groups, strict=True)
        parts += [render([{"net": name, "command": f"`{group.command_line}`"} for name, group in pairs], format)]
        parts += ["\n".join(f"- {line}" for line in lines)] if (lines := found.remarks()) else []
        return printable("\n\n".join(parts))
    return printable(
        "\n\n".join(part if "\n" in part else textwrap.fill(part, min(width or 120, 120)) for part in parts)
    )


def missing_parts(found: GatheredRuns, format: Format, width: int | None) -> list[str]:
    """A table of the jobs without a result, and how to go on."""
    rows = found.missing_jobs()
    more = f"{len(rows) - LISTED} more jobs without a result. " if len(rows) > LISTED else ""
    return [fitted(rows[:LISTED], format, width), more + GO_ON] if rows else []


def comparison_parts(compared: Comparison, format: Format, width: int | None) -> list[str]:
    """A single pair in words, several in a table."""
    if len(compared.pairs) < 2:
        return [compare.sentence(pair) for pair in compared.pairs]
    table = fitted(
        compare.rows(compared.pairs), format, width, ("only net wrong", "only other wrong", "p", "data"), ("data",)
    )
    return [table, compare.how_read(compared.pairs)]


def report_data(found: GatheredRuns, groups: list[RunGroup]) -> dict[str, Any]:
    """The object of `format=json`."""
    return {
        "states": found.states(),
        "groups": [{**group_row(group), "paths": [str(run.path) for run in group.runs]} for group in groups],
        "runs": [{"path": str(run.path), "status": run.status, "reason": run.reason, "overrides": run.overrides,
                  "date": run.date, "last": run.last, "result": run.result}
                 for group in groups for run in group.runs],
        "searches": {str(path): asdict(search) for path, search in found.searches.items()},
        "missing_jobs": found.missing_jobs(),
        "damaged": found.damaged,
        "left_out": found.left_out(),
    }  # fmt: skip
