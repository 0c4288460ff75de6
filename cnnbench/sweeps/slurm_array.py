"""Jobs of a sweep as one array of Slurm's, through submitit: handed in, run there, watched from here."""

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
POLL_SECONDS = 2.0  # seconds
NEVER_STARTS = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "InvalidAccount",
            "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed")  # fmt: skip


def check_slurm_launcher(choice: str) -> None:
    """UserError where the launcher cannot work here."""
    if find_spec("submitit") is None or find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise UserError(f"hydra/launcher={choice} needs submitit: pip install 'cnnbench[slurm]'")
    if not slurm.is_available():
        raise UserError(
            f"hydra/launcher={choice}: there is no Slurm on this machine (no sbatch); "
            "hydra/launcher=local runs several jobs at a time here"
        )


class SlurmJob:
    """What runs on a node: submitit calls it in each process of a job, and asks it for what is to be run again."""

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
    """Hand the jobs in; the id of their array. UserError where Slurm refuses them: the books are then as they were."""
    import submitit
    from submitit.core.utils import FailedJobError

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
        with redirect_stderr(io.StringIO()):  # where submitit repeats what the error says too
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
    """What sbatch says, without submitit's account of it; with the partitions there are where it is about that."""
    marks = "sbatch: error:"
    lines = [line.partition(marks)[2].strip() for line in text.splitlines() if marks in line]
    reason = "; ".join(dict.fromkeys(lines)) or text.partition("\n")[0]
    if "partition" in reason.lower():
        names = slurm.partitions()
        return f"Slurm refuses hydra.launcher.partition={settings['partition']}: {reason}\nchoices: {', '.join(names)}"
    return f"Slurm refuses the jobs: {reason}"


def _cancel_hopeless(jobs: list[SweepJob]) -> None:
    """End jobs that Slurm took, but that would wait for ever: what they ask for is nowhere, or not for them."""
    hopeless = [job for job in jobs if job.status == PENDING and job.slurm and job.reason in NEVER_STARTS]
    if hopeless:
        slurm.cancel_jobs([str(job.slurm) for job in hopeless])
    for job in hopeless:
        job.status, job.code = FAILED, 2
        job.reason = f"Slurm would never start it ({job.reason}): ask for less, or for another partition"
        job.write()


def watch_array(folder: Path, find: Callable[[], list[SweepJob]]) -> None:
    """Say what becomes of the jobs until none runs or waits. Ctrl-C ends the watching, not the jobs."""
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
        say(f"the jobs go on. How far they are:  cnnbench report {folder}\n"
            f"to end them:  cnnbench report {folder} cancel=true", sys.stderr)  # fmt: skip
        raise
