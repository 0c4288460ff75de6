"""Sweeps that are cut, fail, are gone on with and reported: here, several at a time, and in the books."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnbench.runs import run_directory
from cnnbench.runtime import processes, slurm
from cnnbench.sweeps import jobs, local
from cnnbench.sweeps.jobs import SweepJob
from tests.helpers.processes import children, held, until, wait_for
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows

pytestmark = pytest.mark.usefixtures("no_pictures")
SWEEP = ("train", "-m", "seed=0,1,2", "epochs=2", "sweep.dir=s", *SMALL)


def books(folder: Path) -> dict[str, SweepJob]:
    """By seed."""
    return {next(text for text in job.overrides if text.startswith("seed=")): job for job in jobs.current_jobs(folder)}


def test_a_sweep_that_was_cut_goes_on_where_it_was(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        first = cnnbench("train", "-m", "seed=0,1", "epochs=1,2", "sweep.dir=s", *SMALL)
    assert first.code == 130
    assert "2 jobs: 1 done, 1 cut, 0 failed" in first.err, first.err
    assert jobs.progress_line(jobs.current_jobs(tmp_path / "s")) == "1/4 done, 3 cut"
    again = cnnbench("train", "-m", "seed=0,1", "epochs=1,2", "sweep.dir=s", *SMALL)
    assert again.code == 0, again.err
    assert "4 jobs: 3 done, 1 skipped, 0 failed" in again.err
    assert cnnbench("train", "seed=0", "epochs=2", "run.dir=whole", *SMALL).code == 0
    cut = next(job for job in jobs.current_jobs(tmp_path / "s") if {"seed=0", "epochs=2"} <= set(job.overrides))
    assert_same_run(tmp_path / str(cut.run_dir), tmp_path / "whole")


def test_rerun_says_which_jobs_run_again(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "-m", "batch_size=50,few", "epochs=1", "sweep.dir=s", *SMALL[:-1])
    assert cnnbench(*command).code == 1
    (run,) = (path for path in (tmp_path / "s").iterdir() if path.is_dir() and path.name != ".sweep")
    first = (run / "result.json").stat().st_mtime_ns
    for rerun, said in {"none": "0 done, 1 skipped, 1 failed", "failed": "0 done, 1 skipped, 1 failed",
                        "all": "1 done, 1 failed"}.items():  # fmt: skip
        ran = cnnbench(*command, f"sweep.rerun={rerun}")
        assert ran.code == 1 and f"2 jobs: {said}" in ran.err, ran.err
        assert ("job 2:" in ran.err) == (rerun != "none")
        assert ((run / "result.json").stat().st_mtime_ns == first) == (rerun != "all")
    (run / "result.json").unlink()  # somebody has thrown it away: it is done again
    assert "2 jobs: 1 done, 1 failed" in cnnbench(*command).err


def test_other_settings_behind_the_same_name_are_not_skipped(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """A YAML file that was changed since: the run itself refuses to go on."""
    (tmp_path / "mine/optim").mkdir(parents=True)
    file = tmp_path / "mine/optim/own.yaml"
    file.write_text("defaults: [sgd]\nlr: 0.1\n")
    command = ("train", "--config-dir", "mine", "-m", "optim=own", "seed=0,1", "epochs=1", "sweep.dir=s", *SMALL)
    assert cnnbench(*command).code == 0
    assert "2 skipped" in cnnbench(*command).err
    file.write_text("defaults: [sgd]\nlr: 0.2\n")
    ran = cnnbench(*command)
    assert ran.code == 2 and "optim.lr: 0.1 there, 0.2 here" in ran.err


def test_jobs_of_the_local_launcher_outlive_one_that_is_killed(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time; one is killed, and done again by the same command."""
    command = (*SWEEP, "hydra/launcher=local", "hydra.launcher.jobs=2", "checkpoint.every=3", "epochs=3")
    named = run_directory.named(["epochs=3", *SMALL, "seed=1"], ["seed"])
    run = run_directory.named_path(tmp_path / "s", "resnet8-digits", named, ["seed"])
    with held(tmp_path, monkeypatch):
        process = subprocess.Popen([sys.executable, "-m", "cnnbench", *command], cwd=tmp_path, stderr=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        wait_for(run / "checkpoints/last.pt")
        assert len(children(process.pid)) == 2
        os.kill(books(tmp_path / "s")["seed=1"].process["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "3 jobs: 2 done, 1 failed" in err and "failed: its process was killed by SIGKILL" in out
    again = cnnbench(*command)
    assert again.code == 0 and "3 jobs: 1 done, 2 skipped, 0 failed" in again.err
    assert rows(run)[-1]["step"] == 3 * 6
    assert "going on from" in (run / "log.txt").read_text()
    assert "seed=1" in books(tmp_path / "s") and books(tmp_path / "s")["seed=1"].log.read_text()


def test_ctrl_c_ends_all_jobs_of_the_local_launcher_and_saves(tmp_path: Path) -> None:
    command = (*SWEEP, "hydra/launcher=local", "hydra.launcher.jobs=1", "checkpoint.every=1", "epochs=3000")
    process = subprocess.Popen([sys.executable, "-m", "cnnbench", *command], cwd=tmp_path, stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    until("it trains", lambda: process.poll() is not None or any(tmp_path.glob("s/*/checkpoints/last.pt")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "cut" in out and "Traceback" not in err
    assert jobs.progress_line(jobs.current_jobs(tmp_path / "s")) == "0/3 done, 3 cut"


def test_gpus_are_shared_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shares = [local.worker_environment(["0", "1", "2"], slot, 1, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]
    assert shares == ["0", "1", "2", "0"]
    pairs = [local.worker_environment(["0", "1", "2", "3"], slot, 2, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)]
    assert pairs == ["0,1", "2,3"]
    monkeypatch.setattr("cnnbench.utils.system.cores", lambda: 8)
    assert local.worker_environment([], 0, 1, 4) == {"OMP_NUM_THREADS": "2"}


def job(folder: Path, number: int, status: str, **more: Any) -> SweepJob:
    made = SweepJob(sweep=str(folder), name=f"seed_{number}", number=number, command="train",
               overrides=[f"seed={number}", "epochs=1"], status=status, **more)  # fmt: skip
    made.write()
    return made


def test_the_state_of_a_sweep_is_what_it_is_not_what_was_written_last(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that are gone, and jobs that Slurm knows better about."""
    gone = {"pid": 2**22 - 1, "host": os.uname().nodename, "started": "1"}
    here = {"pid": os.getpid(), "host": os.uname().nodename, "started": jobs._started(os.getpid())}
    folder = tmp_path / "s"
    job(folder, 0, "done", run_dir="r")
    job(folder, 1, "running", process=gone)
    job(folder, 2, "running", process=here)
    job(folder, 3, "pending", process=gone)
    job(folder, 4, "running", slurm="7_0", process={"pid": 1, "host": "elsewhere", "started": "1"})
    job(folder, 5, "cut", slurm="7_1")
    job(folder, 6, "running", slurm="7_2")
    job(folder, 7, "pending")
    jobs.record_submitted(folder, {"seed_7": "7_3"})
    monkeypatch.setattr(slurm, "queued_jobs", lambda ids: {"7_0": ("RUNNING", ""), "7_1": ("PENDING", "BeginTime"),
                                                     "7_3": ("PENDING", "Resources")})  # fmt: skip
    monkeypatch.setattr(slurm, "end_state", lambda one: "OUT_OF_MEMORY")
    state = jobs.current_jobs(folder)
    assert [(one.status, one.reason) for one in state] == [
        ("done", ""), ("failed", "its process is gone (killed?)"), ("running", ""), ("cut", "not begun"),
        ("running", ""), ("pending", "BeginTime"), ("failed", "it ended without a result (Slurm: OUT_OF_MEMORY)"),
        ("pending", "Resources"),
    ]  # fmt: skip
    ran = cnnbench("report", "s")
    assert ran.code == 1
    line = "s: 1/8 done, 2 running, 2 pending, 1 cut, 2 failed: seed=1: its process is gone (killed?)"
    assert ran.err.startswith(line)
    ended: list[str] = []
    monkeypatch.setattr(slurm, "cancel_jobs", ended.extend)
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(f"{pid} {number}" if number else ""))
    assert "5 jobs asked to end" in cnnbench("report", "s", "cancel=true").err or ended
    assert {text for text in ended if text} == {f"{os.getpid()} 15", "7_0", "7_1", "7_3"}
    monkeypatch.undo()
    monkeypatch.setattr(slurm, "queued_jobs", lambda ids: None)
    assert {one.reason for one in jobs.current_jobs(folder) if one.slurm} == {"Slurm does not answer"}


def test_what_slurm_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "squeue": (0, "7_0|RUNNING|None\n7_1|PENDING|Resources\n", ""),
        "sacct": (1, "", "Slurm accounting storage is disabled"),
        "scontrol": (0, "JobId=7 ArrayJobId=7 ArrayTaskId=2 JobState=FAILED Reason=X ExitCode=0:9 RunTime=1\n", ""),
    }

    def ask(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, *said[command[0]])

    monkeypatch.setattr(slurm, "_ask", ask)
    assert slurm.queued_jobs(["7_0", "7_1"]) == {"7_0": ("RUNNING", ""), "7_1": ("PENDING", "Resources")}
    assert slurm.end_state("7_2") == "FAILED, killed by SIGKILL"
    said["sacct"] = (0, "7_2|OUT_OF_MEMORY|0:125\n7_2.batch|FAILED|1:0\n", "")
    said["squeue"] = (1, "", "slurm_load_jobs error: Invalid job id specified")
    assert slurm.queued_jobs(["7_0"]) == {}
    said["sacct"] = (0, "7_2|TIMEOUT|0:0\n", "")
    assert slurm.end_state("7_2") == "TIMEOUT"
    said["squeue"] = (1, "", "Unable to contact slurm controller")
    assert slurm.queued_jobs(["7_0"]) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "-m", "seed=0,1", "hydra/launcher=slurm"), "there is no Slurm on this machine (no sbatch)"),
        (("train", "-m", "seed=0,1", "sweep.detach=true"), "it needs hydra/launcher=slurm"),
        (("train", "-m", "seed=0,1", "hydra/launcher=locl"), "Did you mean 'local'?"),
        (("train", "-m", "seed=0,1", "hydra/launcher=local", "hydra.launcher.job=2"), "hydra.launcher.job"),
        (("train", "-m", "seed=0,1", "run.name=${nope}"), "run.name: Interpolation key 'nope' not found"),
        (("report", "nowhere"), "nowhere: no such directory"),
        (("report", "nowhere", "cancel=true"), "nowhere"),
        (("train", "-m", "seed=0,1", "sweep.rerun=some"), "choices: all, failed, none"),
    ],
)
def test_bad_input(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(slurm, "is_available", lambda: False)
    ran = cnnbench(*arguments)
    assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) <= 3, ran.err
    assert not processes.process_info().rank
