"""`cnnbench summary`: what a net is made of, layer by layer, and what its paper says; or several nets side by side."""

import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cnnbench.analysis.published import ALEXNET_PARAMS
from cnnbench.analysis.summary import (
    WEIGHTED,
    Summary,
    difference_from_print,
    layer_kind,
    layer_neurons,
    shown_layers,
    summarize,
    summary_as_dict,
    summary_notes,
)
from cnnbench.config.commands import SummaryConfig
from cnnbench.config.sections import Format, Layers, SummaryFormat
from cnnbench.models.enlarging import LARGER
from cnnbench.output import html, tables
from cnnbench.output.tables import fitted, render
from cnnbench.tasks.classification import USUAL
from cnnbench.tasks.classification.published import published_metrics
from cnnbench.utils.files import json_text, write_text
from cnnbench.utils.format import ErrorPercent, Percent, Ratio, plural
from cnnbench.utils.named_files import output
from cnnbench.utils.terminal import terminal_width

# The columns that a narrow terminal goes without, in this order.
MEASURED = ("measured on",)  # the column that a line below the table stands for
DISPENSABLE = ("kernel", "biases", "field", "kind", "output", "% params", "neurons", "% macs")  # of a layer
ENDINGS = {file: SummaryFormat(format.value) for file, format in tables.ENDINGS.items()} | {
    ".svg": SummaryFormat.svg, ".html": SummaryFormat.html, ".htm": SummaryFormat.html
}  # fmt: skip
LEGEND = "macs: multiply-adds for one image."
FIELD = " field: side in pixels of what one unit sees of the image, padding included."
DRAWN = (SummaryFormat.svg, SummaryFormat.html)  # on the terminal only where no file takes them
Page = Callable[[Format, int | None], str]


def run(cfg: SummaryConfig) -> int:
    """Show one net."""
    summary = summarize(cfg)
    return _show(cfg, [summary], lambda format, width: single(summary, cfg.layers, format, width))


def compare(cfgs: list[SummaryConfig]) -> int:
    """Show all nets in one table."""
    summaries = [summarize(cfg) for cfg in cfgs]
    return _show(cfgs[0], summaries, lambda format, width: side_by_side(summaries, format, width))


def _show(cfg: SummaryConfig, summaries: list[Summary], page: Page) -> int:
    """Write the file first: where it cannot be written, nothing is printed."""

    def text(format: SummaryFormat, width: int | None = None) -> str:
        if format is SummaryFormat.json:
            return json_text([summary_as_dict(one, cfg.layers, _paper(one)) for one in summaries])
        if format in DRAWN:
            svg = _drawn(summaries)
            return svg if format is SummaryFormat.svg else _web_page(summaries, svg, cfg.layers)
        return page(Format(format.value), width)

    if cfg.out is not None:
        with output("out", cfg.out) as file:
            write_text(file, text(ENDINGS.get(file.suffix, cfg.format)) + "\n")
    if cfg.out and cfg.format in DRAWN:
        print(f"drawing -> {cfg.out}", file=sys.stderr)
        return 0
    print(text(cfg.format, terminal_width()))
    return 0


def _drawn(summaries: list[Summary]) -> str:
    from cnnbench.analysis.diagram.graph import trace_graph  # only drawings need these
    from cnnbench.analysis.diagram.side_by_side import draw_nets
    from cnnbench.analysis.diagram.structure import build_diagram

    return draw_nets([(one, build_diagram(trace_graph(one.net, one.image_size, one.in_channels))) for one in summaries])


def _web_page(summaries: list[Summary], svg: str, which: Layers) -> str:
    sections = [(one.label, _section(one, which)) for one in summaries]
    if len(summaries) > 1:
        sections.insert(0, ("Side by side", [html.table([_row(one) for one in summaries], sorts=False)]))
    from cnnbench.analysis.diagram.html_page import diagram_page

    return diagram_page(", ".join(one.label for one in summaries), svg, sections)


def _section(summary: Summary, which: Layers) -> list[str]:
    """Blocks of a web page with what single() says."""
    rows = [_layer(summary, row) for row in shown_layers(summary.rows, which)]
    blocks = [_title(summary), html.table([*rows, _total(summary)], sorts=False), *_auxiliary(summary)]
    if summary.published:
        blocks += [f"{summary.published.citation}:", html.table(_published(summary), sorts=False), *_protocol(summary)]
    return [*blocks, *summary_notes(summary), LEGEND + FIELD]


def single(summary: Summary, which: Layers, format: Format, width: int | None = None) -> str:
    """The layers, the totals, the paper's numbers beside ours, and why they differ. CSV: the layers alone."""
    rows = [_layer(summary, row) for row in shown_layers(summary.rows, which)]
    if format is Format.csv:
        return render(rows, format)
    line = "# " if format is Format.markdown else ""
    table = fitted([*rows, _total(summary)], format, width, DISPENSABLE)
    parts = [line + _title(summary), table, *_auxiliary(summary)]
    if summary.published:
        parts += [f"{summary.published.citation}:", render(_published(summary), format), *_protocol(summary)]
    legend = LEGEND + (FIELD if "field" in table.partition("\n")[0] else "")
    lines = [*(f"- {note}" for note in summary_notes(summary)), legend]
    if format is Format.table:
        lines = [_wrap(text, width) for text in lines]
    return "\n\n".join(filter(None, [*parts, "\n".join(lines[:-1]), lines[-1]]))


