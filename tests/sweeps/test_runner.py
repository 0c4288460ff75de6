"""Sweeps, job after job in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.sweeps.jobs import lock_sweep
from cnnbench.utils.files import read_json
from tests.helpers.runs import SMALL, Ran

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_sweep_over_what_does_not_name_runs_names_them_all_the_same(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("train", "-m", "patience=1,2", "sweep.dir=s", "epochs=1", "format=json", *SMALL)
    assert ran.code == 0, ran.err
    assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir() and path.name != ".sweep"]) == 2
    assert len(json.loads(ran.out)) == 2


def test_a_sweep_runs_every_job_and_skips_what_is_done(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "-m", "model=resnet8,plain20", "seed=0,1", "epochs=1", *SMALL)
    ran = cnnbench(*command)
    assert ran.code == 0, ran.err
    assert "4 jobs: 4 done, 0 failed" in ran.err
    (sweep,) = (tmp_path / "outputs/train").iterdir()
    jobs = [path for path in sweep.iterdir() if path.is_dir() and path.name != ".sweep"]
    assert len(jobs) == 4
    headlines = {path.name: read_json(path / "result.json") for path in jobs}
    assert {(h["model"], h["seed"]) for h in headlines.values()} == {
        (m, s) for m in ("resnet8", "plain20") for s in (0, 1)
    }
    again = cnnbench(*command)
    assert again.code == 0
    assert again.out.count("skipped: done before") == 4 and "4 jobs: 0 done, 4 skipped" in again.err
    assert len(list(sweep.iterdir())) == len(jobs) + 2  # and Hydra's multirun.yaml and the sweep's books


def test_a_failing_job_does_not_stop_the_others(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "-m", "batch_size=50,few,25", "epochs=1", "sweep.dir=s", *SMALL[:-1])
    assert ran.code == 1
    assert "3 jobs: 2 done, 1 failed" in ran.err
    assert "failed: batch_size=few" in ran.out


def test_a_second_sweep_in_the_same_directory_is_refused_while_the_first_runs(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    command = ("train", "-m", "seed=0,1", "max_steps=1", "sweep.dir=both")
    with lock_sweep(tmp_path / "both"):
        ran = cnnbench(*command)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "cnnbench: another process runs a sweep in both: wait for it, or give another sweep.dir\n"
    assert cnnbench(*command, *SMALL).code == 0  # afterwards it runs
