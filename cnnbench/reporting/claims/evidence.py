"""Runs as a claim's evidence: read from run directories, or from the small files that are kept under docs/claims."""

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.config import arguments, expand
from cnnbench.config.compose import compose, typed_config
from cnnbench.config.parsing import flatten, to_plain
from cnnbench.reporting.claims import numbers
from cnnbench.reporting.claims.claim import Best, Claim, Value
from cnnbench.reporting.gather import Run
from cnnbench.reporting.group import setting_text
from cnnbench.runs import run_directory
from cnnbench.tasks import ANSWERS, DEFAULT_TASK
from cnnbench.tasks.classification import TOP1
from cnnbench.tasks.classification.answers import read
from cnnbench.utils.files import read_json

KEPT = ("n", "train_n", "epochs", "steps", "params", "macs", "wall_seconds", "loss", "split", "crop", "precision",
        "training_precision", "device", "model", "data", "select_on", "task", "metrics", "versions")  # fmt: skip
CHOSEN = (("epochs", 0), ("weights", None))  # settings in whose place `finetune` records what it chose


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """A finished run that tests a claim.

    wrong: bool (images,), whether each answer is wrong; None where it is not known.
    images: digest of the images and their truths, in order: runs with the same one were judged on the same images.
    """

    claim: str
    level: str
    seed: int | None
    settings: dict[str, Any]
    result: dict[str, Any]
    command: str
    date: str
    commit: str | None
    wrong: np.ndarray | None = None
    images: str = ""
    code: dict[str, str] | None = None
    source: Path | None = None  # the run's directory; None of kept evidence

    @property
    def file_name(self) -> str:
        level = "".join(letter if letter.isalnum() else "-" for letter in self.level.lower()).strip("-")
        return f"{level or 'run'}-{self.seed}.json"

    def data(self) -> dict[str, Any]:
        """The evidence as JSON holds it."""
        bits = None if self.wrong is None else base64.b64encode(np.packbits(self.wrong).tobytes()).decode("ascii")
        return {"claim": self.claim, "level": self.level, "seed": self.seed, "command": self.command, "date": self.date,
                "commit": self.commit, "result": self.result, "images": self.images, "wrong": bits,
                "code": self.code, "settings": self.settings}  # fmt: skip


def kept_dir() -> Path:
    """Folder of the kept evidence: inside the package when installed from a wheel, in docs/ of a checkout."""
    packaged = Path(__file__).parents[2] / "claims"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "docs" / "claims"


def read_kept(claim: Claim, folder: Path | None = None) -> list[Evidence]:
    """Kept runs of a claim, in the order of their names. ValueError where a file is damaged."""
    folder = folder or kept_dir()
    if isinstance(claim.measure, Best):
        return _subsets(claim, claim.measure, folder / claim.measure.of)
    return [from_data(read_json(file)) for file in sorted((folder / claim.name).glob("*.json"))]


def _subsets(claim: Claim, measure: Best, file: Path) -> list[Evidence]:
    """Subsets of which all strategies' errors are kept, of the claim's pairs and amounts."""
    return [
        Evidence(claim=claim.name, level=row["pair"], seed=row["seed"], settings={"amount": row["amount"]},
                 result={**row["errors"], "n": row["n"]}, command="", date="", commit=" ".join(row["commits"]))
        for row in json.loads(file.read_text())
        if row["pair"] in measure.pairs and row["amount"] in measure.amounts
    ]  # fmt: skip


def from_data(content: Mapping[str, Any]) -> Evidence:
    known, bits = dict(content), content["wrong"]
    if bits is not None:
        packed = np.frombuffer(base64.b64decode(bits), np.uint8)
        known["wrong"] = np.unpackbits(packed, count=content["result"]["n"]).astype(bool)
    return Evidence(**known)


# From run directories


def find(claim: Claim, runs: Iterable[Run], pages: Iterable[Path] = ()) -> list[Evidence]:
    """Evidence among the runs, and among directories of pictures: what has the settings of the claim's command, one of
    each level and seed."""
    if not claim.command or isinstance(claim.measure, Best):
        return []
    *before, last = claim.commands
    if last.split()[1] == "visualize":
        trained = of_line(before[0], runs) if before else []
        found = [one for page in pages for one in _measured(claim, last, trained, page)]
    else:
        found = [from_run(claim, level, run) for run, job in of_line(last, runs)
                 if (level := level_of(claim, job)) is not None]  # fmt: skip
    return list({(one.level, one.seed): one for one in found}.values())


