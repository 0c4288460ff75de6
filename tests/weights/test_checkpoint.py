"""Checkpoint files: whole or refused, and nothing in them is run."""

import errno
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.utils import files
from cnnbench.utils.errors import RunError, UserError
from cnnbench.weights import checkpoint
from tests.helpers.checkpoints import NEEDED, flip
from tests.helpers.runs import SMALL, Ran


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/ran",))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt holds more than weights: 'model' is of type posix\.system"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_checkpoint_gets_one_sentence(cnnbench: Callable[..., Ran], tmp_path: Path, damage: str) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    file = tmp_path / "r/checkpoints/last.pt"
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"hello\n"}[damage])
    ran = cnnbench("evaluate", "weights=r")
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1 and "last.pt" in ran.err


def test_saving_never_leaves_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of writing leaves the old checkpoint whole."""
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1})

    def crash(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(RunError, match=r"cannot save .*disk full"):
        checkpoint.save(file, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.read(file)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_best_survives_a_new_last(tmp_path: Path) -> None:
    last, best = tmp_path / "last.pt", tmp_path / "best.pt"
    for step in (1, 2, 3):
        checkpoint.save(last, {"step": step})
        if step <= 2:
            checkpoint.keep_as(last, best)
    assert (checkpoint.read(last)["step"], checkpoint.read(best)["step"]) == (3, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_sealed_checkpoint_is_still_a_file_of_torch(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", {"step": 3, "weights": torch.arange(1000.0)})
    assert files.checksum_matches(tmp_path / "a.pt") is True
    assert zipfile.ZipFile(tmp_path / "a.pt").testzip() is None
    torch.testing.assert_close(torch.load(tmp_path / "a.pt", weights_only=True)["weights"], torch.arange(1000.0))
    torch.save({"weights": torch.ones(3)}, tmp_path / "foreign.pt")
    assert files.checksum_matches(tmp_path / "foreign.pt") is None
    assert checkpoint.read(tmp_path / "foreign.pt")["weights"].sum() == 3


def test_no_flipped_bit_and_no_cut_gets_past_the_seal(tmp_path: Path) -> None:
    file, rng = tmp_path / "a.pt", random.Random(0)
    checkpoint.save(file, {"step": 3, "weights": torch.arange(300.0), **NEEDED})
    content = file.read_bytes()
    checkpoint.load(file)
    end = range(len(content) - 120, len(content))  # the directory of the archive, its end, the seal itself
    for position in [*end, *rng.sample(range(len(content)), 100)]:
        file.write_bytes(content)
        flip(file, position)
        with pytest.raises(UserError, match="is damaged"):
            checkpoint.load(file)
    for length in [0, 1, len(content) - 1, *rng.sample(range(len(content)), 30)]:
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"is damaged|is empty|is a text"):
            checkpoint.load(file)


def test_a_disk_that_fills_within_the_writing_of_tensors_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.HashingWriter.write

    def full(self: files.HashingWriter, data: bytes) -> int:
        if self.file.tell() > 2000:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return write(self, data)

    monkeypatch.setattr(files.HashingWriter, "write", full)
    with pytest.raises(RunError, match=r"cannot save .*last.pt: No space left on device"):
        checkpoint.save(tmp_path / "last.pt", {"weights": torch.zeros(10_000)})
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_answered_with_one_of_a_near_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("outputs/finetune/resnet8-digits/checkpoints/last.pt")
    file.parent.mkdir(parents=True)
    file.touch()
    for given in ("outputs/finetune/resnet8-digit", "outputs/train/resnet8-digits", "resnet8-digits"):
        with pytest.raises(UserError, match=f"no file {given}\\. Did you mean outputs/finetune/resnet8-digits\\?$"):
            checkpoint.find(given)
    with pytest.raises(UserError, match=r"no file elsewhere\.pt$"):
        checkpoint.find("elsewhere.pt")
