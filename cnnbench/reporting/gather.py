"""Reads runs and sweeps from their directories, and notes damaged files.

Only the run directories are read, so it does not matter which process launched a run, where, or whether it still runs.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from cnnbench.config.parsing import flatten
from cnnbench.runs import run_directory
from cnnbench.sweeps import study_result
from cnnbench.sweeps.jobs import CUT, DONE, FAILED, FOLDER, PRUNED, RUNNING, SweepJob, current_jobs, progress_line
from cnnbench.sweeps.study_result import StudyResult, read_study_result
from cnnbench.tasks import metrics_of
from cnnbench.tasks.metric import Metric
from cnnbench.utils import plain_yaml
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json, read_rows
from cnnbench.utils.named_files import common_folder

SIGNS = {"config.yaml", "status.json", "metrics.jsonl", "result.json"}  # a directory with any of these is a run
STATES = {"done": DONE, "running": RUNNING, "failed": FAILED, "interrupted": CUT, "preempted": CUT,
          "pruned": PRUNED}  # fmt: skip
SAID = ("seed", "model", "data")  # keys that an evaluation's own result gives
TAIL = 4096  # bytes at the end of a metrics.jsonl that contain its last line


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

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of metrics, one per epoch, numbers only."""
        return [row for line in read_rows(self.path / "metrics.jsonl") if (row := _numbers(line))]

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
    """Runs by path, jobs of each sweep, results of searches, and a line for each damaged file."""

    runs: list[Run] = field(default_factory=list)
    sweeps: dict[Path, list[SweepJob]] = field(default_factory=dict)
    searches: dict[Path, StudyResult] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

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


def gather_runs(roots: list[Path]) -> GatheredRuns:
    """All runs and sweeps in and below the directories. Raises UserError if a directory is missing."""
    found, seen = GatheredRuns(), set()
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: no such directory; give one that holds runs, as outputs")
        for folder, subfolders, files in os.walk(root, followlinks=True):
            path = Path(folder)
            if (real := os.path.realpath(path)) in seen:  # reached by a link, or given twice
                subfolders.clear()
                continue
            seen.add(real)
            if FOLDER in subfolders:
                _read_jobs(path, found)
            if study_result.FILE in files:
                _read_search(path, found)
            subfolders[:] = sorted(name for name in subfolders if name != "checkpoints" and name[0] != ".")
            if SIGNS & set(files) and (run := _read(path, set(files), found.damaged)):
                found.runs.append(run)
    return found


def _read_jobs(path: Path, found: GatheredRuns) -> None:
    """Add the job records of a sweep to `found`."""
    try:
        found.sweeps[path] = current_jobs(path)
    except (TypeError, ValueError, KeyError, AttributeError):
        found.damaged.append(f"{path / FOLDER}: the sweep's job records are damaged")


def _read_search(path: Path, found: GatheredRuns) -> None:
    if search := read_study_result(path):
        found.searches[path] = search
    else:
        found.damaged.append(f"{path}: {study_result.FILE} is damaged")


def _read(path: Path, files: set[str], damaged: list[str]) -> Run | None:
    """Run in a directory; None if it has no metrics (visualize) or too few of its files are left."""
    bad: list[str] = []
    result = _json(path, "result.json", files, bad)
    if "pictures" in result:
        return None
    if result and not isinstance(result.get(primary := metrics_of(result)[0].name), int | float):
        bad.append(f"result.json has no {primary}")
        result = {}
    config = _config(path / "config.yaml", bad) if "config.yaml" in files else {}
    said = _json(path, "status.json", files, bad)
    settings = _settings(config, result)
    if not config and not result:
        bad = bad or ["config.yaml is missing"]
    elif "model.name" not in settings or "data.name" not in settings:
        bad.append("the net or the data set is not recorded")
    elif said.get("status") == "done" and not result and not bad:
        bad.append("the run is done, but result.json is missing")
    damaged += [f"{path}: {text}" for text in bad]
    if "model.name" not in settings or "data.name" not in settings:
        return None
    last = {} if result else _last_row(path / "metrics.jsonl")
    status, reason = _state(path, said, result)
    if not result and bad and status in (DONE, FAILED):
        status, reason = FAILED, bad[0]
    return Run(
        path=path,
        command=settings["command"],
        settings=settings,
        overrides=_overrides(path / "overrides", config),
        status=status,
        reason=reason,
        epochs=config["epochs"] if isinstance(config.get("epochs"), int) else None,
        last=last,
        result=result,
        metrics=metrics_of(result or said),
        date=_date(path / ("result.json" if result else "metrics.jsonl" if last else "config.yaml")),
    )


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
        name, root = flat.get("data.name"), flatten(config).get("data.root")
        if name == "folder" and root:  # image folders are distinguished by their names
            flat["data.name"] = Path(root).name
        return {"command": "finetune" if "transfer" in config else "train", **flat}
    if not result:
        return {}
    trained, protocol = result.get("trained"), result.get("protocol")
    kept = [text for text in map(str, trained or []) if not (run_directory.is_free(_key(text)) or _key(text) in SAID)]
    flat = flatten({"protocol": protocol}) if isinstance(protocol, dict) else {}
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


def _overrides(file: Path, config: dict[str, Any]) -> list[str]:
    """Overrides of the command line that made the run."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, UnicodeError):
        run = config.get("run")
        found = run.get("overrides") if isinstance(run, dict) else None
        return [str(text) for text in found or []]


def _json(path: Path, name: str, files: set[str], bad: list[str]) -> dict[str, Any]:
    found = read_json(path / name) if name in files else {}
    if name in files and not found:
        bad.append(f"{name} is damaged")
    return found


def _config(file: Path, bad: list[str]) -> dict[str, Any]:
    """Saved configuration. Sections are parsed one by one and cached: the runs of a sweep share most of them."""
    try:
        text = plain_yaml.read(file)
        try:
            whole = {key: value for part in re.split(r"^(?=\w)", text, flags=re.M) if part.strip()
                     for key, value in _section(part).items()}  # fmt: skip
        except plain_yaml.NotPlainError:  # written by hand in another layout
            whole = plain_yaml.parse(text)
        if isinstance(whole, dict) and whole:
            return whole
    except (OSError, plain_yaml.NotPlainError):
        pass
    bad.append(f"{file.name} is damaged")
    return {}


@lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    found = plain_yaml.parse(text)
    if not isinstance(found, dict):
        raise plain_yaml.NotPlainError("is no dictionary")
    return found


def _last_row(file: Path) -> dict[str, Any]:
    """Last complete row; a line that is still being written is skipped."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL))
            lines = stream.read().splitlines()
    except OSError:
        return {}
    return next(_rows(reversed(lines)), {})


def _rows(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row := _numbers(row):
            yield row


def _numbers(row: Any) -> dict[str, Any]:
    """Numbers of a row of metrics; empty if it has no epoch."""
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
        return {}
    return {key: value for key, value in row.items() if isinstance(value, int | float)}


def _date(file: Path) -> str:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime).date().isoformat()
    except OSError:
        return ""
