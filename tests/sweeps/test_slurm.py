"""Sweeps and trainings of several processes under a real Slurm: `.ci/run` brings one up where it can."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cnnbench.runtime import slurm
from cnnbench.sweeps import jobs
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers.processes import held, until
from tests.helpers.runs import SMALL, Ran, assert_same_run

pytestmark = pytest.mark.usefixtures("no_pictures")
LAUNCH = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=20")
COMMAND = (
    "train",
    "-m",
    "seed=0,1,2,3",
    "epochs=3",
    "checkpoint.every=10",
    "sweep.dir=s",
    *SMALL,
    "data.fraction=0.3",
)


@pytest.fixture(scope="module", autouse=True)
def _slurm() -> Iterator[None]:
    if shutil.which("sbatch") is None:
        pytest.skip("there is no Slurm on this machine (no sbatch)")
    asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=60)
    if asked.returncode:
        pytest.skip(f"Slurm does not answer: {asked.stderr.strip()}")
    pytest.importorskip("submitit")
    yield


def state(folder: Path) -> dict[str, jobs.SweepJob]:
    return {job.overrides[0]: job for job in jobs.current_jobs(folder)}


def restart(job: str) -> None:
    """Slurm lets a job that was queued again wait for two minutes."""
    until(f"{job} waits", lambda: (slurm.queued_jobs([job]) or {}).get(job, ("", ""))[0] == "PENDING")
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True, timeout=60)


def test_a_sweep_on_two_nodes_whatever_happens_to_its_jobs(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four jobs one is left alone, one asked to make room by USR2, one queued again by Slurm, one killed."""
    folder = tmp_path / "s"

    def trained(seed: str) -> bool:
        return any(folder.glob(f"*-{seed.replace('=', '_')}-*/metrics.jsonl"))

    with held(tmp_path, monkeypatch):
        ran = cnnbench(*COMMAND, *LAUNCH, "sweep.detach=true")
        assert ran.code == 0, ran.err
        array = ran.out.strip()
        assert array.isdigit() and "cnnbench report s" in ran.err
        assert "0/4 done" in cnnbench("report", "s").err
        until("the first two train", lambda: trained("seed=0") and trained("seed=1"))
        subprocess.run(["scancel", "--signal=USR2", str(state(folder)["seed=0"].slurm)], check=True, timeout=60)
        subprocess.run(["scontrol", "requeue", str(state(folder)["seed=1"].slurm)], check=True, timeout=60)
        for seed in ("seed=0", "seed=1"):
            restart(str(state(folder)[seed].slurm))
        until("the third trains", lambda: trained("seed=2"))
        os.kill(state(folder)["seed=2"].process["pid"], signal.SIGKILL)
    until("the others end", lambda: not slurm.queued_jobs([array]))
    report = cnnbench("report", "s")
    assert report.code == 1
    assert "3/4 done, 1 failed: seed=2: it ended without a result (Slurm: FAILED" in report.err, report.err
    again = cnnbench(*COMMAND, *LAUNCH)  # this time watched
    assert again.code == 0, again.err
    assert "4 jobs: 1 done, 3 skipped, 0 failed" in again.err
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a job of one core has
    for seed in ("seed=0", "seed=1", "seed=2"):
        assert cnnbench("train", seed, "epochs=3", f"run.dir=whole-{seed}", *SMALL, "data.fraction=0.3").code == 0
        run = tmp_path / str(state(folder)[seed].run_dir)
        assert_same_run(run, tmp_path / f"whole-{seed}")
        assert (run / "log.txt").read_text().count("going on from") >= 1
    torch.set_num_threads(threads)


def test_a_job_of_two_processes_on_each_of_two_nodes(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    small = [text for text in SMALL if not text.startswith("batch_size")]
    command = ("train", "-m", "seed=0", "epochs=2", "batch_size=48", "sweep.dir=s", *small)
    ran = cnnbench(*command, *LAUNCH, "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2")
    logs = "".join(path.read_text() for path in (tmp_path / "s/.sweep/slurm").glob("**/*.err"))
    assert ran.code == 0, ran.err + logs
    (job,) = jobs.current_jobs(tmp_path / "s")
    result = read_json(tmp_path / str(job.run_dir) / "result.json")
    assert result["n"] == 359 and result["steps"] == 12
    assert "4 x " in (tmp_path / str(job.run_dir) / "log.txt").read_text()
    assert checkpoint.load(tmp_path / str(job.run_dir) / "checkpoints/last.pt")["progress"]["epoch"] == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hydra.launcher.partition=nowhere", "choices: high, main"),
        ("hydra.launcher.gpus_per_node=64", "Slurm refuses the jobs"),
        ("hydra.launcher.cpus_per_task=5000", "Slurm"),
    ],
)
def test_what_slurm_refuses_gets_a_sentence(
    cnnbench: Callable[..., Ran], tmp_path: Path, setting: str, said: str
) -> None:
    ran = cnnbench("train", "-m", "seed=0,1", "sweep.dir=s", *SMALL, *LAUNCH, setting)
    assert ran.code == 2 and said in ran.err + ran.out, ran.err
    assert not slurm.queued_jobs([job.slurm for job in jobs.current_jobs(tmp_path / "s") if job.slurm])


def test_a_sweep_is_cancelled(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench(*COMMAND, *LAUNCH, "epochs=5000", "hydra.launcher.array_parallelism=1", "sweep.detach=true")
    array = ran.out.strip()
    until("one runs", lambda: state(tmp_path / "s")["seed=0"].status == jobs.RUNNING)
    assert json.loads(cnnbench("report", "s", "cancel=true", "format=json").out)
    until("the array ends", lambda: not slurm.queued_jobs([array]))
    counts = jobs.progress_line(jobs.current_jobs(tmp_path / "s"))
    assert counts == "0/4 done, 4 cut"
