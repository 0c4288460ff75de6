"""Job records of a sweep: a JSON file for each job in `SWEEP/.sweep`, from which any process reads the progress.

The process that runs a job writes its record: the command itself, a worker of the local launcher, or a node of a
cluster. A killed process (kill -9, a node that died) cannot write: its end is detected by its pid, or by asking Slurm.
"""

import hashlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from cnnbench.config.arguments import without_plus
from cnnbench.config.parsing import flatten, to_plain
from cnnbench.config.sections import Format
from cnnbench.output.tables import fitted
from cnnbench.runs import run_directory
from cnnbench.runtime import processes, slurm
from cnnbench.tasks import metrics_of
from cnnbench.tasks.metric import Metric
from cnnbench.utils import exit_codes
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json, try_lock, write_json
from cnnbench.utils.format import plural
from cnnbench.utils.terminal import terminal_width
from cnnbench.utils.text import slug

FOLDER, SUBMITTED = ".sweep", "submitted"
DONE, RUNNING, PENDING, CUT, FAILED = "done", "running", "pending", "cut", "failed"
PRUNED = "pruned"  # stopped early by a search: neither a result nor a failure
EXPLAINED = 8  # failures whose reasons the progress line gives
ORDER = (DONE, RUNNING, PENDING, CUT, PRUNED, FAILED)


@dataclass(kw_only=True)
class SweepJob:
    """One job of a sweep. status: done, running, pending, cut (stopped and saved), pruned or failed; reason: why."""

    sweep: str  # the sweep's directory
    name: str
    number: int
    command: str
    overrides: list[str]
    status: str = PENDING
    reason: str = ""
    code: int = 0
    run_dir: str | None = None
    skipped: bool = False  # an earlier command has done it
    format: str = "table"
    fingerprint: str = ""  # hash of the configuration without the keys that say where and how it runs
    token: str = ""  # id of the command that ran or skipped it
    process: dict[str, Any] = field(default_factory=dict)
    slurm: str | None = None  # the Slurm job id

    @property
    def file(self) -> Path:
        return Path(self.sweep) / FOLDER / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Console output of a job that the local launcher ran."""
        return self.file.with_suffix(".log")

    @property
    def result(self) -> dict[str, Any]:
        return read_json(self.directory / "result.json") if self.directory and self.status == DONE else {}

    @property
    def directory(self) -> Path | None:
        """Run directory, found too when the sweep's directory was moved or is mounted elsewhere."""
        if self.run_dir is None:
            return None
        inside = Path(self.sweep) / Path(self.run_dir).name
        return inside if inside.is_dir() else Path(self.run_dir)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process or Slurm runs it or will run it. The status must come from `current_jobs`."""
        return self.status in (RUNNING, PENDING) and (self.slurm is not None or self.process != _this_process())

    @property
    def outcome(self) -> str:
        """`done, mean IoU 62.20 %`, `failed: out of memory`."""
        metric, value = self._primary()
        text = self.status + (f", {metric.text(value)}" if value is not None else "")
        return f"{text}: {self.reason}" if self.reason else text

    @property
    def cost(self) -> float | None:
        """Primary metric as a number to minimise: negated if higher is better. None if the job is not done."""
        metric, value = self._primary()
        return None if value is None else metric.cost(value)

    def _primary(self) -> tuple[Metric, float | None]:
        result = self.result
        metric = metrics_of(result)[0]
        return metric, result.get(metric.name)

    def mark_pending(self) -> None:
        """Record that this process, or a child of it, will run the job."""
        self.status, self.process = PENDING, _this_process()
        self.write()

    def write(self) -> None:
        if processes.process_info().rank > 0:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, asdict(self))

    def begin(self) -> None:
        self.status, self.reason, self.skipped, self.slurm = RUNNING, "", False, slurm.current_job()
        self.process = _this_process()
        self.write()

    def end(self, code: int, reason: str, run_dir: str | None) -> None:
        cut = code in (130, exit_codes.PREEMPTED)
        self.status = CUT if cut else FAILED if code else DONE
        self.code, self.reason, self.run_dir = code, reason, run_dir or self.run_dir
        said = read_json(self.directory / "status.json") if self.directory and self.status == DONE else {}
        if said.get("status") == PRUNED:
            self.status, self.reason = PRUNED, str(said.get("reason"))
        self.write()


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}


def job_name(overrides: Iterable[str], swept: Iterable[str]) -> str:
    """Name of a job: equal for equal settings, however and wherever the job runs."""
    return slug(run_directory.named(overrides, [*swept, "model", "data", "weights"])) or "job"


def config_fingerprint(cfg: Any) -> str:
    """Hash of all settings that change the result."""
    plain = {key: value for key, value in flatten(to_plain(cfg)).items() if not run_directory.is_free(key)}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_jobs(sweep: Path, only: str = "*") -> list[SweepJob]:
    """Jobs as their records say, in order. Raises UserError if the directory is not a sweep's."""
    folder = sweep / FOLDER
    if not is_sweep_dir(sweep):
        raise UserError(f"{sweep} is not the directory of a sweep: give one that a command with -m made")
    known = {item.name for item in fields(SweepJob)}
    found = [{key: value for key, value in read_json(file).items() if key in known}
             for file in folder.glob(f"{only}.json")]  # fmt: skip
    submitted = read_json(folder / SUBMITTED)
    jobs = [SweepJob(**{**content, "sweep": str(sweep)}) for content in found if "name" in content]
    for job in jobs:
        if job.status == PENDING and job.slurm is None:
            job.slurm = submitted.get(job.name) or None
    return sorted(jobs, key=lambda job: (job.number, job.name))


