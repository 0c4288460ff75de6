"""Hydra launchers: `local` runs several jobs at a time on this machine, `slurm` submits them to Slurm.

Each job's configuration is composed here, so that a mistake is reported before anything is submitted. It travels to
the job as plain data.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cnnbench.sweeps.jobs import SweepJob, find_record
from cnnbench.sweeps.local import run_local
from cnnbench.sweeps.slurm_array import check_slurm_launcher, submit_array, watch_array
from cnnbench.sweeps.tpe_sweeper import TpeSweeper
from cnnbench.utils.console import say

if TYPE_CHECKING:
    from cnnbench.sweeps.job_runner import JobRunner


PACKAGE = "hydra_plugins.cnnbench"


class _Launcher(Launcher):
    runner: "JobRunner"

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config
        self.runner = task_function  # type: ignore[assignment]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        jobs, todo = [], []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            task_overrides = OmegaConf.to_container(cfg.hydra.overrides.task)
            with open_dict(cfg):
                del cfg["hydra"]
            job, config = self.runner.prepare(cfg, list(task_overrides), number)  # type: ignore[arg-type]
            jobs.append(job)
            if config is not None and not self.runner.skips(job, config):
                todo.append((job, config))
        if todo:
            self.run(todo)
        self.finish()
        return [_job_return(find_record(job) or job) for job in jobs]

    def run(self, todo: list[tuple[SweepJob, Any]]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Called after the jobs ran, also if there was none to run."""


def _job_return(job: SweepJob) -> JobReturn:
    """Return value for a sweeper, which minimises the job's cost. Failures are in the job records."""
    returned = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
    returned.return_value = job.cost
    return returned


class LocalLauncher(_Launcher):
    """`hydra/launcher=local`."""

    __module__ = PACKAGE

    def run(self, todo: list[tuple[SweepJob, Any]]) -> None:
        for job, _ in todo:
            job.mark_pending()
        if run_local(todo, self.settings["jobs"]):
            raise KeyboardInterrupt


class SlurmLauncher(_Launcher):
    """`hydra/launcher=slurm`: takes the settings of submitit and of sbatch."""

    __module__ = PACKAGE

    def run(self, todo: list[tuple[SweepJob, Any]]) -> None:
        check_slurm_launcher("slurm")
        folder = Path(self.runner.sweep)
        array = submit_array(todo, self.settings, folder)
        say(f"Slurm job {array}: {len(todo)} in {folder}", sys.stderr)
        if todo[0][1].sweep.detach:
            self.runner.detached = array

    def finish(self) -> None:
        folder = Path(self.runner.sweep)
        if not self.config.sweep.detach:
            watch_array(folder, self.runner.jobs)


def register_plugins() -> None:
    """Register the launchers and the sweeper. Hydra imports plugins from its package `hydra_plugins`, so this module
    is entered there under a second name."""
    try:
        package = import_module(PACKAGE.partition(".")[0])
    except ImportError:  # no plugin is installed
        package = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package.cnnbench = sys.modules[PACKAGE] = sys.modules[__name__]  # type: ignore[attr-defined]
    for plugin in (LocalLauncher, SlurmLauncher, TpeSweeper):
        Plugins.instance().register(plugin)
