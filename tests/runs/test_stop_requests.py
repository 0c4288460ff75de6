"""A training that is asked to stop, left alone by its terminal, or by whoever read its output."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.runs import tracker
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.training import health
from cnnbench.utils import exit_codes
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers.processes import until
from tests.helpers.runs import SMALL, Ran, assert_same_run, rows

pytestmark = pytest.mark.usefixtures("no_pictures")
COMMAND = [sys.executable, "-m", "cnnbench", "train", "run.dir=r", *SMALL]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_request_within_the_validation_saves_first(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    command = ("train", "epochs=2", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    seen = []
    with monkeypatch.context() as patch:
        call = health.OutputRange.__call__

        def ask(self: health.OutputRange, images: Any) -> Any:
            seen.append(len(images))
            if len(seen) == 11:  # a validation has eight batches
                os.kill(os.getpid(), number)
            return call(self, images)

        patch.setattr(health.OutputRange, "__call__", ask)
        ran = cnnbench(*command, "run.dir=r")
    assert ran.code == (130 if number == signal.SIGINT else exit_codes.PREEMPTED)
    assert len(seen) == 11  # it was not waited for
    assert len(rows(tmp_path / "r")) == 1
    saved = checkpoint.load(tmp_path / "r/checkpoints/last.pt")
    assert (saved["step"], saved["progress"]["epoch"], saved["progress"]["batch"]) == (12, 1, 6)
    assert cnnbench(*command, "run.dir=r").code == 0
    assert_same_run(tmp_path / "r", tmp_path / "whole")
    assert rows(tmp_path / "r")[1]["images_per_second"] > 0


def test_a_request_after_the_last_epoch_comes_too_late(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is trained and saved: the run is left as one that nobody asked to stop, its HPARAMS in TensorBoard too."""
    end_epoch = tracker.Tracker.end_epoch

    def ask(self: tracker.Tracker, row: dict[str, float], text: str) -> None:
        end_epoch(self, row, text)
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(tracker.Tracker, "end_epoch", ask)
    ran = cnnbench("train", "epochs=2", "run.dir=r", *SMALL)
    assert (ran.code, read_json(tmp_path / "r/status.json")["status"]) == (0, "done"), ran.err
    assert read_json(tmp_path / "r/result.json")["epochs"] == 2
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_a_second_ctrl_c_leaves_at_once_whatever_torch_does(tmp_path: Path) -> None:
    """The step at work never comes back from C, where no Python runs."""
    script = """
import ctypes, sys
from cnnbench.cli import main
from cnnbench.training import loop
train_step = loop.train_step
def slow(state, *args):
    train_step(state, *args)
    if state.step == 9:
        print("stuck", flush=True)
        mutex, c = ctypes.create_string_buffer(256), ctypes.CDLL(None)
        c.pthread_mutex_lock(mutex)
        c.pthread_mutex_lock(mutex)
loop.train_step = slow
sys.exit(main.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", script, *COMMAND[3:], "epochs=3"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert any("stuck" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):  # the first one waits for the step
                process.wait(timeout=0.5)
            until("the first one arrives", lambda: not waiting_signals(process.pid))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 130
        finally:
            process.kill()
    assert read_json(tmp_path / "r/status.json")["status"] == "interrupted"
    assert checkpoint.load(tmp_path / "r/checkpoints/last.pt")["step"] == 6  # that of the epoch before


def waiting_signals(pid: int) -> int:
    """Bits of the signals sent to a process that it has not received yet: a second of the same would be lost."""
    found = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1], 16) if found else 0


def test_a_ctrl_c_that_omegaconf_makes_an_error_of_is_still_one(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained, it may come at any place within libraries that do not reckon with it."""

    def compose(*args: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("half made")

    monkeypatch.setattr("cnnbench.config.compose.launch", compose)
    ran = cnnbench("train")
    assert (ran.code, ran.err) == (130, "\ncnnbench: stopped\n")


def test_a_training_outlives_its_terminal(tmp_path: Path) -> None:
    """Closing it sends SIGHUP, and makes every later write to it an error."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "epochs=12"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    seen = b""
    while b"epoch  2/12" not in seen:
        seen += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert read_json(tmp_path / "r/status.json")["status"] == "done"
    log = (tmp_path / "r/log.txt").read_text()
    assert "epoch 12/12" in log and "top-1 error" in log
    assert "\r" not in log and "batch/s" not in log and "it/s" not in log  # a progress bar is none of it


def test_a_training_outlives_the_reader_of_its_output(tmp_path: Path) -> None:
    line = " ".join(f"'{part}'" for part in [*COMMAND, "epochs=3"])
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert read_json(tmp_path / "r/result.json")["epochs"] == 3


def test_the_log_has_what_the_console_said_with_its_times(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "epochs=2", "run.dir=r", "optim.weight_decay=0.02", *SMALL)
    first = cnnbench(*command)
    again = cnnbench(*command)
    lines = (tmp_path / "r/log.txt").read_text().splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  .+", line) for line in lines)
    said = [line[21:] for line in lines]
    assert [line for line in said if not line.startswith("cnnbench train ")] == [
        line for ran in (first, again) for line in (ran.out + ran.err).splitlines()
    ]
    assert sum(line.startswith("cnnbench train epochs=2 run.dir=r") for line in said) == 2


def test_an_error_of_ours_gets_one_line_and_its_traceback_lands_in_the_log(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("a fault\nof ours")

    monkeypatch.setattr("cnnbench.training.loop.train_step", fail)
    ran = cnnbench("train", "epochs=1", "run.dir=r", *SMALL)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "cnnbench: ZeroDivisionError: a fault",
        "That is no mistake in the command; all of it is in r/log.txt",
    ]
    log = (tmp_path / "r/log.txt").read_text()
    assert "Traceback (most recent call last)" in log and "raise ZeroDivisionError" in log
    status = read_json(tmp_path / "r/status.json")
    assert status["status"] == "failed" and "ZeroDivisionError" in status["reason"]


def test_no_thread_outlives_the_requests() -> None:
    """One that holds the net and frees it while the interpreter ends would abort the process."""
    before = threading.enumerate()
    for _ in range(20):
        with StopRequests():
            assert len(threading.enumerate()) == len(before) + 1
        assert threading.enumerate() == before