def record_submitted(sweep: Path, ids: dict[str, str]) -> None:
    """Write the Slurm job ids to a file of their own: jobs that already run write to their own records."""
    file = sweep / FOLDER / SUBMITTED
    write_json(file, {**read_json(file), **ids})


def record_pending(sweep: Path, command: str, jobs: list[list[str]], swept: list[str]) -> None:
    """Write a record for each job to come, so that a report knows their number. Existing records stay unchanged."""
    for number, overrides in enumerate(jobs):
        shown = [without_plus(text) for text in overrides if not text.startswith(("sweep.", "hydra"))]
        job = SweepJob(sweep=str(sweep), name=job_name(shown, swept), number=number, command=command, overrides=shown)
        if not job.file.exists():
            job.mark_pending()


def cancel_unstarted(sweep: Path) -> None:
    """Mark this process's pending jobs as cut."""
    for job in read_jobs(sweep) if is_sweep_dir(sweep) else []:
        if job.status == PENDING and job.process == _this_process():
            job.end(130, "not begun", None)


def lock_sweep(sweep: Path) -> IO[str]:
    """Lock on a sweep's directory, held until the returned file is closed. UserError where another process has it."""
    folder = sweep / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(folder / ".lock")
    except OSError as error:
        raise UserError(f"cannot write to {sweep}: {error.strerror}") from None
    if lock is None:
        raise UserError(f"another process runs a sweep in {sweep}: wait for it, or give another sweep.dir")
    return lock


def is_sweep_dir(sweep: Path) -> bool:
    return (sweep / FOLDER).is_dir()


def find_record(job: SweepJob) -> SweepJob | None:
    """Earlier record of the same job, with its present status; None if there is none."""
    if not job.file.exists():
        return None
    return next((other for other in current_jobs(Path(job.sweep), only=job.name)), None)


def current_jobs(sweep: Path, only: str = "*") -> list[SweepJob]:
    """Jobs with their present status: a job has failed if its process is gone or Slurm no longer knows it."""
    jobs = read_jobs(sweep, only)
    unsure = [job for job in jobs if job.status in (RUNNING, PENDING, CUT)]
    queued = slurm.queued_jobs([job.slurm for job in unsure if job.slurm]) if any(job.slurm for job in unsure) else {}
    for job in unsure:
        if job.slurm is None:
            if job.status == RUNNING and not _alive(job.process):
                job.status, job.reason = FAILED, "its process is gone (killed?)"
            if job.status == PENDING and job.process and not _alive(job.process):
                job.status, job.reason = CUT, "not begun"
        elif queued is None:
            job.reason = "Slurm does not answer"
        elif job.slurm in queued:
            _as_queued(job, *queued[job.slurm])
        else:
            _as_ended(job)
    return jobs


