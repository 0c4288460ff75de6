"""Reads runs and sweeps from their directories, and notes damaged files.

Only the run directories are read, so it does not matter which process launched a run, where, or whether it still runs.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cnnbench.config.data_names import data_name
from cnnbench.config.parsing import flatten
from cnnbench.reporting.run_files import (
    DamagedError,
    check_result,
    is_inside,
    last_row,
    read_config,
    read_metrics,
    read_object,
    read_overrides,
)
from cnnbench.runs import run_directory
from cnnbench.sweeps import study_result
from cnnbench.sweeps.jobs import (
    CUT,
    DONE,
    FAILED,
    FOLDER,
    PRUNED,
    RUNNING,
    SweepJob,
    current_jobs,
    job_label,
    progress_line,
)
from cnnbench.sweeps.study_result import StudyResult, read_study_result
from cnnbench.tasks import DEFAULT_TASK, metrics_of
from cnnbench.tasks.metric import Metric
from cnnbench.utils.console import reason
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import common_folder

SIGNS = {"config.yaml", "status.json", "metrics.jsonl", "result.json"}  # a directory with any of these is a run
STATES = {"done": DONE, "running": RUNNING, "failed": FAILED, "interrupted": CUT, "preempted": CUT,
          "pruned": PRUNED}  # fmt: skip
SAID = ("seed", "model", "data")  # keys that an evaluation's own result gives
PICTURES = "page of pictures"
LEFT_OUT = {  # directories that are no results, by kind, in words
    "benchmark": "{} not in the table, as {path}: see its benchmark.md",
    PICTURES: "{} not in the table, as {path}: see its index.html",
    "run with debug=": "{} not in the table, as {path}: what debug= leaves is no result",
    "link": "{} not followed, as {path}: what lies elsewhere is named by itself, as in cnnbench report DIR DIR",
    "directory": "{} not read, as {path}: no permission",
}


@dataclass(kw_only=True, eq=False)
class Run:
    """One run on disk. settings: flat keys that determine the result, without those on where and how it runs."""

    path: Path
    command: str  # train, finetune or evaluate
    settings: dict[str, Any]
    overrides: list[str]
    status: str  # like that of a sweep's job
    reason: str
    epochs: int | None  # planned epochs
    last: dict[str, Any]  # last row of metrics if it is not done
    result: dict[str, Any]  # empty if it is not done
    metrics: tuple[Metric, ...]  # of its task, the primary one first
    date: str  # of its last output, as 2026-01-31
    roots: tuple[str, ...]  # real paths of the directories that are reported

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics, one per epoch, numbers only."""
        return read_metrics(self.path / "metrics.jsonl", self.roots)

    @property
    def data(self) -> str:
        return str(self.settings["data.name"])

    @property
    def model(self) -> str:
        return str(self.settings["model.name"])

    @property
    def primary(self) -> Metric:
        return self.metrics[0]

    @property
    def so_far(self) -> str:
        """Progress of a run that is not done: `epoch 17/50, mean IoU 62.07 %`."""
        if not self.last:
            return "no epoch yet"
        of = f"/{self.epochs}" if self.epochs else ""
        value = self.last.get(f"{self.primary.name}/val")
        return f"epoch {self.last.get('epoch')}{of}" + (f", {self.primary.text(value)}" if value is not None else "")

    def as_job(self) -> SweepJob:
        """Job record of the run, named after its directory."""
        return SweepJob(sweep=str(self.path.parent), name=self.path.name, number=0, command=self.command,
                   overrides=[], status=self.status, reason=self.reason)  # fmt: skip


