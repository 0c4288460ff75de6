"""Search for the best settings: Optuna's study in `SWEEP/study.log`, its trials, pruning and best trial.

The only file that calls Optuna. A trial is a job of the sweep. While it trains, on whatever machine, it reports its
metric to the study after each epoch, and `pruning_rule` says whether to stop it early. The study minimises costs: a
metric where higher is better is negated.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnbench.sweeps import study_result
from cnnbench.sweeps.jobs import DONE, FAILED, PRUNED, SweepJob, lock_sweep
from cnnbench.tasks import TASKS, find, metrics_of
from cnnbench.tasks.metric import Metric, as_data, named
from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

FILE, NAME = "study.log", "cnnbench"
METRIC = "hydra.sweeper.metric"
ENOUGH = 4  # trials needed to compute importances
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search; stored in the study under `plan`."""

    metric: str | None  # None: the task's primary one
    seed: int
    pruner: str
    warmup_trials: int
    warmup_epochs: int
    settings: list[str]  # the command, its search space and the settings that all trials share


class Search:
    """Study of a sweep, across all commands that continue it. A lock lets one process at a time open it."""

    def __init__(
        self,
        sweep: Path,
        space: Mapping[str, BaseDistribution],
        plan: SearchSettings,
        *,
        retry: bool,
        anew: bool = False,
    ) -> None:
        """retry: try settings again that failed before; anew: delete the old study first."""
        self.space, self.plan = space, plan
        self._lock = lock_sweep(sweep)
        if anew:  # only now: the lock keeps other processes out
            for file in (FILE, study_result.FILE):
                (sweep / file).unlink(missing_ok=True)
        try:
            self.study = optuna.create_study(study_name=NAME, storage=_storage(sweep), load_if_exists=True)
        except (ValueError, KeyError, AssertionError):
            self.close()
            raise UserError(f"{sweep / FILE} is damaged: delete it to begin the search anew") from None
        before = self._by_name(self.study.user_attrs.get("plan", {}).get("settings", plan.settings))
        now = self._by_name(plan.settings)
        if before != now:
            self.close()
            there, here = (" ".join(sorted({*one} - {*other}) or ["nothing"]) for one, other in
                           ((before, now), (now, before)))  # fmt: skip
            raise UserError(f"{sweep} holds a search with other settings: {there} there, {here} here\n"
                            "give another sweep.dir")  # fmt: skip
        self.study.set_user_attr("plan", asdict(plan))
        self._cut = [trial for trial in self.study.get_trials() if trial.state is TrialState.RUNNING]
        self._failed = self.failed() if retry else []

    def close(self) -> None:
        self._lock.close()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of the task, as recorded by the first trial; before that, those of classification."""
        return metrics_of(self.study.user_attrs)

    @property
    def objective(self) -> Metric:
        """Metric that the search optimises. Raises UserError if the task has no such metric."""
        return named(self.plan.metric, self.metrics)

    def _by_name(self, settings: list[str]) -> list[str]:
        """Settings with the primary metric's name in place of null: both ask for the same search."""
        return [f"{METRIC}={self.metrics[0].name}" if text == f"{METRIC}=null" else text for text in settings]

    def ended(self) -> list[FrozenTrial]:
        """Trials that are done or pruned."""
        return [trial for trial in self.study.get_trials() if trial.state in ENDED]

    def failed(self) -> list[dict[str, Any]]:
        """Settings that failed and have not succeeded since, each once."""
        trials, found = self.study.get_trials(), list[dict[str, Any]]()
        others = [trial.params for trial in trials if trial.state is not TrialState.FAIL]
        for trial in trials:
            if trial.state is TrialState.FAIL and trial.params not in [*others, *found]:
                found.append(trial.params)
        return found

    def ask(self) -> Trial:
        """Next trial: first the interrupted ones, then those that failed before, then new settings."""
        cut = self._cut.pop(0) if self._cut else None
        # Each trial has its own random stream, so an interrupted search continues as it would have without the cut.
        number = cut.number if cut else len(self.study.get_trials())
        seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.plan.warmup_trials)
        if not cut and self._failed:
            self.study.enqueue_trial(self._failed.pop(0))
        trial = Trial(self.study, cut._trial_id) if cut else self.study.ask()
        for key, distribution in self.space.items():
            _suggest(trial, key, distribution)
        return trial

    def tell(self, trial: Trial, job: SweepJob | None) -> None:
        """Record a trial's outcome. An interrupted trial stays open, so that the same command resumes it."""
        result = job.result if job else {}
        if result:
            _note_metrics(self.study, _measured(result))
        value = result.get(self.objective.name) if result else None
        if value is not None and np.isfinite(value):
            self.study.tell(trial, self.objective.cost(value))
        elif job and job.status == PRUNED:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif job and job.status in (FAILED, DONE):
            self.study.tell(trial, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        done = self.study.get_trials(states=(TrialState.COMPLETE,))
        return min(done, key=lambda trial: trial.value or 0.0, default=None)

    def value(self, trial: FrozenTrial) -> float:
        """Metric of a finished trial."""
        return self.objective.cost(trial.value or 0.0)

    def importance(self) -> dict[str, float]:
        """Share of each key in the variance of the metric, the largest first; empty if it cannot be computed.

        Pruned trials count with their last value. Without them, a setting with many bad values would look harmless.
        """
        known = [trial for trial in self.ended() if trial.value is not None and np.isfinite(trial.value)]
        values = {trial.value for trial in known}
        if len(known) < ENOUGH or len(values) < 2 or len(self.space) < 2:
            return {}
        whole = optuna.create_study()
        whole.add_trials([optuna.create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)
                          for trial in known])  # fmt: skip
        try:
            return dict(get_param_importances(whole, evaluator=FanovaImportanceEvaluator(seed=0)))
        except (RuntimeError, ValueError):  # fANOVA's trees find no difference
            return {}


