"""Hydra sweeper `hydra/sweeper=tpe`: reads the search space and runs the trials as jobs of a sweep.

Trials run one after the other, or `n_jobs` at a time with hydra/launcher=local or slurm.
"""

import math
import shlex
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import FloatRange, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cnnbench.config import compose, registry
from cnnbench.config.sections import DataConfig, Rerun
from cnnbench.data.layout import find_layout
from cnnbench.runs import run_directory
from cnnbench.sweeps.jobs import DONE, SweepJob, job_name, read_jobs
from cnnbench.sweeps.study_result import StudyResult
from cnnbench.tasks import TASKS, find
from cnnbench.tasks.metric import LOSS, as_data
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say, warn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import typed_path

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

    from cnnbench.sweeps.job_runner import JobRunner
    from cnnbench.sweeps.study import Search

EXAMPLE = "'optim.lr=tag(log,interval(0.001,1))'"
LEAST = {"n_trials": 1, "n_jobs": 1, "seed": 0, "warmup_trials": 0, "warmup_epochs": 0}


class TpeSweeper(Sweeper):
    """`hydra/sweeper=tpe`."""

    __module__ = "hydra_plugins.cnnbench"
    runner: "JobRunner"

    def __init__(self, params: dict[str, str] | None, **settings: Any) -> None:
        self.params, self.settings = params or {}, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.base = hydra_context, config
        self.runner = task_function  # type: ignore[assignment]
        check_search(self.runner.command, self.settings, detach=config.sweep.detach)
        self.launch = (
            Plugins.instance()
            .instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)
            .launch
        )

    def sweep(self, arguments: list[str]) -> None:
        from cnnbench.sweeps.study import METRIC, Search, SearchSettings

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        typed = [f"{key}={value}" for key, value in self.params.items()] + arguments
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(typed)}
        space = {
            key: optuna_distribution(override, OmegaConf.select(self.base, key))
            for key, override in overrides.items()
            if override.is_sweep_override()
        }
        self.fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in overrides.items()
                      if not override.is_sweep_override()]  # fmt: skip
        if not space:
            raise UserError(f"hydra/sweeper=tpe has nothing to search: give a key an interval, as in {EXAMPLE}")
        if "seed" in space:
            raise UserError("seed cannot be searched: that would choose the luckiest seed; give one, as in seed=0")
        self.check_jobs(space)
        folder = Path(self.runner.sweep)
        settings = [self.runner.command, f"{METRIC}={self.settings['metric'] or 'null'}",
                    *sorted(override.input_line or key for key, override in overrides.items()
                            if not run_directory.is_free(key))]  # fmt: skip
        about = {key: value for key, value in self.settings.items() if key not in ("n_trials", "n_jobs")}
        if about["warmup_epochs"] is None:  # early errors predict the final error badly
            about["warmup_epochs"] = max(1, math.ceil(self.base.epochs / 3))
        plan = SearchSettings(**about, settings=settings)
        rerun = self.base.sweep.rerun
        search = Search(folder, space, plan, retry=rerun is not Rerun.none, anew=rerun is Rerun.all)
        for trial in search.ended():  # the table also shows the jobs of earlier commands
            if job := self.job(trial.params):
                job.token, job.skipped = self.runner.token, job.status == DONE
                job.write()
        try:
            self.run(search)
        finally:
            self.conclude(search)
            search.close()

    def run(self, search: "Search") -> None:
        total = self.settings["n_trials"]
        left = total - len(search.ended())
        while left > 0:
            trials = [search.ask() for _ in range(min(left, self.settings["n_jobs"]))]
            left -= len(trials)
            # Two trials with the same settings are the same job, which must not run twice at a time.
            distinct = list({str(trial.params): trial for trial in reversed(trials)}.values())[::-1]
            try:
                self.launch([self.overrides(trial) for trial in distinct], distinct[0].number)
            finally:
                jobs = [self.job(trial.params) for trial in trials]
                for trial, job in zip(trials, jobs, strict=True):
                    search.tell(trial, job)
            best = search.best()
            if best and (found := self.job(best.params)):
                what = search.objective.text(search.value(best))
                say(f"{total - left} of {total} trials: the best is job {found.number + 1}, {what}", sys.stderr)
            elif all(job and job.code == exit_codes.MISTAKE for job in jobs):
                break  # every trial has a user's mistake: further ones would have it too

    def overrides(self, trial: "Trial") -> list[str]:
        return [*self.fixed, *_trial_overrides(trial.params), f"sweep.trial={trial.number}"]

    def job(self, params: dict[str, Any]) -> SweepJob | None:
        """Job record of a trial; None if there is none."""
        name = job_name([*self.fixed, *_trial_overrides(params)], self.base.sweep["keys"])
        return next(iter(read_jobs(Path(self.runner.sweep), only=name)), None)

    def conclude(self, search: "Search") -> None:
        """Write the result of the search, for the end of the command and for `cnnbench report`."""
        best = search.best()
        job = self.job(best.params) if best else None
        if best is None or job is None:
            return
        result = job.result
        names = Counter(trial.state.name for trial in search.ended())
        counts = {"done": names["COMPLETE"], "pruned": names["PRUNED"], "failed": len(search.failed())}
        StudyResult(
            metric=search.objective.name,
            counts=counts,
            job=job.number + 1,  # as in the table, also if the same settings were tried twice
            value=search.value(best),
            images=plural(result.get("n", 0), f"{result.get('split', '')} image"),
            command=self.command_line(best.params),
            importance=search.importance(),
            metrics=as_data(search.metrics),
        ).write(Path(self.runner.sweep))

    def command_line(self, params: dict[str, Any]) -> str:
        """Command line of the best settings. With a test set it trains on all training images, holding out none."""
        kept = [text for text in self.fixed if not text.startswith(("sweep.", "run.", "hydra"))]
        if "data=folder" not in kept:
            kept = [text for text in kept if not text.startswith("data.val_fraction=")]
        return shlex.join(["cnnbench", self.runner.command, *kept, *_trial_overrides(params)])

    def check_jobs(self, space: "dict[str, BaseDistribution]") -> None:
        """Compose the two ends of the space before anything runs, so that mistakes are reported at once."""
        for end, at in (("low", 0), ("high", -1)):
            chosen = {key: getattr(by, end) if hasattr(by, end) else vars(by)["choices"][at]
                      for key, by in space.items()}  # fmt: skip
            overrides = [*self.fixed, *_trial_overrides(chosen)]
            cfg = self.context.config_loader.load_sweep_config(self.base, overrides)
            with open_dict(cfg):
                del cfg["hydra"]
            config = compose.typed_config(self.runner.command, cfg, overrides)
        if not config.debug and (advice := other_images(config.data)):
            warn("the search chooses by the images that the error is measured on, so the error of the best is too low: "
                 f"{advice}")  # fmt: skip


