"""Trainings on folders whose images are kept in memory: the same bits as without, whatever cuts them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.data import kept
from tests.helpers import boxes
from tests.helpers.data import class_tree
from tests.helpers.runs import Ran, assert_same_run, interrupt_after

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    root = class_tree(tmp_path / "tree", {"cat": 14, "dog": 13})
    folder = ("data=folder", f"data.root={root}", "data.val_fraction=0.3", "data.image_size=16")
    return ("train", *folder, "batch_size=4", "epochs=2", "augment.color=0.2", "precision=fp32", "device=cpu")


@pytest.mark.parametrize("decode", ["auto", "pillow"])
def test_a_training_is_the_same_with_and_without(
    cnnbench: Callable[..., Ran], tmp_path: Path, command: tuple[str, ...], decode: str
) -> None:
    for cache, said in (("false", ""), ("true", "data.cache: 19 training images decoded once, in ")):
        ran = cnnbench(*command, f"data.cache={cache}", f"data.decode={decode}", f"run.dir={cache}")
        assert ran.code == 0, ran.err
        assert said in ran.out and ("data.cache" in ran.out) is bool(said)
    assert_same_run(tmp_path / "true", tmp_path / "false")


def test_interrupted_with_and_resumed_without(
    cnnbench: Callable[..., Ran], tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cnnbench(*command, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert cnnbench(*command, "run.dir=cut").code == 130
    assert cnnbench(*command, "run.dir=cut", "data.cache=false").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_images_that_must_fit_and_do_not(
    cnnbench: Callable[..., Ran], tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept.system, "free_memory", lambda: 100_000.0)
    ran = cnnbench(*command, "data.cache=true", "run.dir=none")
    assert ran.code == 2 and not (tmp_path / "none").exists()
    assert "data.cache=true: 19 training images need more memory than the 50 kB that may be filled: " in ran.err
    assert 2 <= len(ran.err.strip().splitlines()) <= 3
    ran = cnnbench(*command, "data.cache=often", "run.dir=none")
    assert (ran.code, ran.err) == (2, "cnnbench: data.cache=often: give one of auto, true, false, device, host\n")


def test_an_interrupt_while_images_are_decoded(
    cnnbench: Callable[..., Ran], tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: kept.Kept, index: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept.Kept, "_once", interrupt)
        assert cnnbench(*command, "run.dir=cut").code == 130
    assert cnnbench(*command, "run.dir=cut").code == 0


def test_images_with_boxes_are_not_kept_in_silence(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    boxes.write_voc(tmp_path / "set", {"train": 4, "val": 2})
    ran = cnnbench("train", "task=detection", "data=voc", "data.root=set", "model=ssd", "model.backbone=resnet8",
                   "model.maps=1", "data.image_size=64", "data.cache=true", "device=cpu", "run.dir=none")  # fmt: skip
    assert ran.code == 2 and not (tmp_path / "none").exists()
    assert "data.cache=true: images with boxes are decoded anew in each epoch" in ran.err
