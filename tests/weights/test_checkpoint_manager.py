"""Checkpoints of a run: which are kept, the one before a damaged one, disks that are full."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from cnnbench.config.sections import CheckpointConfig, OnError
from cnnbench.runs.tracker import Tracker
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint, sources
from cnnbench.weights.checkpoint_manager import CheckpointManager, interval
from tests.helpers.checkpoints import NEEDED, NEEDED_BEFORE, flip
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows

pytestmark = pytest.mark.usefixtures("no_pictures")


def config(every: int | str | None = None, keep: int = 2, on_error: str = "warn") -> CheckpointConfig:
    return CheckpointConfig(every=every, keep=keep, on_error=OnError[on_error])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manager_with(folder: Path, steps: int, **settings: Any) -> CheckpointManager:
    manager = CheckpointManager(folder, config(**settings))
    for step in range(1, steps + 1):
        manager.save({"step": step, **NEEDED})
    return manager


def test_a_checkpoint_of_the_first_format_still_loads(tmp_path: Path) -> None:
    torch.save({"format": 1, "cnnbench": "0.1", "step": 5, **NEEDED_BEFORE}, tmp_path / "last.pt")
    content, notes = CheckpointManager(tmp_path, config()).load()
    assert content and content["step"] == 5 and notes == []


def test_a_newer_format_is_refused_for_resuming_and_said_for_its_weights(tmp_path: Path) -> None:
    manager_with(tmp_path, 2)
    torch.save({"format": 99, "cnnbench": "9.9", "step": 3, "model": {"w": torch.ones(2, 1)}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"newer cnnbench \(9.9\)"):  # and not passed over for an older checkpoint
        CheckpointManager(tmp_path, config()).load()
    weights = sources.load(str(tmp_path / "last.pt"))
    assert weights.state["w"].sum() == 2
    assert "newer cnnbench: only its weights are used" in weights.notes[0]


@pytest.mark.parametrize(("keep", "kept"), [(1, []), (2, ["step-9.pt"]), (4, ["step-7.pt", "step-8.pt", "step-9.pt"])])
def test_keep_bounds_how_many_stay(tmp_path: Path, keep: int, kept: list[str]) -> None:
    """Also past step 9, where names sort otherwise than numbers."""
    manager = manager_with(tmp_path, 10, keep=keep)
    assert names(tmp_path) == ["last.pt", *kept]
    manager.save({"step": 11, **NEEDED})
    assert len(names(tmp_path)) == keep
    assert [checkpoint.load(path)["step"] for path in manager.earlier()] == [10, 9, 8][: keep - 1]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_the_one_before_stands_in_for_a_damaged_last(tmp_path: Path, damage: str) -> None:
    manager_with(tmp_path, 12, keep=3)
    last = tmp_path / "last.pt"
    content = last.read_bytes()
    if damage == "flip":
        flip(last, len(content) // 2)
    elif damage == "gone":
        last.unlink()
    else:
        last.write_bytes(content[: 0 if damage == "empty" else 500])
    manager = CheckpointManager(tmp_path, config(keep=3))
    found, notes = manager.load()
    assert found and found["step"] == 11
    assert len(notes) == 1 and "last.pt" in notes[0] and "going on from step-11.pt, step 11" in notes[0]
    manager.save({"step": 11, **NEEDED})  # nothing damaged is kept as if it were good, nothing good is forgotten
    assert [checkpoint.load(path)["step"] for path in sorted(tmp_path.glob("*.pt"))] == [11, 10]


def test_where_no_checkpoint_is_whole_that_is_said(tmp_path: Path) -> None:
    manager_with(tmp_path, 3)
    for file in tmp_path.iterdir():
        flip(file, 700)
    with pytest.raises(UserError, match="no checkpoint before it is whole either"):
        CheckpointManager(tmp_path, config()).load()
    assert CheckpointManager(tmp_path / "new", config()).load() == (None, [])


def fail_fsync(patch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(os, "fsync", full)


def test_a_full_disk_leaves_the_old_checkpoint_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager = manager_with(tmp_path, 1)
    with monkeypatch.context() as patch:
        fail_fsync(patch)
        manager.save({"step": 2, **NEEDED})
        said = capsys.readouterr().err
        assert "warning: cannot save" in said and "No space left on device" in said and "step 1" in said
        with pytest.raises(RunError, match="No space left"):
            manager.save({"step": 2, **NEEDED}, must=True)
        manager.cfg = config(on_error="raise")
        with pytest.raises(RunError, match="No space left"):
            manager.save({"step": 2, **NEEDED})
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 1
    assert not list(tmp_path.glob(".*"))
    manager.save({"step": 3, **NEEDED})
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3


def test_a_training_outlives_a_full_disk(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its third file on nothing can be written; once there is space again, the same command goes on exactly."""
    command = ("train", "epochs=3", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        fsync, seen = os.fsync, iter(range(10**6))

        def full(descriptor: int) -> None:
            if next(seen) >= 14:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        patch.setattr(os, "fsync", full)
        ran = cnnbench(*command, "run.dir=r")
    assert ran.code == 1
    assert "warning: cannot save" in ran.err and "Traceback" not in ran.err
    assert "epoch 3/3" in ran.err + ran.out or "epoch 2/3" in ran.out
    assert "No space left" in ran.err.splitlines()[-1] and "the last checkpoint is that of step" in ran.err
    assert not (tmp_path / "r/result.json").exists()  # a result without its weights would be a wrong one
    assert cnnbench(*command, "run.dir=r").code == 0
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_where_no_checkpoint_could_ever_be_written_nothing_begins(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=100_000))
    ran = cnnbench("train", "epochs=1", "run.dir=r", *SMALL)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "no checkpoint could ever be saved in r: it takes 602 kB, 100 kB are free" in ran.err
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=1_000_000))
    tight = cnnbench("train", "epochs=1", "run.dir=r", "max_steps=1", *SMALL)
    assert tight.code == 0
    assert "checkpoints: 602 kB each, up to 2.41 MB on the disk" in tight.out
    assert "warning: only 1 MB are free" in tight.out


