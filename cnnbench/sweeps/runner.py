"""Runs a sweep from its command line to its table: which jobs run, which are skipped, what their results are."""

import sys
from contextlib import nullcontext
from pathlib import Path

from cnnbench.config import arguments, compose, expand, registry
from cnnbench.runs import run_directory
from cnnbench.runtime import execute
from cnnbench.sweeps.job_runner import JobRunner
from cnnbench.sweeps.jobs import (
    CUT,
    DONE,
    FAILED,
    SweepJob,
    cancel_unstarted,
    is_sweep_dir,
    jobs_summary,
    jobs_table,
    lock_sweep,
    record_pending,
)
from cnnbench.sweeps.study_result import read_study_result
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import typed_path


def run_sweep(command: str, args: list[str]) -> int:
    """Run all jobs of a sweep. Returns the exit code: 1 if a job failed, 2 if all failed by a user's mistake."""
    args = [*args, *run_directory.sweep_overrides(command, args, expand.swept_by_experiment(args))]
    folder = typed_path(arguments.sweep_dir(args))
    runner = JobRunner(command, folder)
    code, to_come = None, expand.sweep_jobs(args)  # None: a search, which locks for itself, or a mistake
    with nullcontext() if to_come is None else lock_sweep(folder):
        if to_come is not None:
            record_pending(folder, command, *to_come)
        try:
            prepare_launcher(args)
            compose.launch(command, args, runner)
        except KeyboardInterrupt:
            code = exit_codes.INTERRUPTED
            cancel_unstarted(folder)
    jobs = runner.jobs() if is_sweep_dir(folder) else []
    if runner.detached and code is None:
        print(runner.detached)
        say(f"to see their progress:  cnnbench report {folder}", sys.stderr)
        return exit_codes.DONE
    return finish_sweep(command, jobs, runner.sweep, code)


def prepare_launcher(args: list[str]) -> None:
    """Register cnnbench's launchers with Hydra if one is asked for. Raises UserError if it cannot work here."""
    choices = [arg.partition("=")[2] for arg in args if arg.startswith("hydra/launcher=")]
    if choices and choices[-1] == "slurm":
        from cnnbench.sweeps.slurm_array import check_slurm_launcher

        check_slurm_launcher(choices[-1])
    detach = any(arg.lower() == "sweep.detach=true" for arg in args)
    if detach and choices[-1:] in ([], ["basic"], ["local"]):
        raise UserError("sweep.detach=true leaves the jobs to a scheduler: it needs hydra/launcher=slurm")
    if choices or any(arg.startswith("hydra/sweeper=") for arg in args):
        from cnnbench.sweeps.launchers import register_plugins

        register_plugins()


def finish_sweep(command: str, jobs: list[SweepJob], sweep: str, code: int | None) -> int:
    """Print the table of a sweep and draw its plots. Returns the exit code."""
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
