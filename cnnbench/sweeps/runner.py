"""A sweep from its command line to its table: which jobs run, which are done already, what came of them."""

import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cnnbench.config import arguments, compose, expand, registry
from cnnbench.config.sections import Rerun
from cnnbench.runs import run_directory
from cnnbench.runtime import execute
from cnnbench.sweeps.jobs import (
    CUT,
    DONE,
    FAILED,
    PRUNED,
    SweepJob,
    cancel_unstarted,
    config_fingerprint,
    current_jobs,
    find_record,
    is_sweep_dir,
    job_name,
    jobs_summary,
    jobs_table,
    record_pending,
)
from cnnbench.sweeps.study_result import read_study_result
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say
from cnnbench.utils.errors import RunError, UserError


class JobRunner:
    """What Hydra calls with the configuration of each job of a sweep. It travels to other processes by pickle."""

    def __init__(self, command: str, sweep: Path) -> None:
        self.command, self.sweep, self.token = command, str(sweep), uuid.uuid4().hex
        self.count = 0
        self.names: set[str] = set()
        self.detached: str | None = None  # the job's id, where it was only submitted

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run one job here, unless it is done. Returns its primary metric for sweepers, which minimise: negated where
        higher is better."""
        job, config = self.prepare(cfg, compose.job_overrides(), self.count)
        self.count += 1
        if config is None:
            return None
        if not self.skips(job, config):
            say(f"job {job.number + 1}: {' '.join(job.overrides)}", sys.stderr)
            if run_job(job, config) in (exit_codes.INTERRUPTED, exit_codes.PREEMPTED):
                raise KeyboardInterrupt  # the user or the scheduler wants the machine back: no further jobs
        return job.cost

    def prepare(self, cfg: DictConfig, overrides: list[str], number: int) -> tuple[SweepJob, Any]:
        """The job's page in the books and its typed configuration; None, and the job failed, where there is none."""
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
        """Those of this command, as they are: run here, by others for it, or found to be run by another one."""
        return [job for job in current_jobs(Path(self.sweep)) if job.token == self.token or job.name in self.names]

    def skips(self, job: SweepJob, config: Any) -> bool:
        """Whether the job is left as an earlier command left it. What is to begin anew is cleared away here."""
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
        if not going_on:  # else whoever runs it writes
            job.write()
        return True


def run_job(job: SweepJob, config: Any) -> int:
    """Run a job in this process and write down how it ends; the exit code."""
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
    kind = "" if isinstance(error, UserError | RunError) else f"{type(error).__name__}: "
    return f"{kind}{error}".partition("\n")[0]


def run_sweep(command: str, args: list[str]) -> int:
    """All jobs of a sweep; the exit code: 1 when a job failed, 2 when all did for a mistake in their settings."""
    args = [*args, *run_directory.sweep_overrides(command, args, expand.swept_by_experiment(args))]
    folder = arguments.sweep_dir(args).expanduser()
    runner = JobRunner(command, folder)
    if (to_come := expand.sweep_jobs(args)) is not None:
        record_pending(folder, command, *to_come)
    code = None
    try:
        prepare_launcher(args)
        compose.launch(command, args, runner)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
        cancel_unstarted(folder)
    jobs = runner.jobs() if is_sweep_dir(folder) else []
    if runner.detached and code is None:
        print(runner.detached)
        say(f"how far they are:  cnnbench report {folder}", sys.stderr)
        return exit_codes.DONE
    return finish_sweep(command, jobs, runner.sweep, code)


def prepare_launcher(args: list[str]) -> None:
    """Make our launchers known to Hydra where one is asked for, and say what is missing for it."""
    choices = [arg.partition("=")[2] for arg in args if arg.startswith("hydra/launcher=")]
    if choices and choices[-1] == "slurm":
        from cnnbench.sweeps.slurm_array import check_slurm_launcher

        check_slurm_launcher(choices[-1])
    detach = any(arg.lower() == "sweep.detach=true" for arg in args)
    if detach and choices[-1:] in ([], ["basic"], ["local"], ["ray"]):
        raise UserError("sweep.detach=true leaves the jobs to a scheduler: it needs hydra/launcher=slurm")
    if choices or any(arg.startswith("hydra/sweeper=") for arg in args):
        from cnnbench.sweeps.launchers import register_plugins

        register_plugins()


def finish_sweep(command: str, jobs: list[SweepJob], sweep: str, code: int | None) -> int:
    """The table that ends a sweep."""
    if not jobs:
        return code or exit_codes.DONE
    print(jobs_table(jobs, jobs[0].format))
    print(f"{jobs_summary(jobs)} -> {sweep}", file=sys.stderr)
    if found := read_study_result(Path(sweep)):
        print("\n".join(found.lines()), file=sys.stderr)
    if code is not None:
        return next((job.code for job in reversed(jobs) if job.status == CUT), code)
    if registry.COMMANDS[command].after_sweep:
        done = [job.directory for job in jobs if job.status == DONE and job.directory]
        execute.load_command(command, "after_sweep")(Path(sweep), done)
    failed = [job for job in jobs if job.status == FAILED]
    if len(failed) == len(jobs) and all(job.code == exit_codes.MISTAKE for job in failed):
        return exit_codes.MISTAKE
    return exit_codes.FAILED if failed else exit_codes.DONE
