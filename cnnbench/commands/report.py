"""`cnnbench report`: runs and sweeps side by side, finished or not, and beside the papers; and the end of a sweep."""

import sys
from pathlib import Path

from cnnbench.config.commands import ReportConfig
from cnnbench.config.sections import Format
from cnnbench.output.tables import ENDINGS, fitted, render
from cnnbench.reporting.compare import Comparison, compare
from cnnbench.reporting.gather import GatheredRuns, gather_runs
from cnnbench.reporting.group import RunGroup, filter_runs, group_labels, group_runs, repeated_seeds, sort_groups
from cnnbench.reporting.text import history_rows, render_report
from cnnbench.sweeps.jobs import FAILED, stop_jobs
from cnnbench.tasks.classification import TOP5
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import check_output, output, typed_path
from cnnbench.utils.terminal import terminal_width


def run(cfg: ReportConfig) -> int:
    """Print the report, and write it where asked to. Returns 1 where a job of a sweep failed."""
    roots = directories(cfg)
    if cfg.out is not None and check_output("out", cfg.out).suffix.lower() not in (*ENDINGS, ".html", ".png"):
        raise UserError(f"out={cfg.out}: give a name that ends in .html, .png, {', '.join(ENDINGS)}")
    found = gather_runs(roots)
    if cfg.out is not None:
        check_output("out", cfg.out, beside(typed_path(cfg.out), found))
    if cfg.cancel:
        cancel(found, roots)
    if not found.runs and not found.sweeps and not cfg.history:
        raise UserError("\n".join([f"no runs in {', '.join(map(str, roots))}", *found.remarks()[:2]]))
    chosen = filter_runs(found.runs, conditions(cfg.where))
    if found.runs and not chosen:
        raise UserError(f"none of the {plural(len(found.runs), 'run')} is as where={cfg.where} says")
    groups = sort_groups(group_runs(chosen), cfg.sort)
    compared = compare(groups, cfg.compare)
    if cfg.out is not None and not cfg.history:
        write(cfg.out, cfg, found, groups, compared)
    if cfg.history:
        history(cfg, found, groups, compared)
    elif groups or cfg.format is not Format.table:
        print(render_report(found, groups, compared, cfg.format, terminal_width()))
    remarks(found, groups, compared)
    return 1 if any(job.status == FAILED for jobs in found.sweeps.values() for job in jobs) else 0


def directories(cfg: ReportConfig) -> list[Path]:
    """Directories given, else the one in which runs are kept."""
    given = cfg.input if isinstance(cfg.input, list) else [cfg.input]
    if cfg.input is None:
        root = typed_path(cfg.run.root)
        return [] if cfg.history and not root.is_dir() else [root]
    if not given or not all(isinstance(path, str) for path in given):
        raise UserError("report takes directories, as in cnnbench report outputs/train")
    return [typed_path(path) for path in given]


def beside(out: Path, found: GatheredRuns) -> list[Path]:
    """Files of runs and sweeps that lie in the folder of `out`: the report reads them."""
    folder = out.parent.resolve()
    read = [run.path for run in found.runs] + list(found.sweeps)
    return [file for path in read if path.resolve() == folder for file in path.iterdir()]


def title(cfg: ReportConfig) -> str:
    return f"Report on {', '.join(map(str, directories(cfg)))}".removesuffix(" on ")


def conditions(where: object) -> list[str]:
    given = where if isinstance(where, list) else [where] if where is not None else []
    if not all(isinstance(condition, str) for condition in given):
        raise UserError("where takes settings, as in where=model=resnet20,optim.lr=0.1")
    return [str(condition) for condition in given]


def cancel(found: GatheredRuns, roots: list[Path]) -> None:
    if not found.sweeps:
        raise UserError(f"cancel=true ends sweeps, and there is none in {', '.join(map(str, roots))}")
    for path, jobs in found.sweeps.items():
        ended = stop_jobs(jobs)
        print(f"{path}: {plural(len(ended), 'job')} asked to end; the same command goes on with them", file=sys.stderr)


def remarks(found: GatheredRuns, groups: list[RunGroup], compared: Comparison) -> None:
    """Lines for people: state of all runs, damaged files, warnings."""
    for line in [*found.states(), *found.remarks(), *repeated_seeds(groups), *compared.notes]:
        print(line, file=sys.stderr)


def write(out: str, cfg: ReportConfig, found: GatheredRuns, groups: list[RunGroup], compared: Comparison) -> None:
    """The report in a file, by its ending."""
    with output("out", out) as path:
        if path.suffix.lower() == ".html":
            from cnnbench.reporting.page import write_report_page  # pictures take a second to load

            write_report_page(path, title(cfg), found, groups, compared, cfg.history)
        elif path.suffix.lower() == ".png":
            draw(path, out, groups)
        else:
            write_text(path, render_report(found, groups, compared, ENDINGS[path.suffix.lower()], None) + "\n")
    print(f"report -> {typed_path(out)}", file=sys.stderr)


def draw(path: Path, out: str, groups: list[RunGroup]) -> None:
    from cnnbench.output.figure import save_figure
    from cnnbench.reporting.charts import draw_learning_curves

    several = list(dict.fromkeys(one.first.data for one in groups))
    if len(several) > 1:
        raise UserError(f"out={out}: curves of one data set at a time, as where=data={several[0]}")
    figure = draw_learning_curves(groups, group_labels(groups), f"Learning curves on {several[0]}") if groups else None
    if figure is None:
        raise UserError(f"out={out}: no run has two epochs behind it yet, and one is no curve")
    save_figure(figure, path)


def history(cfg: ReportConfig, found: GatheredRuns, groups: list[RunGroup], compared: Comparison) -> None:
    """The ImageNet challenge as a table on stdout and a picture in a file."""
    from cnnbench.output.figure import save_figure
    from cnnbench.reporting.charts import draw_history
    from cnnbench.reporting.page import imagenet_groups, write_report_page

    own = imagenet_groups(groups)
    out = cfg.out
    if out is None:
        out = str(typed_path(cfg.run.root) / "imagenet-history.png")
        typed_path(cfg.run.root).mkdir(parents=True, exist_ok=True)
    with output("out", out) as path:
        if path.suffix.lower() == ".png":
            pairs = [(name, one.mean(TOP5.name) or 0.0) for name, one in zip(group_labels(own), own, strict=True)]
            save_figure(draw_history(pairs), path)
        elif path.suffix.lower() == ".html":
            write_report_page(path, title(cfg), found, groups, compared, history=True)
        else:
            write_text(path, render(history_rows(own), ENDINGS[path.suffix.lower()]) + "\n")
    print(fitted(history_rows(own), cfg.format, terminal_width()))
    print(f"history -> {typed_path(out)}", file=sys.stderr)