@dataclass
class GatheredRuns:
    """Runs by path, jobs of each sweep, results of searches, a line for each damaged file, and what is no result."""

    roots: tuple[str, ...] = ()  # real paths
    runs: list[Run] = field(default_factory=list)
    sweeps: dict[Path, list[SweepJob]] = field(default_factory=dict)
    searches: dict[Path, StudyResult] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    aside: dict[str, list[Path]] = field(default_factory=dict)  # keys of LEFT_OUT

    def set_aside(self, kind: str, path: Path) -> None:
        self.aside.setdefault(kind, []).append(path)

    def left_out(self) -> list[str]:
        """A line for each kind of directory that is no result."""
        return [LEFT_OUT[kind].format(_count(len(paths), kind), path=paths[0]) for kind, paths in self.aside.items()]

    def remarks(self) -> list[str]:
        """Lines on what is missing in the report, and why."""
        return [*(f"damaged: {line}" for line in self.damaged), *self.left_out()]

    def states(self) -> list[str]:
        """`outputs/train/sweep-seed_0+1: 12/16 done, 1 failed: why`: a line for each sweep, and one for other runs."""
        lines = [f"{path}: {progress_line(jobs)}" for path, jobs in self.sweeps.items()]
        of_sweeps = {(path / Path(job.run_dir).name).resolve() for path, jobs in self.sweeps.items()
                     for job in jobs if job.run_dir} if self.sweeps else set()  # fmt: skip
        others = [run.as_job() for run in self.runs if not of_sweeps or run.path.resolve() not in of_sweeps]
        if others:
            name = common_folder(f"{job.sweep}/{job.name}" for job in others) or "."
            lines.append(f"{name}: {progress_line(others)}")
        return lines

    def missing_jobs(self) -> list[dict[str, Any]]:
        """Rows of the jobs of sweeps that have no result: those to come, cut, running or failed."""
        several = len(self.sweeps) > 1
        return [{"job without a result": job_label(job, jobs), **({"sweep": str(path)} if several else {}),
                 "status": job.status, "reason": job.reason or None}
                for path, jobs in self.sweeps.items() for job in jobs if job.status not in (DONE, PRUNED)]  # fmt: skip


def gather_runs(roots: list[Path]) -> GatheredRuns:
    """All runs and sweeps in and below the directories. Raises UserError if a directory is missing."""
    found, seen = GatheredRuns(roots=tuple(map(os.path.realpath, roots))), set()
    for root in roots:
        if not root.is_dir():
            what = "a file, no directory" if root.exists() else "no such directory"
            raise UserError(f"{root}: {what}; give one that holds runs, as outputs")
        refused = partial(_refused, found)
        for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refused):
            path = Path(folder)
            if (real := os.path.realpath(path)) in seen:  # reached by a link, or given twice
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = _followed(path, subfolders, found)
            if FOLDER in subfolders:
                _read_jobs(path, found)
            if study_result.FILE in files:
                _read_search(path, found)
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints" and name[0] != ".")
            if SIGNS & {*files, *subfolders}:
                _add_run(path, {*files, *subfolders}, found)
    return found


def _refused(found: GatheredRuns, error: OSError) -> None:
    found.set_aside("directory", Path(str(error.filename)))


def _followed(path: Path, subfolders: list[str], found: GatheredRuns) -> list[str]:
    """Subfolders without the links that lead out of the directories that are reported."""
    out = [name for name in subfolders if (path / name).is_symlink() and not is_inside(path / name, found.roots)]
    for name in out:
        found.set_aside("link", path / name)
    return [name for name in subfolders if name not in out]


def _add_run(path: Path, files: set[str], found: GatheredRuns) -> None:
    try:
        run = _read(path, files, found)
    except Exception as error:  # one run must not cost the others
        found.damaged.append(f"{path}: cannot be read ({reason(error)})")
        return
    if run:
        found.runs.append(run)


def _count(number: int, kind: str) -> str:
    """`1 run with debug= is`, `3 links are`."""
    noun, _, more = kind.partition(" ")
    return f"{plural(number, noun)}{' ' if more else ''}{more} {'is' if number == 1 else 'are'}"


def _read_jobs(path: Path, found: GatheredRuns) -> None:
    """Add the job records of a sweep to `found`."""
    try:
        found.sweeps[path] = current_jobs(path)
    except (TypeError, ValueError, KeyError, AttributeError, OSError, RecursionError, OverflowError):
        found.damaged.append(f"{path / FOLDER}: the sweep's job records are damaged")


def _read_search(path: Path, found: GatheredRuns) -> None:
    if search := read_study_result(path):
        found.searches[path] = search
    else:
        found.damaged.append(f"{path}: {study_result.FILE} is damaged")