def test_space_is_that_of_the_file(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for number, more in enumerate((("ema=0.9",), ("optim=adamw",), ("optim.momentum=0",))):
        ran = cnnbench("train", "epochs=1", "max_steps=1", f"run.dir={number}", "model=resnet20", *more, *SMALL)
        told = float(ran.out.split("checkpoints: ")[1].split(" MB")[0]) * 1e6
        size = (tmp_path / f"{number}/checkpoints/last.pt").stat().st_size
        assert told == pytest.approx(size, rel=0.07), more


@pytest.mark.parametrize(
    ("every", "expected"),
    [(500, (500, float("inf"))), ("500", (500, float("inf"))), ("10m", (float("inf"), 600)),
     (None, (float("inf"), float("inf")))],
)  # fmt: skip
def test_every_is_steps_or_a_time(every: Any, expected: tuple[float, float]) -> None:
    assert interval(every) == expected


@pytest.mark.parametrize("every", ["0", "often", "10x", "0m"])
def test_another_every_is_refused(cnnbench: Callable[..., Ran], every: str) -> None:
    ran = cnnbench("train", f"checkpoint.every={every}")
    assert ran.code == 2 and "checkpoint.every" in ran.err


def test_checkpoints_within_an_epoch_change_nothing(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that dies without a word goes on from the last of them."""
    command = ("train", "epochs=2", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.training.trainer._end_epoch", die)
        assert cnnbench(*command, "run.dir=r", "checkpoint.every=4").code == 130
    assert checkpoint.load(tmp_path / "r/checkpoints/last.pt")["step"] == 4
    assert cnnbench(*command, "run.dir=r", "checkpoint.every=1", "checkpoint.keep=5").code == 0
    assert names(tmp_path / "r/checkpoints") == [
        "best.pt",
        "last.pt",
        "step-10.pt",
        "step-11.pt",
        "step-8.pt",
        "step-9.pt",
    ]
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_a_run_goes_on_past_a_damaged_checkpoint_and_says_so(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "epochs=3", "checkpoint.every=3", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 10)
        assert cnnbench(*command, "run.dir=r").code == 130
    flip(tmp_path / "r/checkpoints/last.pt", 5000)
    (tmp_path / "r/checkpoints/best.pt").unlink()
    (tmp_path / "r/config.yaml").unlink()
    ran = cnnbench(*command, "run.dir=r")
    assert ran.code == 0, ran.err
    assert "is damaged" in ran.err and "going on from step-9.pt, step 9" in ran.err
    assert "best.pt is gone" in ran.err
    assert_same_run(tmp_path / "r", tmp_path / "whole")
    assert "going on from step-9.pt" in (tmp_path / "r/log.txt").read_text()


def test_without_its_config_a_run_is_told_from_another_by_its_checkpoint(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    for content in (None, "epochs: [1", "just text"):
        config = tmp_path / "r/config.yaml"
        config.unlink() if content is None else config.write_text(content)
        refused = cnnbench("train", "epochs=2", "run.dir=r", *SMALL)
        assert (refused.code, "epochs: 1 there, 2 here" in refused.err) == (2, True)
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    assert config.read_text().startswith("task: null\nmodel:")


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    """They are large, and people remove them when they have their numbers."""
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    before = read_json(tmp_path / "r/result.json")
    shutil.rmtree(tmp_path / "r/checkpoints")
    again = cnnbench("train", "epochs=1", "run.dir=r", *SMALL)
    assert again.code == 0 and "already done" in again.out
    assert read_json(tmp_path / "r/result.json") == before
    assert len(rows(tmp_path / "r")) == 1


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("lost", ["last.pt", "best.pt", "step-3.pt", "all of them"])
def test_a_save_needs_no_older_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: int, lost: str) -> None:
    """Files deleted while the training runs, as somebody does who frees space."""
    folder = tmp_path / "checkpoints"
    manager = manager_with(folder, 4, keep=keep)
    manager.keep_best()
    if lost == "all of them":
        shutil.rmtree(folder)
    else:
        (folder / lost).unlink(missing_ok=True)
    for step in (5, 6):
        manager.save({"step": step, **NEEDED}, must=True)
        manager.keep_best()
    assert capsys.readouterr().err == ""
    assert [checkpoint.load(folder / name)["step"] for name in ("last.pt", "best.pt")] == [6, 6]
    assert keep == 1 or checkpoint.load(folder / "step-5.pt")["step"] == 5


def test_a_training_whose_files_are_deleted_meanwhile_ends_as_in_peace(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "epochs=3", *SMALL, "checkpoint.keep=2")
    assert cnnbench(*command, "run.dir=peace").code == 0
    end_epoch = Tracker.end_epoch

    def and_delete(self: Tracker, *args: Any) -> None:
        end_epoch(self, *args)
        for file in self.file.parent.rglob("*"):
            if file.is_file() and len(self.rows) < 3:
                file.unlink()

    monkeypatch.setattr(Tracker, "end_epoch", and_delete)
    ran = cnnbench(*command, "run.dir=war")
    assert (ran.code, ran.err) == (0, "")
    assert_same_run(Path("war"), Path("peace"))
    assert read_json(Path("war/result.json"))["epochs"] == 3