def other_images(cfg: DataConfig) -> str:
    """What to set so that the best of a search can be measured on images that did not choose it; empty where it can."""
    for_choice = "data.val_fraction=0.1 holds out training images for the choice"
    if cfg.val_fraction or cfg.test_fraction or cfg.packed:
        return ""
    if cfg.name != "folder" or not cfg.root:
        return for_choice
    try:
        layout = find_layout(typed_path(cfg.root))
    except UserError:  # each job says it
        return ""
    if layout.val is None:
        return for_choice if layout.test else ""  # else images are held out for the choice anyway
    return "" if layout.test else "data.test_fraction=0.1 keeps training images for evaluate split=test"


def optuna_distribution(override: Override, now: Any) -> "BaseDistribution":
    """Optuna distribution of a key, from Hydra's override grammar. now: the key's value without the search."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = float(sweep.start or 0), float(sweep.end or 0), "log" in sweep.tags
        if not low < high:
            raise UserError(f"{override.input_line}: an interval goes from the smaller to the larger value")
        if log and low <= 0:
            raise UserError(f"{override.input_line}: an interval on a logarithmic scale must begin above 0")
        whole = low.is_integer() and high.is_integer() and isinstance(now, int) and not isinstance(now, bool)
        return IntDistribution(int(low), int(high), log=log) if whole else FloatDistribution(low, high, log=log)
    if isinstance(sweep, RangeSweep):
        values = sorted(sweep.range())
        if not values:
            raise UserError(f"{override.input_line}: this range is empty")
        if isinstance(sweep.range(), FloatRange):
            return FloatDistribution(float(values[0]), float(values[-1]), step=abs(float(sweep.step)))
        return IntDistribution(int(values[0]), int(values[-1]), step=abs(int(sweep.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def check_search(command: str, settings: dict[str, Any], *, detach: bool) -> None:
    """Raise UserError if a setting of the search is wrong."""
    if not registry.COMMANDS[command].resumes:
        raise UserError(f"hydra/sweeper=tpe searches for settings of train and finetune, not of {command}")
    if find_spec("optuna") is None:
        raise UserError("optuna is not installed: pip install 'cnnbench[optuna]'")
    if detach:
        raise UserError("a search waits for its trials: it does not go with sweep.detach=true")
    for key, least in LEAST.items():
        value = settings[key]
        if value is None and key == "warmup_epochs":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"hydra.sweeper.{key}={value}: give a whole number from {least}")
    choices = {"pruner": ["median", "none"]}
    if settings["metric"] is not None:  # else no task is loaded, and torch with it
        choices["metric"] = [LOSS.name, *(metric.name for task in TASKS for metric in find(task).metrics)]
    for key, known in choices.items():
        if settings[key] not in known:
            raise unknown(f"hydra.sweeper.{key}", str(settings[key]), known)


def _trial_overrides(params: dict[str, Any]) -> list[str]:
    from cnnbench.sweeps.study import typed_value

    return [f"{key}={typed_value(value)}" for key, value in params.items()]