def _as_queued(job: SweepJob, word: str, reason: str) -> None:
    job.status, job.reason = (PENDING, reason) if word == "PENDING" else (RUNNING, "")


def _as_ended(job: SweepJob) -> None:
    """Set the status of a job that has left Slurm's queue. It may have written its record while Slurm was asked."""
    written = read_json(job.file)
    if written.get("status") in (DONE, FAILED, CUT):
        job.status, job.reason = written["status"], written["reason"]
        job.run_dir, job.code = written["run_dir"], written["code"]
        return
    word = slurm.end_state(job.slurm or "") or "unknown"
    if word.startswith("CANCELLED"):
        job.status, job.reason = CUT, "cancelled"
    else:
        job.status, job.reason = FAILED, f"it ended without a result (Slurm: {word})"


def progress_line(jobs: list[SweepJob]) -> str:
    """`9/16 done, 4 running, 2 pending, 1 failed: seed=3: out of memory`."""
    counts = Counter(job.status for job in jobs)
    parts = [f"{counts[DONE]}/{len(jobs)} done"]
    parts += [f"{counts[status]} {status}" for status in ORDER[1:] if counts[status]]
    failed = [job for job in jobs if job.status == FAILED]
    reasons = [f"{job_label(job, jobs)}: {job.reason}" for job in failed[:EXPLAINED]]
    reasons += [f"{len(failed) - EXPLAINED} more"] if len(failed) > EXPLAINED else []
    return ", ".join(parts) + (f": {'; '.join(reasons)}" if reasons else "")


def job_label(job: SweepJob, jobs: list[SweepJob]) -> str:
    """Overrides that distinguish this job from the others."""
    common = set.intersection(*(set(other.overrides) for other in jobs)) if len(jobs) > 1 else set()
    return " ".join(text for text in job.overrides if text not in common) or job.name


def stop_jobs(jobs: list[SweepJob]) -> list[SweepJob]:
    """Stop running and pending jobs; returns those that could be told to stop.

    A running job saves a checkpoint first, so that the same command resumes it.
    """
    live = [job for job in jobs if job.status in (RUNNING, PENDING)]
    queued = [job for job in live if job.slurm]
    if queued:
        slurm.cancel_jobs([str(job.slurm) for job in queued])
    here = [job for job in live if not job.slurm and _alive(job.process, unsure=False)]
    for pid in {job.process["pid"] for job in here}:  # for a pending job: the process that would run it
        os.kill(pid, signal.SIGTERM)
    for job in queued:
        if job.status == PENDING:
            job.status, job.reason = CUT, "cancelled before it began"
            job.write()
    return [*queued, *here]


def jobs_table(jobs: list[SweepJob], format: str) -> str:
    rows = []
    for job in jobs:
        result = job.result
        rows.append({
            "job": job_label(job, jobs),
            "status": "skipped: done before" if job.skipped else
                      ": ".join(filter(None, [job.status, job.reason.partition("\n")[0]])),
            **{metric.name: result.get(metric.name) for metric in metrics_of(result)},
            "train_n": result.get("train_n"),
            "seconds": result.get("wall_seconds"),
            "directory": job.run_dir and Path(job.run_dir).name,
        })  # fmt: skip
    shown = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return fitted(shown, Format(format), terminal_width(), ("train_n", "directory"), how="open the folder named below")


def jobs_summary(jobs: list[SweepJob]) -> str:
    """`4 jobs: 2 done, 1 skipped, 1 failed`."""
    skipped = sum(job.skipped for job in jobs)
    counts = Counter(job.status for job in jobs)
    parts = [f"{counts[DONE] - skipped} done", *([f"{skipped} skipped"] if skipped else [])]
    parts += [f"{counts[status]} {status}" for status in (RUNNING, PENDING, CUT, PRUNED) if counts[status]]
    return f"{plural(len(jobs), 'job')}: {', '.join([*parts, f'{counts[FAILED]} failed'])}"


def _started(pid: int) -> str:
    """Start time of a process by the kernel's clock; with the pid it is unique. Empty on systems without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(process: dict[str, Any], *, unsure: bool = True) -> bool:
    """Whether a process runs; `unsure` if it belongs to another machine."""
    if process.get("host") != socket.gethostname():
        return unsure
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(process["pid"]) == process["started"]
