"""State and cancellation of Slurm jobs, through Slurm's commands, and the requeueing of a preempted job."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable

from cnnbench.utils.errors import RunError

ANSWER = 30  # seconds allowed for a command of Slurm
KILLED_WITHIN = 600  # seconds after SIGTERM by which Slurm has killed a job
GONE = "Invalid job id"
last_signal: int | None = None  # last signal that asked this process to stop


def is_available() -> bool:
    """Whether this machine has Slurm."""
    return shutil.which("sbatch") is not None


def current_job() -> str | None:
    """Id of the job of this process, as `17` or `17_3`; None outside Slurm."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def queued_jobs(ids: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """(State, reason) by id of the jobs that are still in the queue; None where Slurm does not answer."""
    arrays = sorted({one.partition("_")[0] for one in ids})
    found: dict[str, tuple[str, str]] = {}
    for array in arrays:
        done = _ask("squeue", "--noheader", "--array", "--jobs", array, "--format", "%i|%T|%r")
        if done is None or (done.returncode and GONE not in done.stderr):
            return None
        for line in done.stdout.splitlines():
            one, state, reason = line.split("|", 2)
            found[one] = (state, "" if reason == "None" else reason)
    return found


def end_state(job: str) -> str:
    """Final state of a job that left the queue, such as `OUT_OF_MEMORY` or `FAILED, exit code 1`; else empty."""
    accounted = _ask("sacct", "-o", "JobID,State,ExitCode", "--parsable2", "--noheader", "-j", job)
    for line in (accounted.stdout if accounted else "").splitlines():
        one, state, *code = line.split("|")
        if one == job:
            return _ending(state, code[0] if code and ":" in code[0] else "")
    shown = _ask("scontrol", "-o", "show", "job", job)
    fields = dict(re.findall(r"(\w+)=(\S*)", shown.stdout.split("\n")[0])) if shown and not shown.returncode else {}
    return _ending(fields.get("JobState", ""), fields.get("ExitCode", ""))


def _ending(state: str, exit_code: str) -> str:
    code, _, number = exit_code.partition(":")
    if number not in ("", "0"):
        return f"{state}, killed by {signal.Signals(int(number)).name}"
    return f"{state}, exit code {code}" if code not in ("", "0") else state


def partitions() -> list[str]:
    """Names of the partitions, sorted."""
    listed = _ask("sinfo", "--noheader", "--format", "%P")
    return sorted({line.strip("* ") for line in listed.stdout.splitlines()}) if listed else []


def cancel_jobs(ids: Iterable[str]) -> None:
    """Cancel jobs that run or wait. RunError where Slurm refuses."""
    done = _ask("scancel", *ids)
    if done is None or done.returncode:
        raise RunError(f"scancel: {(done.stderr.strip() if done else '') or 'Slurm does not answer'}")


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None


def await_requeue() -> None:
    """Let Slurm start this job again, after it has saved because of a signal.

    submitit's own handler requeues its jobs. After SIGTERM the job waits to be killed: a job that ends by itself counts
    as failed, and is not requeued after a preemption.
    """
    if current_job() is None or last_signal is None:
        return
    handler = signal.getsignal(last_signal)
    if last_signal != signal.SIGTERM:
        if callable(handler):
            handler(last_signal, None)
        return
    end = time.monotonic() + KILLED_WITHIN
    while time.monotonic() < end:
        time.sleep(1)
