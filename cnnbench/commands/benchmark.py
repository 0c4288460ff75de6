"""`cnnbench benchmark`: how fast nets train and answer on this machine, and what holds them up."""

import sys
from pathlib import Path
from typing import Any

from cnnbench.benchmark.chart import draw_benchmark
from cnnbench.benchmark.measure import Machine, benchmark_net
from cnnbench.benchmark.report import flat_rows, report_page
from cnnbench.config.commands import BenchmarkConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.sections import Format, Precision
from cnnbench.output.tables import render
from cnnbench.runs import run_directory
from cnnbench.runs.result import environment
from cnnbench.runs.run_directory import path_for
from cnnbench.utils.console import say, warn_if_undrawn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.files import json_text, write_json, write_text
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.terminal import terminal_width
from cnnbench.utils.text import slug


def run(cfg: BenchmarkConfig) -> int:
    """Measure one net."""
    return compare([cfg])


def compare(cfgs: list[BenchmarkConfig]) -> int:
    """Measure all nets, one after the other; leave result.json, tables and the chart behind, print the table."""
    machines = [Machine(cfg.device, precisions(cfg)) for cfg in cfgs]
    for cfg in cfgs:
        check(cfg)
    path = directory(cfgs)
    measured = [benchmark_net(cfg, machine, progress) for cfg, machine in zip(cfgs, machines, strict=True)]
    result = {"nets": measured, **machine_environment(machines[0]), "run_dir": str(path)}
    write_json(path / "result.json", result)
    rows = [row for net in measured for row in flat_rows(net)]
    write_text(path / "benchmark.csv", render(rows, Format.csv) + "\n")
    write_text(path / "benchmark.md", report_page(measured, Format.markdown) + "\n")
    with warn_if_undrawn("benchmark.png"):
        draw_benchmark(measured, path / "benchmark.png", machines[0].devices[0].name)
    if cfgs[0].format is Format.json:
        print(json_text(result))
    elif cfgs[0].format is Format.csv:
        print(render(rows, Format.csv))
    else:
        print(report_page(measured, cfgs[0].format, terminal_width()))
        if cfgs[0].format is Format.table:
            print(f"\n-> {path}")
    return 0


def check(cfg: BenchmarkConfig) -> None:
    """Raise UserError for settings that the schema cannot refuse."""
    if not isinstance(cfg.model.get("name"), str):
        raise UserError("model.name has no value: give the name of a net, as in model=resnet18")
    if isinstance(cfg.batch_size, str) and cfg.batch_size != "search":
        raise UserError(f"batch_size={cfg.batch_size}: give a whole number or search")
    if cfg.memory is not None and cfg.batch_size != "search":
        raise UserError("memory= bounds the search for a batch size: it goes with batch_size=search")


def precisions(cfg: BenchmarkConfig) -> list[str]:
    """Precisions asked for, each once and in order."""
    given = cfg.precisions if isinstance(cfg.precisions, list) else [cfg.precisions]
    known = [precision.value for precision in Precision]
    for name in given:
        if name not in known:
            raise unknown("precision", str(name), known)
    if not given:
        raise UserError("precisions=[] leaves nothing to measure: give fp32, bf16, fp16 or auto")
    return list(dict.fromkeys(given))


def directory(cfgs: list[BenchmarkConfig]) -> Path:
    """Directory of the results; made now, so that a place that cannot be written to is known before the work."""
    first = cfgs[0]
    nets = dict.fromkeys(str(cfg.model["name"]) for cfg in cfgs)
    base = slug([f"{'+'.join(nets)}-{data_name(first.data.name, first.data.root, first.data.file)}"])
    path = path_for("benchmark", first, base) if len(cfgs) == 1 or first.run.dir else (
        typed_path(first.run.root) / "benchmark" / (first.run.name or base)
    )  # fmt: skip
    run_directory.make_for_results(path)
    return path


def machine_environment(machine: Machine) -> dict[str, Any]:
    known = environment(machine.devices[0])
    del known["precision"]
    return {**known, "threads": machine.threads}


def progress(text: str) -> None:
    say(text, sys.stderr)
