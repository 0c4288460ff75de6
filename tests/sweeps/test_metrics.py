"""Sweeps and searches by the metric of their jobs' task: here one where higher is better."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from cnnbench.sweeps.jobs import SweepJob, jobs_table
from cnnbench.sweeps.study import Search, SearchSettings, _measured, pruning_rule
from cnnbench.sweeps.study_result import FILE, StudyResult, read_study_result
from cnnbench.tasks.classification import METRICS as OF_CLASSIFICATION
from cnnbench.tasks.metric import as_data
from cnnbench.utils.errors import UserError
from tests.helpers.runs import SMALL, Ran
from tests.helpers.segmentation import METRICS, write_result

SPACE = {"optim.lr": FloatDistribution(0.001, 1, log=True)}


def job(sweep: Path, number: int, miou: float | None) -> SweepJob:
    """One that is done, or failed where miou is None."""
    name = f"lr_{number}"
    if miou is not None:
        write_result(sweep / name, miou)
    made = SweepJob(sweep=str(sweep), name=name, number=number, command="train", overrides=[f"optim.lr=0.{number}"],
               status="failed" if miou is None else "done", run_dir=str(sweep / name))  # fmt: skip
    made.write()
    return made


def plan(**more: Any) -> SearchSettings:
    usual = {"metric": None, "seed": 0, "pruner": "median", "warmup_trials": 1, "warmup_epochs": 0}
    return SearchSettings(**{**usual, "settings": ["train", "hydra.sweeper.metric=null"], **more})


def test_a_sweep_names_the_metrics_of_its_jobs(tmp_path: Path) -> None:
    made = [job(tmp_path, 1, 62.04), job(tmp_path, 2, None)]
    assert [one.outcome for one in made] == ["done, mean IoU 62.0 %", "failed"]
    first, second = json.loads(jobs_table(made, "json"))
    assert list(first) == ["job", "status", "miou", "pixel_error", "train_n", "seconds", "directory"]
    assert (first["miou"], list(second)) == (62.04, ["job", "status", "directory"])
    assert [one.cost for one in made] == [-62.04, None]  # sweepers minimise


def test_a_search_finds_the_highest_and_prunes_the_lowest(tmp_path: Path) -> None:
    one = Search(tmp_path, SPACE, plan(), retry=True)
    for number, miou in enumerate((50.0, 70.0, 60.0)):
        trial, told = one.ask(), pruning_rule(tmp_path, number, METRICS)
        assert told({"epoch": 1, "miou/val": miou}) == ""
        assert one.objective.name == "miou"  # known from the first epoch of the first trial
        one.tell(trial, job(tmp_path, number, miou))
    best = one.best()
    assert best and (best.number, one.value(best)) == (1, 70.0)
    one.ask()
    assert pruning_rule(tmp_path, 3, METRICS)({"epoch": 1, "miou/val": 55.0}) == (
        "mean IoU 55.0 % after epoch 1, where the median of 3 trials is 60.0 %"
    )
    one.ask()
    assert pruning_rule(tmp_path, 4, METRICS)({"epoch": 1, "miou/val": 65.0}) == ""
    one.close()


def test_a_metric_of_another_task_ends_the_first_trial(tmp_path: Path) -> None:
    one = Search(tmp_path, SPACE, plan(metric=OF_CLASSIFICATION[0].name), retry=True)
    one.ask()
    with pytest.raises(UserError, match=r"unknown metric 'top1_error'[^\n]*\nchoices: loss, miou, pixel_error"):
        pruning_rule(tmp_path, 0, METRICS)({"epoch": 1, "miou/val": 50.0})
    one.close()


def test_a_metric_that_these_data_have_not_ends_the_first_trial(tmp_path: Path) -> None:
    """As the top-5 error of two classes."""
    one = Search(tmp_path, SPACE, plan(metric=METRICS[1].name), retry=True)
    one.ask()
    with pytest.raises(UserError, match=f"hydra.sweeper.metric={METRICS[1].name}: of these data no {METRICS[1].label}"):
        pruning_rule(tmp_path, 0, METRICS)({"epoch": 1, "miou/val": 50.0})
    one.close()


@pytest.mark.parametrize("turn", [1, -1])
def test_the_primary_metric_by_its_name_and_null_are_the_same_search(tmp_path: Path, turn: int) -> None:
    """A search of before named it in its settings."""
    plans = [plan(), plan(metric="top1_error", settings=["train", "hydra.sweeper.metric=top1_error"])][::turn]
    for each in (*plans, plans[0]):
        Search(tmp_path, SPACE, each, retry=True).close()
    with pytest.raises(UserError, match=r"metric=top1_error there, hydra\.sweeper\.metric=loss here"):
        Search(tmp_path, SPACE, plan(metric="loss", settings=["train", "hydra.sweeper.metric=loss"]), retry=True)


FOUND = {"metric": "miou", "counts": {"done": 2, "pruned": 0, "failed": 0}, "job": 2, "value": 70.0,
         "images": "100 test images", "command": "cnnbench train", "importance": {"a": 1.0}}  # fmt: skip


def test_what_a_search_found_has_its_metric_with_it(tmp_path: Path) -> None:
    StudyResult(**FOUND, metrics=as_data(METRICS)).write(tmp_path)
    found = read_study_result(tmp_path)
    assert found and found.best == "best of 2 jobs: job 2, mean IoU 70.0 % on 100 test images"
    assert "the variance of the mean IoU each" in found.how
    file = tmp_path / FILE
    file.write_text(json.dumps({**FOUND, "metric": "top5_error"}))  # of before
    found = read_study_result(tmp_path)
    assert found and found.best.endswith("top-5 error 70.00 % on 100 test images")
    file.write_text(json.dumps(FOUND))  # a metric that nobody knows
    assert read_study_result(tmp_path) is None


@pytest.mark.usefixtures("no_pictures")
def test_a_search_by_a_metric_that_was_typed_goes_on_without(cnnbench: Callable[..., Ran]) -> None:
    command = ("train", "-m", "hydra/sweeper=tpe", "sweep.dir=s", "data.val_fraction=0.2", *SMALL,
               "optim.lr=tag(log,interval(1e-3,1))", "debug=fast")  # fmt: skip
    first = cnnbench(*command, "hydra.sweeper.n_trials=1", "hydra.sweeper.metric=top1_error")
    assert first.code == 0, first.err
    again = cnnbench(*command, "hydra.sweeper.n_trials=2")
    assert again.code == 0 and "2 jobs: 1 done, 1 skipped, 0 failed" in again.err, again.err
    other = cnnbench(*command, "hydra.sweeper.n_trials=3", "hydra.sweeper.metric=top5_error")
    assert other.code == 2 and "metric=top1_error there, hydra.sweeper.metric=top5_error here" in other.err


def test_a_search_may_choose_by_what_a_result_has_and_does_not_show() -> None:
    """Of equal classes the balanced error: that they are equal is only known when the first trial is over."""
    result = {
        "task": "classification",
        "metrics": [vars(OF_CLASSIFICATION[0])],
        "top1_error": 9.0,
        "balanced_error": 8.0,
    }
    assert [metric.name for metric in _measured(result)] == ["top1_error", "balanced_error"]
    assert [metric.name for metric in _measured({**result, "task": "none"})] == ["top1_error"]