def typed_value(value: Any) -> str:
    """Value as typed on the command line; floats with four digits, which is legible and exact enough."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pruning_rule(sweep: Path, number: int, metrics: Sequence[Metric]) -> Callable[[dict[str, Any]], str]:
    """Function for the training of a trial, whose task has these metrics: takes an epoch's row, returns why to stop
    early, or ""."""
    memory: list[tuple[optuna.Study, SearchSettings, Trial]] = []

    def verdict(line: dict[str, Any]) -> str:
        try:
            if not memory:
                memory.append(_trial(sweep, number))
                _note_metrics(memory[0][0], metrics)
            study, plan, trial = memory[0]
            objective = named(plan.metric, metrics)
            if f"{objective.name}/val" not in line:
                raise UserError(f"{METRIC}={objective.name}: of these data no {objective.label} is measured")
            epoch, value = int(line["epoch"]), float(line[f"{objective.name}/val"])
            seen = study.get_trials(deepcopy=False)[number]
            if seen.state.is_finished():  # the user runs the trial again, outside the search
                return ""
            if epoch not in seen.intermediate_values:
                trial.report(objective.cost(value), epoch)
            if not trial.should_prune():
                return ""
            others = [other.intermediate_values[epoch] for other in study.get_trials(states=(TrialState.COMPLETE,))
                      if epoch in other.intermediate_values]  # fmt: skip
            return (f"{objective.text(value)} after epoch {epoch}, where the median of {plural(len(others), 'trial')} "
                    f"is {objective.amount(objective.cost(median(others)))}")  # fmt: skip
        except UserError:  # a metric that the task does not have
            raise
        except (OSError, LookupError, ValueError, RuntimeError, optuna.exceptions.OptunaError) as error:
            warn(f"{sweep / FILE} cannot be read ({error}): this trial goes on without pruning")
            return ""

    return verdict


def _trial(sweep: Path, number: int) -> tuple[optuna.Study, SearchSettings, Trial]:
    storage = _storage(sweep)
    study = optuna.load_study(study_name=NAME, storage=storage)
    plan = SearchSettings(**study.user_attrs["plan"])
    pruner = optuna.pruners.MedianPruner(plan.warmup_trials, plan.warmup_epochs + 1)
    study.pruner = pruner if plan.pruner == "median" else optuna.pruners.NopPruner()
    return study, plan, Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def _measured(result: dict[str, Any]) -> list[Metric]:
    """Metrics of a trial's result, those that it has but does not show too: of equal classes the balanced error."""
    shown, task = metrics_of(result), str(result.get("task"))
    every = find(task).metrics if task in TASKS else ()
    return [*shown, *(metric for metric in every if metric not in shown and metric.name in result)]


def _note_metrics(study: optuna.Study, metrics: Sequence[Metric]) -> None:
    """Record the metrics of the task in the study, once: the searching process learns them from the trials."""
    if "metrics" not in study.user_attrs:
        study.set_user_attr("metrics", as_data(metrics))


def _suggest(trial: Trial, key: str, by: BaseDistribution) -> None:
    if isinstance(by, CategoricalDistribution):
        trial.suggest_categorical(key, by.choices)
    elif isinstance(by, IntDistribution):
        trial.suggest_int(key, by.low, by.high, step=by.step, log=by.log)
    elif isinstance(by, FloatDistribution):
        trial.suggest_float(key, by.low, by.high, step=by.step, log=by.log)


def _storage(sweep: Path) -> JournalStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(str(sweep / FILE)))