def _read(path: Path, files: set[str], found: GatheredRuns) -> Run | None:
    """Run in a directory; None if it is no result, or if too few of its files are left."""
    bad: list[str] = []
    read = partial(_or_bad, bad, files, path, found.roots)
    result = read("result.json", read_object)
    if kind := PICTURES if "pictures" in result else "benchmark" if "nets" in result else "":
        found.set_aside(kind, path)
        return None
    result = _checked(result, bad)
    config, said = read("config.yaml", read_config), read("status.json", read_object)
    if config.get("debug"):
        found.set_aside("run with debug=", path)
        return None
    settings = _settings(config, result)
    if settings:
        settings["task"] = str(result.get("task") or said.get("task") or DEFAULT_TASK)
    if not config and not result:
        bad = bad or ["config.yaml is missing"]
    elif "model.name" not in settings or "data.name" not in settings:
        bad.append("the net or the data set is not recorded")
    elif said.get("status") == "done" and not result and not bad:
        bad.append("the run is done, but result.json is missing")
    found.damaged += [f"{path}: {text}" for text in bad]
    if "model.name" not in settings or "data.name" not in settings:
        return None
    last = {} if result else last_row(path / "metrics.jsonl", found.roots)
    status, reason = _state(path, said, result)
    if not result and bad and status in (DONE, FAILED):
        status, reason = FAILED, bad[0]
    return Run(
        path=path,
        command=settings["command"],
        settings=settings,
        overrides=read_overrides(path / "overrides", found.roots, config),
        status=status,
        reason=reason,
        epochs=config["epochs"] if isinstance(config.get("epochs"), int) else None,
        last=last,
        result=result,
        metrics=metrics_of(result or said),
        date=_date(path / ("result.json" if result else "metrics.jsonl" if last else "config.yaml")),
        roots=found.roots,
    )


def _or_bad(bad: list[str], files: set[str], path: Path, roots: tuple[str, ...], name: str,
            read: Callable[[Path, tuple[str, ...]], dict[str, Any]]) -> dict[str, Any]:  # fmt: skip
    """Content of a file; empty where it is missing, or damaged, which is added to `bad`."""
    try:
        return read(path / name, roots) if name in files else {}
    except DamagedError as error:
        bad.append(str(error))
        return {}


def _checked(result: dict[str, Any], bad: list[str]) -> dict[str, Any]:
    try:
        if result:
            check_result(result)
    except DamagedError as error:
        bad.append(str(error))
        return {}
    return result


def _state(path: Path, said: dict[str, Any], result: dict[str, Any]) -> tuple[str, str]:
    """Status and reason. A run that says `running` without holding its lock was killed."""
    status, reason = STATES.get(str(said.get("status")), FAILED), str(said.get("reason") or "").partition("\n")[0]
    if result:
        return DONE, ""
    if status == RUNNING and not run_directory.is_held(path):
        return FAILED, "its process is gone (killed?)"
    return status, reason or ("" if said else "it never began")


def _settings(config: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Settings that determine the result: from the configuration, or from an evaluation's result."""
    if config:
        flat = {key: value for key, value in flatten(config).items()
                if not run_directory.is_free(key) and key != "model.in_channels"}  # fmt: skip
        if "data.name" in flat:
            root, file = flatten(config).get("data.root"), flat.get("data.file")
            flat["data.name"] = data_name(str(flat["data.name"]), root, file)
        return {"command": "finetune" if "transfer" in config else "train", **flat}
    if not result:
        return {}
    trained, protocol = result.get("trained"), result.get("protocol")
    kept = [text for text in map(str, trained or []) if not (run_directory.is_free(_key(text)) or _key(text) in SAID)]
    flat = flatten({"protocol": protocol}) if isinstance(protocol, dict) else {}
    flat = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in flat.items()}
    return {
        "command": "evaluate",
        **({"model.name": result["model"]} if "model" in result else {}),
        **({"data.name": result["data"]} if "data" in result else {}),
        **{key: result.get(key) for key in ("seed", "split", "crop", "precision")},
        **flat,
        **flatten({"model": arguments} if isinstance(arguments := result.get("arguments"), dict) else {}),
        "trained": " ".join(sorted(kept)) if trained is not None else result.get("weights"),
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _date(file: Path) -> str:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime).date().isoformat()
    except OSError:
        return ""
