"""`cnnbench report`: runs and sweeps side by side, finished or not, and beside the papers; and the end of a sweep."""

import shutil
import sys
from pathlib import Path

from cnnbench.config.commands import ReportConfig
from cnnbench.config.sections import Format
from cnnbench.output.tables import ENDINGS, render
from cnnbench.reporting.gather import GatheredRuns, gather_runs
from cnnbench.reporting.group import RunGroup, filter_runs, group_labels, group_runs, repeated_seeds, sort_groups
from cnnbench.reporting.text import history_rows, render_report
from cnnbench.sweeps.jobs import FAILED, stop_jobs
from cnnbench.tasks.classification import TOP5
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural


def run(cfg: ReportConfig) -> int:
    """Print the report, and write it where asked to. Returns 1 where a job of a sweep failed."""
    if cfg.out and Path(cfg.out).suffix.lower() not in (*ENDINGS, ".html", ".png"):
        raise UserError(f"out={cfg.out}: give a name that ends in .html, .png, {', '.join(ENDINGS)}")
    roots = directories(cfg)
    found = gather_runs(roots)
    if cfg.cancel:
        cancel(found, roots)
    if not found.runs and not found.sweeps and not cfg.history:
        raise UserError("\n".join([f"no runs in {', '.join(map(str, roots))}", *found.damaged[:2]]))
    chosen = filter_runs(found.runs, conditions(cfg.where))
    if found.runs and not chosen:
        raise UserError(f"none of the {plural(len(found.runs), 'run')} is as where={cfg.where} says")
    groups = sort_groups(group_runs(chosen), cfg.sort)
    if cfg.out and not cfg.history:
        write(Path(cfg.out).expanduser(), cfg, found, groups)
    if cfg.history:
        history(cfg, found, groups)
    elif groups or cfg.format is not Format.table:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(render_report(found, groups, cfg.format, width))
    remarks(found, groups)
    return 1 if any(job.status == FAILED for jobs in found.sweeps.values() for job in jobs) else 0


def directories(cfg: ReportConfig) -> list[Path]:
    """Directories given, else the one in which runs are kept."""
    given = cfg.input if isinstance(cfg.input, list) else [cfg.input]
    if cfg.input is None:
        root = Path(cfg.run.root).expanduser()
        return [] if cfg.history and not root.is_dir() else [root]
    if not given or not all(isinstance(path, str) for path in given):
        raise UserError("report takes directories, as in cnnbench report outputs/train")
    return [Path(path).expanduser() for path in given]


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


def remarks(found: GatheredRuns, groups: list[RunGroup]) -> None:
    """Lines for people: state of all runs, damaged files, warnings."""
    for line in [*found.states(), *(f"damaged: {line}" for line in found.damaged), *repeated_seeds(groups)]:
        print(line, file=sys.stderr)


def write(path: Path, cfg: ReportConfig, found: GatheredRuns, groups: list[RunGroup]) -> None:
    """The report in a file, by its ending. UserError where it cannot be written."""
    try:
        if path.suffix.lower() == ".html":
            from cnnbench.reporting.page import write_report_page  # pictures take a second to load

            write_report_page(path, title(cfg), found, groups, cfg.history)
        elif path.suffix.lower() == ".png":
            draw(path, groups)
        else:
            write_text(path, render_report(found, groups, ENDINGS[path.suffix.lower()], None) + "\n")
    except OSError as error:
        raise UserError(f"out={path}: cannot write there: {error.strerror}") from None
    print(f"report -> {path}", file=sys.stderr)


def draw(path: Path, groups: list[RunGroup]) -> None:
    from cnnbench.output.figure import save_figure
    from cnnbench.reporting.charts import draw_learning_curves

    several = list(dict.fromkeys(one.first.data for one in groups))
    if len(several) > 1:
        raise UserError(f"out={path}: curves of one data set at a time, as where=data={several[0]}")
    figure = draw_learning_curves(groups, group_labels(groups), f"Learning curves on {several[0]}") if groups else None
    if figure is None:
        raise UserError(f"out={path}: no run has an epoch behind it yet")
    save_figure(figure, path)


def history(cfg: ReportConfig, found: GatheredRuns, groups: list[RunGroup]) -> None:
    """The ImageNet challenge as a table on stdout and a picture in a file."""
    from cnnbench.output.figure import save_figure
    from cnnbench.reporting.charts import draw_history
    from cnnbench.reporting.page import imagenet_groups, write_report_page

    own = imagenet_groups(groups)
    path = Path(cfg.out or Path(cfg.run.root) / "imagenet-history.png").expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".png":
            pairs = [(name, one.mean(TOP5.name) or 0.0) for name, one in zip(group_labels(own), own, strict=True)]
            save_figure(draw_history(pairs), path)
        elif path.suffix.lower() == ".html":
            write_report_page(path, title(cfg), found, groups, history=True)
        else:
            write_text(path, render(history_rows(own), ENDINGS[path.suffix.lower()]) + "\n")
    except OSError as error:
        raise UserError(f"out={path}: cannot write there: {error.strerror}") from None
    print(render(history_rows(own), cfg.format))
    print(f"history -> {path}", file=sys.stderr)
