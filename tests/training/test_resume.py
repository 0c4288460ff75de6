"""A training that was cut goes on with the same bits, or is refused with what is different."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cnnbench import models
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models import resnet
from cnnbench.models.layers import Net
from cnnbench.training.state import Progress
from cnnbench.utils import exit_codes
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers.checkpoints import write_as_format
from tests.helpers.data import class_tree
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows

pytestmark = pytest.mark.usefixtures("no_pictures")
BALANCED = ("data.sampler=balanced", "loss.class_weights=balanced")
PLATEAU = ("schedule=plateau", "schedule.patience=1", "stochastic_depth=0.3")
MIXED = ("augment.policy=rand", "augment.mixup=0.4", "augment.cutmix=1", "augment.erase=0.5")


def resnet8_with_dropout(
    num_classes: int, in_channels: int, shortcut: str, shortcut_pad: str, zero_init_residual: bool
) -> Net:
    net = resnet.MODELS["resnet8"](num_classes=num_classes, in_channels=in_channels)
    net.avgpool = nn.Sequential(net.avgpool, nn.Dropout(0.5))
    return net


@pytest.mark.parametrize(
    "extra", [("swa=0.4",), ("ema=0.9", "accumulate=3", "optim.clip=1", *BALANCED, *MIXED, *PLATEAU)]
)
def test_interrupted_and_resumed_equals_uninterrupted(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    """Bit for bit: in mid-epoch and at its end, with dropout, accumulation, averages, balanced and mixed images."""
    monkeypatch.setitem(models.MODELS, "resnet8", resnet8_with_dropout)
    steps = 6  # in an epoch
    command = ("train", "epochs=3", *SMALL, *extra)
    assert cnnbench(*command, "run.dir=whole").code == 0
    assert rows(tmp_path / "whole")[-1]["step"] == 3 * steps
    for cut in (steps - 1, 2 * steps):
        path = tmp_path / f"cut{cut}"
        with monkeypatch.context() as patch:
            interrupt_after(patch, cut)
            ran = cnnbench(*command, f"run.dir={path}")
        assert ran.code == 130
        assert "interrupted" in ran.out
        assert read_json(path / "status.json")["status"] == "interrupted"
        assert checkpoint.load(path / "checkpoints/last.pt")["step"] == cut
        assert cnnbench(*command, f"run.dir={path}").code == 0
        assert_same_run(path, tmp_path / "whole")


def test_a_scheduler_that_wants_the_machine_gets_its_own_code(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 2, signal.SIGTERM)
    assert cnnbench("train", "epochs=2", "run.dir=r", *SMALL).code == exit_codes.PREEMPTED
    assert read_json(tmp_path / "r/status.json")["status"] == "preempted"


def test_killed_at_random_and_resumed_equals_uninterrupted(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """kill -9 at no chosen moment, twice; nothing is lost but the steps since the last checkpoint."""
    command = ("train", "epochs=6", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    for epochs in (1, 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "cnnbench", *command, "run.dir=killed"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        metrics = tmp_path / "killed/metrics.jsonl"
        while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < epochs):
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert cnnbench(*command, "run.dir=killed").code == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("where", ["runs.tracker.Tracker.end_epoch", "weights.checkpoint.keep_as"])
def test_a_crash_right_after_a_checkpoint_loses_nothing(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before the line of metrics.jsonl, and before best.pt: both are made good by the next start."""
    command = ("train", "epochs=2", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    for epoch in (1, 2) if "end_epoch" in where else (1,):

        def crash(*args: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(f"cnnbench.{where}", crash)
            ran = cnnbench(*command, "run.dir=cut")
        assert ran.code == 1 and "out of memory" in ran.err
        assert checkpoint.load(tmp_path / "cut/checkpoints/last.pt")["progress"]["epoch"] == epoch
    assert cnnbench(*command, "run.dir=cut").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    best = [checkpoint.load(tmp_path / name / "checkpoints/best.pt")["step"] for name in ("cut", "whole")]
    assert best[0] == best[1]
    events = EventAccumulator(str(tmp_path / "cut")).Reload()
    assert [event.step for event in events.Scalars("loss/val")] == [row["step"] for row in rows(tmp_path / "cut")]


def test_a_request_to_stop_in_the_last_step_is_heard_before_the_validation(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler waits for seconds, a validation may take minutes. The same command then does the rest."""
    command = ("train", "epochs=50", "max_steps=8", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8, signal.SIGTERM)
        assert cnnbench(*command, "run.dir=r").code == exit_codes.PREEMPTED
    assert [row["epoch"] for row in rows(tmp_path / "r")] == [1]
    assert cnnbench(*command, "run.dir=r").code == 0
    assert read_json(tmp_path / "r/result.json")["steps"] == 8
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_limits_stop_early_and_a_higher_one_goes_on(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=50", "max_steps=8", "run.dir=steps", *SMALL).code == 0
    result = read_json(tmp_path / "steps/result.json")
    assert (result["steps"], result["stopped"]) == (8, "max_steps=8")
    assert rows(tmp_path / "steps")[-1]["epoch"] == 2  # cut in its second epoch, validated all the same

    command = ("train", "epochs=3", "run.dir=time", *SMALL)
    assert cnnbench(*command, "max_time=0.001s").code == 0
    assert read_json(tmp_path / "time/result.json")["steps"] == 1
    assert cnnbench(*command, "max_time=1h").code == 0
    assert cnnbench("train", "epochs=3", "run.dir=whole", *SMALL).code == 0
    assert_same_run(tmp_path / "time", tmp_path / "whole")


def test_another_configuration_is_refused_with_its_difference(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    refused = cnnbench("train", "epochs=2", "optim.lr=0.2", "run.dir=r", *SMALL)
    assert refused.code == 2
    assert "epochs: 1 there, 2 here; optim.lr: 0.1 there, 0.2 here" in refused.err
    assert read_json(tmp_path / "r/status.json")["status"] == "done"
    forced = cnnbench("train", "epochs=2", "optim.momentum=0.5", "run.dir=r", "resume=force", *SMALL)
    assert forced.code == 0, forced.err
    assert [row["epoch"] for row in rows(tmp_path / "r")] == [1, 2]
    assert checkpoint.load(tmp_path / "r/checkpoints/last.pt")["optimizer"]["param_groups"][0]["momentum"] == 0.5


def test_a_run_of_a_version_without_some_keys_goes_on(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """What a key that it did not have does by default is what it did."""
    assert cnnbench("train", "max_steps=2", "run.dir=r", *SMALL).code == 0
    saved = yaml.safe_load((tmp_path / "r/config.yaml").read_text())
    del saved["optim"]["rest"], saved["optim"]["bias_lr"], saved["augment"]["alternate"], saved["lr_find"]
    del saved["sweep"]["trial"], saved["crop"]
    (tmp_path / "r/config.yaml").write_text(yaml.safe_dump(saved))
    refused = cnnbench("train", "max_steps=2", "run.dir=r", *SMALL, "optim.bias_lr=2")
    assert (refused.code, "optim.bias_lr: 1.0 there, 2.0 here" in refused.err) == (2, True)
    assert cnnbench("train", "max_steps=2", "run.dir=r", *SMALL).code == 0
    replayed = cnnbench("train", "--config", str(tmp_path / "r/config.yaml"), "run.dir=again")
    assert replayed.code == 0, replayed.err
    assert rows(tmp_path / "again")[-1]["loss/val"] == rows(tmp_path / "r")[-1]["loss/val"]


def other_keys(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    """Keys of two results that differ, but for those that differ in any two runs."""
    changing = {"wall_seconds", "images_per_second", "run_dir"}
    return {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)} - changing


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_with_checkpoints_of_an_earlier_format_is_used_and_goes_on(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Evaluated and predicted with as if it were of today; then, from the middle of an epoch, bit for bit."""
    command = ("train", "epochs=4", "ema=0.9", *SMALL)
    assert cnnbench(*command, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 15)
        assert cnnbench(*command, "run.dir=r").code == exit_codes.INTERRUPTED
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "image.png")
    said = []
    today = checkpoint.load(tmp_path / "r/checkpoints/last.pt")
    for rewrite in (lambda file: None, partial(write_as_format, number)):
        for file in (tmp_path / "r/checkpoints").glob("*.pt"):
            rewrite(file)
        for line in (("evaluate", "weights=r", "run.dir=judged"), ("predict", "weights=r", "image.png")):
            ran = cnnbench(*line, "device=cpu", "precision=fp32", "format=json")
            assert ran.code == 0, ran.err
            said.append(json.loads(ran.out))
    assert not other_keys(said[0], said[2]) and said[1] == said[3]

    upgraded = checkpoint.load(tmp_path / "r/checkpoints/last.pt")
    assert (upgraded["format"], upgraded["meter"]["n"]) == (number, 3 * 50)
    assert Progress(**upgraded["progress"]) == Progress(**today["progress"])
    assert ModelSpec.from_dict(upgraded["spec"]) == ModelSpec.from_dict(today["spec"])
    assert cnnbench(*command, "run.dir=r").code == 0
    assert_same_run(tmp_path / "r", tmp_path / "whole")
    ours, theirs = (checkpoint.load(tmp_path / name / "checkpoints/best.pt") for name in ("r", "whole"))
    assert (ours["step"], ours["progress"]["best"]) == (theirs["step"], theirs["progress"]["best"])
    results = [read_json(tmp_path / name / "result.json") for name in ("r", "whole")]
    assert results[0] and not other_keys(*results)


def test_resume_never_starts_beside_the_old_run(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "epochs=1", "run.name=r", *SMALL)
    assert cnnbench(*command).code == 0
    assert cnnbench(*command, "resume=never").code == 0
    assert {path.name for path in (tmp_path / "outputs/train").iterdir()} == {"r", "r-2"}
    assert "holds a run" in cnnbench("train", "run.dir=outputs/train/r", "resume=never", *SMALL).err


def test_a_forced_resume_says_how_the_lr_jumps(cnnbench: Callable[..., Ran]) -> None:
    command = ("train", "schedule=cosine", "run.dir=r", *SMALL)
    assert cnnbench(*command, "epochs=3").code == 0
    again = cnnbench(*command, "epochs=6", "resume=force")
    assert again.code == 0
    assert "warning: the settings changed, and the lr with them: " in again.err
    assert "; the schedule is one of 6 epochs now" in again.err
    more = cnnbench(*command, "epochs=6", "resume=force", "seed=0")
    assert "the settings changed" not in more.err


def test_other_images_though_as_many_are_refused(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """Their numbers would mean other images. resume=force takes them; what early versions saved says nothing."""
    for number, split in enumerate(("train", "val")):
        class_tree(tmp_path / "pets" / split, {"cat": 4, "dog": 4}, seed=number)
    command = ("train", "model=resnet8", "data=folder", "data.root=pets", "data.image_size=32", "data.workers=0",
               "batch_size=4", "run.dir=r")  # fmt: skip
    assert cnnbench(*command, "epochs=2", "max_steps=2").code == 0
    (tmp_path / "pets").rename(tmp_path / "animals")
    command = tuple(part.replace("pets", "animals") for part in command)
    moved = cnnbench(*command, "epochs=2", "max_steps=2")
    assert moved.code == 0 and "already done" in moved.out, moved.err  # another place, the same images
    last = tmp_path / "r/checkpoints/last.pt"
    saved = checkpoint.load(last)
    (tmp_path / "animals/train/cat/0.jpg").rename(tmp_path / "animals/train/cat/other.jpg")
    refused = cnnbench(*command, "epochs=2", "max_steps=2")
    assert refused.code == 2 and len(refused.err.splitlines()) == 1, refused.err
    assert "trained on other images, though on as many (names or classes differ)" in refused.err
    assert "give another run.dir, or resume=force" in refused.err
    forced = cnnbench(*command, "epochs=2", "max_steps=3", "resume=force")
    assert forced.code == 0 and "resume=force goes on with the images that are there now" in forced.err
    del saved["identity"]
    checkpoint.save(last, saved)
    assert cnnbench(*command, "epochs=2", "max_steps=3").code == 0
