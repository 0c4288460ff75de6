"""A search with Optuna: what it tries, prunes, goes on with and finds, and what the report shows of it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cnnbench.sweeps import study_result, tpe_sweeper
from cnnbench.sweeps.jobs import SweepJob, current_jobs, read_jobs
from cnnbench.sweeps.study import FILE, NAME, Search, SearchSettings, _storage, pruning_rule
from cnnbench.tasks.classification import METRICS
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json
from tests.helpers.data import class_tree, data_config
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows, without_time

pytestmark = pytest.mark.usefixtures("no_pictures")
TPE = ("train", "-m", "hydra/sweeper=tpe", "sweep.dir=s", "data.val_fraction=0.2", *SMALL)
# On these few images a rate of 1e-9 learns nothing, and one of 0.1 to 1 does: which trial is hopeless is no accident.
LR = "optim.lr=tag(log,interval(1e-9,1))"


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=NAME, storage=_storage(folder))


def test_a_search_finds_prunes_and_is_reported(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = (*TPE, LR, "optim.momentum=0.5,0.9", "epochs=2", "hydra.sweeper.warmup_trials=2",
               "hydra.sweeper.warmup_epochs=0")  # fmt: skip
    ran = cnnbench(*command, "hydra.sweeper.n_trials=6")
    assert ran.code == 0, ran.err
    jobs = current_jobs(tmp_path / "s")
    done, pruned = ([job for job in jobs if job.status == status] for status in ("done", "pruned"))
    assert len(jobs) == 6 and len(done) >= 2 and len(done) + len(pruned) == 6
    assert pruned, [job.outcome for job in jobs]
    assert f"6 jobs: {len(done)} done, {len(pruned)} pruned, 0 failed" in ran.err
    for job in pruned:  # it leaves no result behind, and says why
        assert job.directory and not (job.directory / "result.json").exists() and len(rows(job.directory)) == 1
        assert read_json(job.directory / "status.json")["status"] == "pruned"
        assert "after epoch 1, where the median of" in job.reason and job.code == 0
    best = min(done, key=lambda job: job.result["top1_error"])
    trials = study(tmp_path / "s").get_trials()
    for job in jobs:  # the study knows what the books know
        trial = trials[job.number]
        assert f"optim.lr={trial.params['optim.lr']:.4g}" in job.overrides
        assert trial.state is (TrialState.COMPLETE if job in done else TrialState.PRUNED)
        assert job.directory and trial.intermediate_values[1] == rows(job.directory)[0]["top1_error/val"]
    found = study_result.read_study_result(tmp_path / "s")
    assert found and found.value == best.result["top1_error"] and found.job == best.number + 1
    assert math.isclose(sum(found.importance.values()), 1) and set(found.importance) == {"optim.lr", "optim.momentum"}
    assert next(text for text in best.overrides if text.startswith("optim.lr=")) in found.command.split()
    assert "data.val_fraction" not in found.command and found.command in ran.err and "importance: " in ran.err
    assert "warning: the search chooses" not in ran.err

    again = cnnbench(*command, "hydra.sweeper.n_trials=6")  # nothing is left to do
    assert again.code == 0 and f"0 done, {len(done)} skipped, {len(pruned)} pruned, 0 failed" in again.err
    assert "job 1:" not in again.err
    report = cnnbench("report", "s", "out=r.html")
    assert report.code == 0 and found.command in report.out and "importance" in report.out
    assert f"s: {len(done)}/6 done, {len(pruned)} pruned" in report.err
    page = (tmp_path / "r.html").read_text()
    assert 'id="search"' in page and 'alt="importance of the settings in s"' in page and found.best in page
    assert json.loads(cnnbench("report", "s", "format=json").out)["searches"]["s"]["job"] == found.job
    (tmp_path / "s/search.json").write_text('{"metric": 3}')
    assert "search.json is damaged" in cnnbench("report", "s").err

    anew = cnnbench(*command, "hydra.sweeper.n_trials=6", "sweep.rerun=all", "hydra.sweeper.pruner=none")
    assert anew.code == 0 and "6 jobs: 6 done, 0 failed" in anew.err, anew.err  # what was pruned as well


def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*TPE, LR, "optim.weight_decay=interval(0,0.01)", "epochs=2", "hydra.sweeper.warmup_trials=2",
               "hydra.sweeper.warmup_epochs=0", "hydra.sweeper.n_trials=4")  # fmt: skip
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)  # in the second epoch of the first job
        assert cnnbench(*command).code == 130
    assert [trial.state for trial in study(tmp_path / "s").get_trials()] == [TrialState.RUNNING]
    assert cnnbench(*command).code == 0
    assert cnnbench(*command, "sweep.dir=whole").code == 0
    ours, theirs = (study(tmp_path / folder).get_trials() for folder in ("s", "whole"))
    assert [trial.params for trial in ours] == [trial.params for trial in theirs]
    assert [trial.value for trial in ours] == [trial.value for trial in theirs]
    first, second = (read_jobs(tmp_path / folder) for folder in ("s", "whole"))
    assert [job.status for job in first] == [job.status for job in second]
    for one, other in zip(first, second, strict=True):
        assert one.directory and other.directory
        assert without_time(rows(one.directory)) == without_time(rows(other.directory))
    assert first[0].directory and second[0].directory
    assert_same_run(first[0].directory, second[0].directory)


def test_what_failed_is_tried_again_and_more_trials_can_be_had(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = (*TPE, "batch_size=50,51", "checkpoint.every=soon", "epochs=1")
    ran = cnnbench(*command, "hydra.sweeper.n_trials=3")
    assert ran.code == 2 and "1 job: 0 done, 1 failed" in ran.err, ran.err  # the others would make the same mistake
    command = (*TPE, "batch_size=50,51", "epochs=1")
    ran = cnnbench(*command, "hydra.sweeper.n_trials=2", "hydra.sweeper.seed=1")
    assert ran.code == 0, ran.err
    first = study(tmp_path / "s").get_trials()
    assert first[0].state is TrialState.FAIL and first[1].params == first[0].params
    assert first[1].state is TrialState.COMPLETE
    assert cnnbench(*command, "hydra.sweeper.n_trials=3").code == 0
    assert len(study(tmp_path / "s").get_trials()) == 4
    ran = cnnbench(*command, "hydra.sweeper.n_trials=3", "label_smoothing=0.1")
    assert ran.code == 2 and "nothing there, label_smoothing=0.1 here" in ran.err, ran.err
    ran = cnnbench(*command, "hydra.sweeper.n_trials=1", "sweep.rerun=all", "hydra.sweeper.metric=loss")
    assert ran.code == 0, ran.err
    (only,) = study(tmp_path / "s").get_trials()
    assert only.value == read_jobs(tmp_path / "s", only=job_of(tmp_path / "s").name)[0].result["loss"]


def job_of(folder: Path) -> SweepJob:
    found = study_result.read_study_result(folder)
    assert found
    return next(job for job in read_jobs(folder) if job.directory and job.result.get("loss") == found.value)


def test_trials_at_a_time(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """In processes of the local launcher, which report to the same study."""
    ran = cnnbench(*TPE, LR, "debug=fast", "hydra/launcher=local", "hydra.launcher.jobs=2", "hydra.sweeper.n_jobs=2",
                   "hydra.sweeper.n_trials=2")  # fmt: skip
    assert ran.code == 0 and "2 jobs: 2 done, 0 failed" in ran.err, ran.err
    assert all(trial.state is TrialState.COMPLETE for trial in study(tmp_path / "s").get_trials())


def plan(**more: Any) -> SearchSettings:
    usual = {"metric": "top1_error", "seed": 0, "pruner": "median", "warmup_trials": 1, "warmup_epochs": 1}
    return SearchSettings(**{**usual, "settings": ["train"], **more})


def test_the_judge(tmp_path: Path) -> None:
    """It reports each epoch, spares the first ones, and ends what is worse than the median of those that are done."""
    space = {"optim.lr": FloatDistribution(0.001, 1, log=True)}
    one = Search(tmp_path, space, plan(), retry=True)
    for error in (10.0, 20.0):
        trial, told = one.ask(), pruning_rule(tmp_path, len(one.ended()), METRICS)
        first, second = (told({"epoch": epoch, "top1_error/val": error}) for epoch in (1, 2))
        assert not first and bool(second) == (error == 20.0)
        one.study.tell(trial, error)
    trial, told = one.ask(), pruning_rule(tmp_path, 2, METRICS)
    assert told({"epoch": 1, "top1_error/val": 99.0}) == ""
    assert told({"epoch": 2, "top1_error/val": 16.0}) == (
        "top-1 error 16.00 % after epoch 2, where the median of 2 trials is 15.00 %"
    )
    assert one.study.get_trials()[2].intermediate_values == {1: 99.0, 2: 16.0}
    one.study.tell(trial, state=TrialState.PRUNED)
    assert told({"epoch": 3, "top1_error/val": 99.0}) == ""  # it is done again by hand: that is nobody's business
    with pytest.raises(UserError, match="another process runs a sweep"):
        Search(tmp_path, space, plan(), retry=True)
    one.close()
    other = Search(tmp_path, space, plan(pruner="none"), retry=True)
    other.ask()
    assert pruning_rule(tmp_path, 3, METRICS)({"epoch": 2, "top1_error/val": 99.0}) == ""
    other.close()
    (tmp_path / FILE).unlink()
    assert (
        pruning_rule(tmp_path, 3, METRICS)({"epoch": 2, "top1_error/val": 99.0}) == ""
    )  # a warning, and the training goes on


def test_importance_tells_what_matters(tmp_path: Path) -> None:
    space = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    one = Search(tmp_path, space, plan(), retry=True)
    for number in range(30):
        trial = one.ask()
        if number % 3:
            one.study.tell(trial, 10 * trial.params["a"] + 0.1 * trial.params["b"])
        else:  # pruned, with the value that it had
            trial.report(10 * trial.params["a"], 1)
            one.study.tell(trial, state=TrialState.PRUNED)
    shares = one.importance()
    assert list(shares) == ["a", "b"] and shares["a"] > 0.8 and math.isclose(sum(shares.values()), 1)
    one.close()


@pytest.mark.parametrize(
    ("override", "now", "expected"),
    [
        ("optim.lr=tag(log,interval(0.001,1))", 0.1, FloatDistribution(0.001, 1, log=True)),
        ("optim.lr=interval(0,1)", 0.1, FloatDistribution(0, 1)),
        ("epochs=interval(2,8)", 5, IntDistribution(2, 8)),
        ("epochs=range(2,9,3)", 5, IntDistribution(2, 8, step=3)),
        ("ema=range(0.5,1,0.25)", None, FloatDistribution(0.5, 0.75, step=0.25)),
        ("model=resnet20,plain20", None, CategoricalDistribution(["resnet20", "plain20"])),
        ("augment.flip=choice(true,false)", None, CategoricalDistribution(["True", "False"])),
    ],
)
def test_the_space_is_written_as_hydra_has_it(override: str, now: Any, expected: Any) -> None:
    found = tpe_sweeper.optuna_distribution(OverridesParser.create().parse_override(override), now)
    if isinstance(expected, CategoricalDistribution):
        assert isinstance(found, CategoricalDistribution)
        assert [str(choice).lower() for choice in found.choices] == [choice.lower() for choice in expected.choices]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("optim.lr=0.1",), "nothing to search: give a key an interval, as in 'optim.lr=tag(log,interval(0.001,1))'"),
        (("optim.lr=interval(1,0.1)",), "an interval goes from the smaller to the larger value"),
        (("optim.lr=tag(log,interval(0,1))",), "an interval on a logarithmic scale must begin above 0"),
        (("epochs=range(5,5)",), "this range is empty"),
        (("optim.lrr=interval(0,1)",), "Did you mean 'optim.lr'?"),
        (("optim.lr=interval(-1,1)",), "optim.lr"),
        (("seed=0,1",), "that would choose the luckiest seed"),
        (
            ("optim.lr=interval(0,1)", "hydra.sweeper.n_trials=0"),
            "hydra.sweeper.n_trials=0: give a whole number from 1",
        ),
        (
            ("optim.lr=interval(0,1)", "hydra.sweeper.n_trials=few"),
            "hydra.sweeper.n_trials=few: give a whole number",
        ),
        (
            ("optim.lr=interval(0,1)", "hydra.sweeper.direction=up"),
            "choices: hydra.sweeper.metric, hydra.sweeper.n_jobs",
        ),
        (("optim.lr=interval(0,1)", "hydra.sweeper.n_trial=3"), "Did you mean 'hydra.sweeper.n_trials'?"),
        (("optim.lr=interval(0,1)", "hydra.sweeper.metric=top1_eror"), "Did you mean 'top1_error'?"),
        (("optim.lr=interval(0,1)", "hydra.sweeper.pruner=mean"), "choices: median, none"),
    ],
)
def test_bad_input(cnnbench: Callable[..., Ran], tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = cnnbench("train", "-m", "hydra/sweeper=tpe", "sweep.dir=s", *arguments)
    assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) <= 3, ran.err
    assert not (tmp_path / "s").exists()


def test_without_optuna(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe_sweeper, "find_spec", lambda name: None)
    ran = cnnbench("train", "-m", "hydra/sweeper=tpe", LR)
    assert ran.code == 2 and ran.err == "cnnbench: optuna is not installed: pip install 'cnnbench[optuna]'\n"
    ran = cnnbench("report", "-m", "hydra/sweeper=tpe", "sort=seconds,time")
    assert ran.code == 2 and "searches for settings of train and finetune" in ran.err


def test_a_search_does_not_detach() -> None:
    with pytest.raises(UserError, match=r"does not go with sweep\.detach=true"):
        tpe_sweeper.check_search("train", {}, detach=True)


def test_a_choice_by_the_test_images_is_warned_of(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "-m", "hydra/sweeper=tpe", LR, "hydra.sweeper.n_trials=1", "checkpoint.every=soon")
    assert ran.code == 2 and "warning: the search chooses by the images that the error is measured on" in ran.err


def test_what_keeps_the_choice_and_the_measurement_apart(tmp_path: Path) -> None:
    def advice(**keys: Any) -> str:
        return tpe_sweeper.other_images(data_config("folder", root=tmp_path, **keys))

    for_choice = "data.val_fraction=0.1 holds out training images for the choice"
    assert tpe_sweeper.other_images(data_config("digits")) == for_choice
    assert tpe_sweeper.other_images(data_config("digits", val_fraction=0.1)) == ""
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"cat": 1, "dog": 1})
    assert advice() == for_choice
    class_tree(tmp_path / "val", {"cat": 1, "dog": 1})
    assert advice() == ""
    shutil.rmtree(tmp_path / "test")
    assert advice() == "data.test_fraction=0.1 keeps training images for evaluate split=test"
    assert advice(test_fraction=0.1) == ""
    shutil.rmtree(tmp_path / "val")
    assert advice() == ""  # images are held out for the choice anyway


@pytest.mark.parametrize("at_a_time", [(), ("hydra.sweeper.n_jobs=4", "hydra/launcher=local", "hydra.launcher.jobs=2")])
def test_settings_tried_twice_are_one_job(
    cnnbench: Callable[..., Ran], tmp_path: Path, at_a_time: tuple[str, ...]
) -> None:
    """It is trained once, and has the number that the table gives it."""
    ran = cnnbench(*TPE, "optim.nesterov=true,false", "epochs=1", "hydra.sweeper.n_trials=4", *at_a_time)
    assert ran.code == 0, ran.err
    jobs, found = current_jobs(tmp_path / "s"), study_result.read_study_result(tmp_path / "s")
    assert 1 <= len(jobs) <= 2 and all(job.status == "done" for job in jobs)
    assert [trial.state for trial in study(tmp_path / "s").get_trials()] == [TrialState.COMPLETE] * 4
    best = min(jobs, key=lambda job: job.result["top1_error"])
    assert found and found.value == best.result["top1_error"]
    assert next(job for job in jobs if job.number == found.job - 1).result["top1_error"] == found.value