def _title(summary: Summary) -> str:
    size, answer = summary.image_size, summary.rows[-1].output_shape
    to = plural(summary.num_classes, "class") if summary.net.answers != LARGER else " x ".join(map(str, answer))
    return f"{summary.label}: {summary.in_channels} x {size} x {size} to {to}"


def _auxiliary(summary: Summary) -> list[str]:
    if not summary.aux_params:
        return []
    least = summary.aux_skipped
    skipped = f" Skipped here: they need images of at least {least} x {least} pixels." if least else ""
    return [f"Auxiliary heads, in training only: {summary.aux_params:,} parameters more.{skipped}"]


def _protocol(summary: Summary) -> list[str]:
    errors = published_metrics(summary.facts_key)
    lines = [f"Errors: {errors.protocol}."] if errors else []
    return lines if summary.as_published else [*lines, f"Not the paper's settings: {' '.join(summary.asked)}."]


def _layer(summary: Summary, row: Any) -> dict[str, Any]:
    params = row.weights + row.biases
    return {
        "layer": row.name,
        "kind": layer_kind(row),
        "kernel": row.kernel,
        "output": "x".join(map(str, row.output_shape)),
        "neurons": layer_neurons(row) if layer_kind(row) in WEIGHTED else None,
        "weights": row.weights if params else None,
        "biases": row.biases if params else None,
        "macs": row.macs if row.macs else None,
        "field": row.receptive_field,
        "% params": Percent(100 * params / summary.params) if params else None,
        "% macs": Percent(100 * row.macs / summary.macs) if row.macs else None,
    }


def _total(summary: Summary) -> dict[str, Any]:
    biases = sum(row.biases for row in summary.rows)
    return {
        "layer": "total",
        "kind": "",
        "kernel": "",
        "output": "",
        "neurons": summary.neurons,
        "weights": summary.params - biases,
        "biases": biases,
        "macs": summary.macs,
        "% params": Percent(100),
        "% macs": Percent(100),
    }


def _published(summary: Summary) -> list[dict[str, Any]]:
    said = summary.published
    assert said is not None
    counts = (("parameters", summary.params, said.params), ("macs", summary.macs, said.macs),
              ("depth", summary.depth, said.depth and str(said.depth)))  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"": name, "here": f"{ours:,}", "paper": theirs, "difference": theirs and difference_from_print(ours, theirs)}
        for name, ours, theirs in counts
    ]
    if errors := published_metrics(summary.facts_key):
        rows += [{"": metric.label, "here": None, "paper": f"{errors.values[metric.name]} {metric.unit}"}
                 for metric in USUAL if metric.name in errors.values]  # fmt: skip
    return rows


def _paper(summary: Summary) -> dict[str, Any] | None:
    """Numbers of the paper, for `format=json`."""
    said, errors = summary.published, published_metrics(summary.facts_key)
    if said is None:
        return None
    counts = asdict(said)
    notes = counts.pop("notes")
    values = {metric.name: errors.values.get(metric.name) if errors else None for metric in USUAL}
    return {**counts, **values, "protocol": errors.protocol if errors else None, "notes": notes}


def side_by_side(summaries: list[Summary], format: Format, width: int | None = None) -> str:
    """A row for each net; where there is no room to say how the errors were measured, that comes below."""
    table = fitted([_row(summary) for summary in summaries], format, width, (*MEASURED, "params / alexnet"), MEASURED)
    if MEASURED[0] in table.partition("\n")[0]:
        return table
    nets: dict[str, list[str]] = {}
    for summary in summaries:
        if summary.as_published and (errors := published_metrics(summary.facts_key)):
            nets.setdefault(errors.protocol, []).append(summary.label)
    lines = [_wrap(f"- {protocol}: {', '.join(names)}", width) for protocol, names in nets.items()]
    return "\n".join([table, *(["", "errors measured on", *lines] if lines else [])])


def _row(summary: Summary) -> dict[str, Any]:
    errors = published_metrics(summary.facts_key) if summary.as_published else None
    values = errors.values if errors else {}
    return {
        "model": summary.label,
        "params": summary.params,
        "macs": summary.macs,
        "depth": summary.depth,
        **{metric.label: ErrorPercent(values[metric.name]) if metric.name in values else None for metric in USUAL},
        "params / alexnet": Ratio(summary.params / ALEXNET_PARAMS),
        "measured on": errors.protocol if errors else None,
    }


def _wrap(text: str, width: int | None) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, min(width or 120, 120), subsequent_indent=indent, break_on_hyphens=False)
