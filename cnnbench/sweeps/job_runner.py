"""Runs the jobs of a sweep in this process: prepares each, skips it if it is done, runs it, and records its end."""

import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cnnbench.config import compose, registry
from cnnbench.config.sections import Rerun
from cnnbench.runtime import execute
from cnnbench.sweeps.jobs import (
    DONE,
    FAILED,
    PRUNED,
    SweepJob,
    config_fingerprint,
    current_jobs,
    find_record,
    job_name,
)
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say
from cnnbench.utils.errors import RunError, UserError


class JobRunner:
    """Task function of Hydra, called with the configuration of each job of a sweep. Pickled for other processes."""

    def __init__(self, command: str, sweep: Path) -> None:
        self.command, self.sweep, self.token = command, str(sweep), uuid.uuid4().hex
        self.count = 0
        self.names: set[str] = set()
        self.detached: str | None = None  # Slurm job id, if the jobs were submitted and not awaited

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run one job here, unless it is done. Returns its cost, which sweepers minimise."""
        job, config = self.prepare(cfg, compose.job_overrides(), self.count)
        self.count += 1
        if config is None:
            return None
        if not self.skips(job, config):
            say(f"job {job.number + 1}: {' '.join(job.overrides)}", sys.stderr)
            if run_job(job, config) in (exit_codes.INTERRUPTED, exit_codes.PREEMPTED):
                raise KeyboardInterrupt  # the user or the scheduler stops the sweep: start no further jobs
        return job.cost

    def prepare(self, cfg: DictConfig, overrides: list[str], number: int) -> tuple[SweepJob, Any]:
        """Job record and typed configuration. If the configuration is invalid: None, and the job has failed."""
        job = SweepJob(
            sweep=self.sweep,
            name=job_name(overrides, cfg.sweep["keys"]),
            number=number if cfg.sweep["trial"] is None else cfg.sweep["trial"],
            command=self.command,
            overrides=[text for text in overrides if not text.startswith("sweep.")],
            token=self.token,
        )
        self.names.add(job.name)
        try:
            config = compose.typed_config(self.command, cfg, overrides)
        except Exception as error:
            job.begin()
            job.end(execute.report_error(error), str(error), None)
            return job, None
        job.fingerprint = config_fingerprint(config)
        job.format = config.format if isinstance(config.format, str) else config.format.value
        return job, config

    def jobs(self) -> list[SweepJob]:
        """Jobs of this command with their present status, also those that another command runs."""
        return [job for job in current_jobs(Path(self.sweep)) if job.token == self.token or job.name in self.names]

    def skips(self, job: SweepJob, config: Any) -> bool:
        """Whether to keep an earlier command's result. With sweep.rerun=all, deletes that result instead."""
        earlier = find_record(job)
        if earlier is None or not registry.COMMANDS[self.command].resumes or earlier.fingerprint != job.fingerprint:
            return False
        done = earlier.status == DONE and bool(earlier.result)
        rerun = config.sweep.rerun
        settled = done or earlier.status == PRUNED
        if settled and rerun is Rerun.all:
            shutil.rmtree(str(earlier.directory), ignore_errors=True)
            return False
        going_on = earlier.is_elsewhere
        if not (settled or going_on or (earlier.status == FAILED and rerun is Rerun.none)):
            return False
        job.__dict__ |= earlier.__dict__ | {"number": job.number, "token": job.token, "skipped": done}
        if not going_on:  # else the process that runs it writes the record
            job.write()
        return True


def run_job(job: SweepJob, config: Any) -> int:
    """Run a job in this process and record how it ends. Returns the exit code."""
    job.begin()
    reason, code = "", exit_codes.FAILED
    try:
        code = execute.run_command(job.command, config)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except Exception as error:
        code, reason = execute.report_error(error), error_line(error)
    job.end(code, reason, config.run.dir)
    return code


def error_line(error: Exception) -> str:
    """First line of an error, with its type unless it is a user's mistake or a failed run."""
    kind = "" if isinstance(error, UserError | RunError) else f"{type(error).__name__}: "
    return f"{kind}{error}".partition("\n")[0]