def of_line(line: str, runs: Iterable[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """Finished runs of a command line, each with its job."""
    command, jobs = wanted(line)
    named = [(run, [job for job in jobs if is_same(job, run.settings)])
             for run in runs if run.result and run.command == command]  # fmt: skip
    return [(run, found[0]) for run, found in named if found]


def _measured(claim: Claim, line: str, trained: list[tuple[Run, dict[str, Any]]], page: Path) -> list[Evidence]:
    """What was measured by a claim's line: on given weights or an untrained net, or on a run trained for it."""
    found = []
    for facts, metrics in numbers.read(page):
        where = Path(facts.get("weights", "")).resolve()
        run = next((run for run, _ in trained if run.path.resolve() in (where, *where.parents)), None)
        if numbers.is_of(line, facts["command"]) and (run or len(claim.commands) == 1):
            found += _from_facts(claim, facts, metrics, run, page)
    return found


def _from_facts(
    claim: Claim, facts: Mapping[str, Any], metrics: dict[str, Any], run: Run | None, page: Path
) -> list[Evidence]:
    net = facts["model"] if isinstance(facts["model"], Mapping) else {"name": facts["model"]}
    known = {"model": net, "data": {"name": facts["data"]}, "seed": facts["seed"], "task": DEFAULT_TASK}
    settings = run.settings if run else flatten(known)
    words = _typed(shlex.split(facts["command"]))
    lines, commits = [shlex.join(words)], [facts["commit"]]
    if run:
        unnamed = [numbers.RUN if word.startswith("weights=") else word for word in words]
        lines, commits = [_line_of(run), shlex.join(unnamed)], [run.result.get("commit"), *commits]
    if (level := level_of(claim, settings)) is None:
        return []
    return [Evidence(claim=claim.name, level=level, seed=settings["seed"], settings=dict(sorted(settings.items())),
                     result=metrics, command="\n".join(lines), date=facts["date"],
                     commit=" and ".join(dict.fromkeys(map(str, commits))), source=page)]  # fmt: skip


def _line_of(run: Run) -> str:
    return f"cnnbench {run.command} {' '.join(_typed(run.overrides))}"


@cache
def wanted(line: str) -> tuple[str, list[dict[str, Any]]]:
    """Command, and the settings of each job of a claim's command line but for the seeds."""
    name, *args = line.split()[1:]
    args = [f"seed={arg[5:].partition(',')[0]}" if arg.startswith("seed=") else arg for arg in args]
    args = arguments.hydra_arguments(name, args)
    swept = [f"seed={text[5:].partition(',')[0]}" if text.startswith("seed=") else text
             for text in expand.swept_by_experiment(args)]  # fmt: skip
    if "-m" not in args:
        return name, [_settings(typed_config(name, compose(name, args), []))]
    return name, [_settings(cfg) for cfg in expand.combinations(name, [*args, *swept])]


def _settings(cfg: Any) -> dict[str, Any]:
    free = ("seed", "task", "model.in_channels")
    return {key: value for key, value in flatten(to_plain(cfg)).items()
            if not run_directory.is_free(key) and key not in free}  # fmt: skip


def is_same(job: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a run has the settings of a job, but for keys that there were not yet when it ran."""
    return all(setting_text(settings[key]) == setting_text(value) for key, value in job.items()
               if key in settings and (key, value) not in CHOSEN)  # fmt: skip


def level_of(claim: Claim, settings: Mapping[str, Any]) -> str | None:
    if isinstance(claim.measure, Value):
        return ""
    return next((name for name, level in claim.levels.items() if is_same(level, settings)), None)


def from_run(claim: Claim, level: str, run: Run) -> Evidence:
    metrics = {name: value for metric in run.metrics for name in (metric.name, f"train_{metric.name}")
               if (value := run.result.get(name)) is not None}  # fmt: skip
    own = getattr(claim.measure, "metric", TOP1.name)
    metrics |= {own: run.result[own]} if own in run.result else {}
    wrong, images = _answers(run)
    return Evidence(
        claim=claim.name,
        level=level,
        seed=run.settings.get("seed"),
        settings=dict(sorted(run.settings.items())),
        result=metrics | {key: run.result[key] for key in KEPT if key in run.result},
        command=_line_of(run),
        date=run.date,
        commit=run.result.get("commit"),
        wrong=wrong,
        images=images,
        source=run.path,
    )


def _typed(overrides: Iterable[str]) -> list[str]:
    return [text for text in overrides if not run_directory.is_free(text.partition("=")[0].lstrip("+~"))]


def _answers(run: Run) -> tuple[np.ndarray | None, str]:
    """Which answers are wrong, and the digest of the images. None where the run left none, or others than its error."""
    try:
        answers = read(run.path / ANSWERS)
    except (OSError, ValueError):
        return None, ""
    if abs(100 * answers.wrong.mean() - run.result.get(TOP1.name, -1)) > 1e-6:
        return None, ""
    named = "\n".join(map("\t".join, zip(answers.images, answers.truths, strict=True)))
    where = f"{run.data} {run.result.get('split')}" if answers.numbered else ""
    return answers.wrong, hashlib.sha256(f"{where}\n{named}".encode()).hexdigest()[:12]
