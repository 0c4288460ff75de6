"""Runs on disk: which there are under some directories, what each says of itself, and which are damaged.

Nothing but the run directories is read, so it does not matter who launched the runs, where, or whether they go on.
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

import yaml

from cnnbench.config.parsing import flatten
from cnnbench.runs import run_directory
from cnnbench.sweeps import study_result
from cnnbench.sweeps.jobs import CUT, DONE, FAILED, FOLDER, PRUNED, RUNNING, SweepJob, current_jobs, progress_line
from cnnbench.sweeps.study_result import StudyResult, read_study_result
from cnnbench.tasks import metrics_of
from cnnbench.tasks.metric import Metric
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json, read_rows

SIGNS = {"config.yaml", "status.json", "metrics.jsonl", "result.json"}  # of a run: any of them
STATES = {"done": DONE, "running": RUNNING, "failed": FAILED, "interrupted": CUT, "preempted": CUT,
          "pruned": PRUNED}  # fmt: skip
SAID = ("seed", "model", "data")  # by an evaluation itself
TAIL = 4096  # bytes of a metrics.jsonl, of which the last line is but a part
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(kw_only=True, eq=False)
class Run:
    """One run as it is on disk. settings: what it computes, by flat key, apart from where and how it is computed."""

    path: Path
    command: str  # train, finetune or evaluate
    settings: dict[str, Any]
    overrides: list[str]
    status: str  # as of a sweep's job
    reason: str
    epochs: int | None  # that it is to have
    last: dict[str, Any]  # the last line of its metrics, where it is not done
    result: dict[str, Any]  # empty where it is not done
    metrics: tuple[Metric, ...]  # of its task, the primary one first
    date: str  # of its last word, as 2026-01-31

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A line per epoch, of numbers alone."""
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
        """`epoch 17/50, mean IoU 62.07 %`, of a run that is not done."""
        if not self.last:
            return "no epoch yet"
        of = f"/{self.epochs}" if self.epochs else ""
        value = self.last.get(f"{self.primary.name}/val")
        return f"epoch {self.last.get('epoch')}{of}" + (f", {self.primary.text(value)}" if value is not None else "")

    def as_job(self) -> SweepJob:
        """As a sweep's books would have it, known by the name of its directory."""
        return SweepJob(sweep=str(self.path.parent), name=self.path.name, number=0, command=self.command,
                   overrides=[], status=self.status, reason=self.reason)  # fmt: skip


@dataclass
class GatheredRuns:
    """runs in the order of their paths; jobs of each sweep; what those found that searched; damaged: a line for each
    file that cannot be read."""

    runs: list[Run] = field(default_factory=list)
    sweeps: dict[Path, list[SweepJob]] = field(default_factory=dict)
    searches: dict[Path, StudyResult] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def states(self) -> list[str]:
        """`outputs/train/sweep-seed_0+1: 12/16 done, 1 failed: why`: a line for each sweep, and one for the others."""
        lines = [f"{path}: {progress_line(jobs)}" for path, jobs in self.sweeps.items()]
        of_sweeps = {(path / Path(job.run_dir).name).resolve() for path, jobs in self.sweeps.items()
                     for job in jobs if job.run_dir} if self.sweeps else set()  # fmt: skip
        others = [run.as_job() for run in self.runs if not of_sweeps or run.path.resolve() not in of_sweeps]
        if others:
            name = os.path.commonpath([job.sweep for job in others]) or "."
            lines.append(f"{name}: {progress_line(others)}")
        return lines


def gather_runs(roots: list[Path]) -> GatheredRuns:
    """All runs and sweeps in and under the directories. UserError where there is no such directory."""
    found, seen = GatheredRuns(), set()
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: there is no such directory; give one that holds runs, as outputs")
        for folder, subfolders, files in os.walk(root, followlinks=True):
            path = Path(folder)
            if (real := os.path.realpath(path)) in seen:  # by a link, or given twice
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
    """What a sweep has written down of its jobs."""
    try:
        found.sweeps[path] = current_jobs(path)
    except (TypeError, ValueError, KeyError, AttributeError):
        found.damaged.append(f"{path / FOLDER}: what is written there of the sweep's jobs is damaged")


def _read_search(path: Path, found: GatheredRuns) -> None:
    if search := read_study_result(path):
        found.searches[path] = search
    else:
        found.damaged.append(f"{path}: {study_result.FILE} is damaged")


def _read(path: Path, files: set[str], damaged: list[str]) -> Run | None:
    """The run there; None for what leaves no errors behind (pictures), or where too little is left of it."""
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
        bad.append("it does not say which net and data it is of")
    elif said.get("status") == "done" and not result and not bad:
        bad.append("it is done, but result.json is missing")
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
    """What became of it: a process that was killed could not say so itself."""
    status, reason = STATES.get(str(said.get("status")), FAILED), str(said.get("reason") or "").partition("\n")[0]
    if result:
        return DONE, ""
    if status == RUNNING and not run_directory.is_held(path):
        return FAILED, "its process is gone (killed?)"
    return status, reason or ("" if said else "it never began")


def _settings(config: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """What was computed: from the configuration, or, of an evaluation, from what it says of itself."""
    if config:
        flat = {key: value for key, value in flatten(config).items()
                if not run_directory.is_free(key) and key != "model.in_channels"}  # fmt: skip
        name, root = flat.get("data.name"), flatten(config).get("data.root")
        if name == "folder" and root:  # folders are told apart by their own names
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
        **{key: result.get(key) for key in ("seed", "split", "crop")},
        **flat,
        **flatten({"model": arguments} if isinstance(arguments := result.get("arguments"), dict) else {}),
        "trained": " ".join(sorted(kept)) if trained is not None else result.get("weights"),
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _overrides(file: Path, config: dict[str, Any]) -> list[str]:
    """The command line that made the run."""
    try:
        return file.read_text().splitlines()
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
    """A saved configuration. The runs of a sweep share most sections word for word: each is parsed but once."""
    try:
        text = file.read_text()
        try:
            whole = {key: value for part in re.split(r"^(?=\w)", text, flags=re.M) if part.strip()
                     for key, value in _section(part).items()}  # fmt: skip
        except (yaml.YAMLError, AttributeError):  # written by hand, in some other form
            whole = yaml.load(text, Loader=LOADER)
        if isinstance(whole, dict) and whole:
            return whole
    except (OSError, UnicodeError, yaml.YAMLError):
        pass
    bad.append(f"{file.name} is damaged")
    return {}


@lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    found = yaml.load(text, Loader=LOADER)
    if not isinstance(found, dict):
        raise yaml.YAMLError
    return found


def _last_row(file: Path) -> dict[str, Any]:
    """The last whole line; a line that is being written is not there yet."""
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
    """What a line of metrics says in numbers; nothing where it does not say of which epoch."""
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
        return {}
    return {key: value for key, value in row.items() if isinstance(value, int | float)}


def _date(file: Path) -> str:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime).date().isoformat()
    except OSError:
        return ""
