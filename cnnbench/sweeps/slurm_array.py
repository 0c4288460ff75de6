"""Slurm launcher: the jobs of a sweep as one job array, submitted and watched through submitit."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnnbench.config.parsing import to_plain
from cnnbench.runtime import slurm
from cnnbench.sweeps.jobs import FAILED, PENDING, RUNNING, SweepJob, record_submitted
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.utils.fast_start import keep_freed_memory

COMMON_SETTINGS = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
           "stderr_to_stdout")  # fmt: skip
WHOLE = ("timeout_min", "max_num_timeout", "signal_delay_s", "nodes", "tasks_per_node", "gpus_per_node", "mem_gb",
         "cpus_per_task", "array_parallelism", "cpus_per_gpu", "gpus_per_task")  # fmt: skip
POLL_SECONDS = 2.0  # seconds
NEVER_STARTS = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "InvalidAccount",
            "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed")  # fmt: skip


def check_slurm_launcher(choice: str) -> None:
    """Raise UserError if the launcher cannot work here."""
    if find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={choice} needs submitit: pip install 'cnnbench[slurm]'")
    if not slurm.is_available():
        raise UserError(
            f"hydra/launcher={choice}: there is no Slurm on this machine (no sbatch); "
            "hydra/launcher=local runs several jobs at a time here"
        )


def check_numbers(settings: dict[str, Any]) -> None:
    """Raise UserError for a setting that is to be a whole number and is not."""
    for key in WHOLE:
        if settings[key] is not None and type(settings[key]) is not int:
            raise UserError(f"hydra.launcher.{key}={settings[key]} is not a whole number")


class SlurmJob:
    """The function that submitit calls on a node, in each process of a job; `checkpoint` resubmits a preempted job."""

    def __call__(self, task: dict[str, Any]) -> int:
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
            os.environ.setdefault("OMP_NUM_THREADS", cpus)
        from cnnbench.config import commands, parsing
        from cnnbench.sweeps.job_runner import run_job

        keep_freed_memory()
        cfg = parsing.from_plain(commands.SCHEMAS[task["command"]], task["config"])
        code = run_job(SweepJob(**task["job"]), cfg)
        if code == exit_codes.PREEMPTED:
            slurm.await_requeue()
        return code

    def checkpoint(self, task: dict[str, Any]) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def submit_array(todo: list[tuple[SweepJob, Any]], settings: dict[str, Any], folder: Path) -> str:
    """Submit the jobs. Returns the id of their array. Raises UserError if Slurm refuses: the records then stay as they
    were."""
    import submitit
    from submitit.core.utils import FailedJobError

    check_numbers(settings)
    own = {key: value for key, value in settings.items() if key not in ("submitit_folder", "max_num_timeout")}
    executor = submitit.AutoExecutor(
        cluster="slurm", folder=settings["submitit_folder"], slurm_max_num_timeout=settings["max_num_timeout"]
    )
    names = {key: key if key in COMMON_SETTINGS else f"slurm_{key}" for key in own}
    executor.update_parameters(**{names[key]: value for key, value in own.items()})
    before = {job.file: job.file.read_bytes() for job, _ in todo if job.file.exists()}
    record_submitted(folder, dict.fromkeys((job.name for job, _ in todo), ""))
    for job, _ in todo:
        job.mark_pending()
    tasks = [{"command": job.command, "config": to_plain(cfg), "job": asdict(job)} for job, cfg in todo]
    try:
        with redirect_stderr(io.StringIO()):  # submitit prints there what the error says too
            submitted = executor.map_array(SlurmJob(), tasks)
    except (FailedJobError, subprocess.CalledProcessError) as error:
        for job, _ in todo:
            job.file.unlink()
        for file, content in before.items():
            file.write_bytes(content)
        raise UserError(_refusal(str(error), settings)) from None
    record_submitted(folder, {job.name: one.job_id for (job, _), one in zip(todo, submitted, strict=True)})
    return str(submitted[0].job_id).partition("_")[0]


def _refusal(text: str, settings: dict[str, Any]) -> str:
    """Error text of sbatch without submitit's wrapper, with the known partitions if the partition is wrong."""
    marks = "sbatch: error:"
    lines = [line.partition(marks)[2].strip() for line in text.splitlines() if marks in line]
    reason = "; ".join(dict.fromkeys(lines)) or text.partition("\n")[0]
    if "partition" in reason.lower():
        names = slurm.partitions()
        return f"Slurm refuses hydra.launcher.partition={settings['partition']}: {reason}\nchoices: {', '.join(names)}"
    return f"Slurm refuses the jobs: {reason}"


def _cancel_hopeless(jobs: list[SweepJob]) -> None:
    """Cancel jobs that Slurm accepted but can never start: no node has, or no account may use, what they ask for."""
    hopeless = [job for job in jobs if job.status == PENDING and job.slurm and job.reason in NEVER_STARTS]
    if hopeless:
        slurm.cancel_jobs([str(job.slurm) for job in hopeless])
    for job in hopeless:
        job.status, job.code = FAILED, 2
        job.reason = f"Slurm cannot start it ({job.reason}): ask for less, or for another partition"
        job.write()


def watch_array(folder: Path, find: Callable[[], list[SweepJob]]) -> None:
    """Print each job's outcome until no job runs or waits. Ctrl-C stops the watching, not the jobs."""
    said: set[str] = set()
    try:
        while True:
            jobs = find()
            _cancel_hopeless(jobs)
            live = [job for job in jobs if job.status in (RUNNING, PENDING)]
            for job in jobs:
                if job not in live and not job.skipped and job.name not in said:
                    said.add(job.name)
                    say(f"job {job.number + 1}: {job.outcome}", sys.stderr)
            if not live:
                return
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        say(f"the jobs go on. To see their progress:  cnnbench report {folder}\n"
            f"to cancel them:  cnnbench report {folder} cancel=true", sys.stderr)  # fmt: skip
        raise
