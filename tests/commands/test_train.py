"""`cnnbench train`: what a run leaves behind, when it ends, and what is said of its settings."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.tasks.classification import answers, evaluation
from cnnbench.utils import exit_codes
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers.runs import SMALL, Ran, assert_same_run, rows, weights

pytestmark = pytest.mark.usefixtures("no_pictures")

PICTURES = ("curves.png", "train_batch.png", "val_predictions.png", "confusion_matrix.png")
FILES = ("config.yaml", "overrides", "status.json", "metrics.jsonl", "result.json", "checkpoints/last.pt",
         "checkpoints/best.pt", *PICTURES)  # fmt: skip


@pytest.mark.usefixtures("pictures")
def test_a_run_leaves_behind_all_that_it_promises(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("train", "epochs=2", *SMALL)
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "outputs/train").glob("resnet8-digits-batch_size_50-*")
    assert all((path / name).stat().st_size > 0 for name in FILES), sorted(path.rglob("*"))
    assert not list(path.rglob("*.tmp"))
    lines = ran.out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2  # no terminal: a line per epoch, no bar
    assert "\r" not in ran.out + ran.err
    assert lines[-1].startswith("top-1 error ") and str(path.relative_to(tmp_path)) in lines[-1]

    result, last = read_json(path / "result.json"), rows(path)[-1]
    assert result["top1_error"] == last["top1_error/val"]
    assert result["n"] == 359 and result["split"] == "test" and result["select_on"] == "last epoch"
    for key in ("top5_error", "loss", "crop", "seed", "epochs", "params", "macs", "images_per_second", "wall_seconds",
                "device", "precision", "versions", "commit"):  # fmt: skip
        assert key in result
    assert read_json(path / "status.json")["status"] == "done"
    assert yaml.safe_load((path / "config.yaml").read_text())["epochs"] == 2
    assert (path / "overrides").read_text().splitlines() == ["epochs=2", *SMALL]


def test_tensorboard_and_metrics_jsonl_say_the_same(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=2", "run.dir=r", *SMALL).code == 0
    events = EventAccumulator(str(tmp_path / "r"), size_guidance={"scalars": 0})
    events.Reload()
    lines = rows(tmp_path / "r")
    tags = [key for key in lines[0] if key not in ("epoch", "step", "seconds")]
    of_validation = {"balanced_error/val", "macro_f1/val", "macro_precision/val"}
    assert {"loss/train", "loss/val", "top1_error/train", "top1_error/val", "top5_error/train", "top5_error/val", "lr",
            "images_per_second", *of_validation} == set(tags)  # fmt: skip
    for tag in tags:
        seen = [(event.step, event.value) for event in events.Scalars(tag)]
        assert seen == [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in lines]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert "seed" in str(events.summary_metadata["_hparams_/session_start_info"])


def test_the_same_command_again_says_that_it_is_done(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    first = cnnbench("train", "epochs=1", "run.dir=r", *SMALL)
    before = (tmp_path / "r/checkpoints/last.pt").stat().st_mtime_ns
    again = cnnbench("train", "epochs=1", "run.dir=r", *SMALL)
    assert again.code == 0
    assert "already done" in again.out
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert (tmp_path / "r/checkpoints/last.pt").stat().st_mtime_ns == before


def test_patience_stops_a_run_that_does_not_improve(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=50", "patience=2", "optim.lr=1e-9", "run.dir=r", *SMALL).code == 0
    result = read_json(tmp_path / "r/result.json")
    assert result["epochs"] == result["best_epoch"] + 2 < 50
    assert result["stopped"] == "no better top-1 error in 2 epochs"


def test_best_is_kept_beside_last(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=4", "optim.lr=0.3", "schedule=constant", "run.dir=r", *SMALL).code == 0
    lines, result = rows(tmp_path / "r"), read_json(tmp_path / "r/result.json")
    errors = [row["top1_error/val"] for row in lines]
    best = checkpoint.load(tmp_path / "r/checkpoints/best.pt")
    assert best["progress"]["epoch"] == result["best_epoch"] == 1 + errors.index(min(errors))
    assert result["best_top1_error"] == min(errors)
    assert result["top1_error"] == errors[-1]  # the headline is the last epoch, not the best


@pytest.mark.parametrize("crop", ["crop=six", "crop=ten"])
def test_the_last_validation_is_by_the_views_asked_for(cnnbench: Callable[..., Ran], tmp_path: Path, crop: str) -> None:
    """The headline is what `evaluate` finds by the same protocol; that by the centre stays beside it."""
    extra = ("data.crop_ratio=0.8", crop)
    ran = cnnbench("train", "epochs=2", "run.dir=r", *SMALL, *extra)
    assert ran.code == 0 and crop.removeprefix("crop=") in ran.out, ran.err
    result = read_json(tmp_path / "r/result.json")
    assert result["center_top1_error"] == rows(tmp_path / "r")[-1]["top1_error/val"]
    judged = cnnbench("evaluate", "weights=r", crop, "format=json", "precision=fp32", "device=cpu")
    other = json.loads(judged.out)
    assert {key: other[key] for key in ("top1_error", "top5_error", "crop", "n")} == {
        key: result[key] for key in ("top1_error", "top5_error", "crop", "n")
    }
    assert result["loss"] == pytest.approx(other["loss"], rel=1e-5)
    ours, theirs = (answers.read(Path(path) / "answers.csv") for path in ("r", other["run_dir"]))
    assert ours.same_images(theirs) and ours.wrong.tolist() == theirs.wrong.tolist()
    assert 100 * ours.wrong.mean() == pytest.approx(result["top1_error"])


def test_a_request_to_stop_is_heard_in_the_validation_by_views(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("train", "epochs=1", "run.dir=r", "crop=six", *SMALL)
    ask = evaluation.view_logits

    def asked(*given: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return ask(*given)

    monkeypatch.setattr(evaluation, "view_logits", asked)
    cut = cnnbench(*args)
    assert cut.code == exit_codes.PREEMPTED and "preempted in the validation by crop=six" in cut.out, cut.err
    assert read_json(tmp_path / "r/status.json")["status"] == "preempted"
    assert not (tmp_path / "r/result.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cnnbench(*args).code == 0
    assert read_json(tmp_path / "r/result.json")["crop"] == "six 8"


def test_views_for_which_there_is_no_room_are_refused_before_the_training(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    refused = cnnbench("train", "epochs=1", "run.dir=r", "crop=ten", *SMALL)
    assert (refused.code, "crop=ten has no room" in refused.err) == (2, True)
    assert not (tmp_path / "r").exists()


def test_format_json_is_alone_on_stdout(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "epochs=1", "format=json", *SMALL)
    result = json.loads(ran.out)
    assert ran.code == 0
    assert Path(result["run_dir"], "result.json").exists()
    assert "epoch 1/1" in ran.err


@pytest.mark.parametrize("format", ["csv", "markdown"])
def test_other_formats_hold_the_headline(cnnbench: Callable[..., Ran], format: str) -> None:
    ran = cnnbench("train", "epochs=1", f"format={format}", *SMALL)
    assert "top1_error" in ran.out and "resnet8" in ran.out
    assert "epoch 1/1" not in ran.out


def test_a_saved_config_replays_the_run(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=first", *SMALL).code == 0
    ran = cnnbench("train", "--config", "first/config.yaml", "run.dir=second")
    assert ran.code == 0, ran.err
    assert_same_run(tmp_path / "first", tmp_path / "second")
    changed = cnnbench("train", "--config", "first/config.yaml", "run.dir=third", "seed=1")
    assert changed.code == 0
    assert rows(tmp_path / "third")[0]["loss/val"] != rows(tmp_path / "first")[0]["loss/val"]
    assert "only single keys" in cnnbench("train", "--config", "first/config.yaml", "model=alexnet").err


def test_weights_of_another_run_start_this_one(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=first", *SMALL).code == 0
    frozen = cnnbench("train", "epochs=1", "weights=first", "freeze=backbone", "run.dir=second", *SMALL)
    assert frozen.code == 0, frozen.err
    assert len(re.findall(r"(?:stem|layer\d) +[\d,]+ +0 +frozen", frozen.out)) == 4
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"fc.weight", "fc.bias"}
    other = cnnbench("train", "model=resnet14", "weights=first", *SMALL)
    assert (other.code, "is of resnet8, not of resnet14" in other.err) == (2, True)


def test_a_head_for_other_classes_is_initialised_anew(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=first", *SMALL).code == 0
    ran = cnnbench(
        "train", "data=synthetic", "data.num_classes=3", "data.num_images=60", "model.in_channels=3", "weights=first",
        "data.image_size=8",
    )  # fmt: skip
    assert ran.code == 2  # the first convolution has one channel there
    assert "conv1.weight is (16, 1, 3, 3) in the file, (16, 3, 3, 3) in the net" in ran.err


def test_batch_size_auto_is_found_and_kept(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("train", "batch_size=auto", "epochs=1", "run.dir=r", *SMALL[:-1])
    assert ran.code == 0, ran.err
    assert read_json(tmp_path / "r/result.json")["batch_size"] == 16  # a power of two, ten steps an epoch at least


def test_scaled_lr_and_risky_settings_are_said(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "epochs=1", "optim.lr=0.128", "optim.weight_decay=0.02", *SMALL)
    assert "lr 0.128 is meant for a batch of 128: scaled to 0.05" in ran.out
    assert "warning: weight decay 0.02" in ran.out
    bare = cnnbench("train", *SMALL, "model=alexnet", "data.image_size=63", "optim.lr=1", "max_steps=1")
    assert "without normalisation layers often diverges" in bare.out


def test_divergence_ends_with_one_sentence_and_keeps_the_checkpoint(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("train", *SMALL, "model=alexnet", "data.image_size=63", "epochs=3", "optim.lr=1e30", "run.dir=r")
    assert ran.code == 1
    assert "the loss is not finite" in ran.err and "Traceback" not in ran.err
    assert read_json(tmp_path / "r/status.json")["status"] == "failed"


def test_compile_gives_the_same_training(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "epochs=1", "max_steps=2", *SMALL)
    assert cnnbench(*command, "run.dir=eager").code == 0
    assert cnnbench(*command, "run.dir=compiled", "compile=true").code == 0
    eager, compiled = rows(tmp_path / "eager")[-1], rows(tmp_path / "compiled")[-1]
    assert compiled["loss/train"] == pytest.approx(eager["loss/train"], rel=1e-3)
    cost = read_json(tmp_path / "compiled/result.json")["compile"]
    assert cost["seconds"] > 0 and cost["plain_pass_seconds"] > 0 and cost["compiled_pass_seconds"] > 0
    assert "compiled in" in (tmp_path / "compiled/log.txt").read_text()


def test_the_default_run_learns_the_digits(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """What `cnnbench train` promises: under 3 % top-1 error on held-out digits."""
    ran = cnnbench("train")
    assert ran.code == 0, ran.err
    result = read_json(tmp_path / "outputs/train/resnet8-digits/result.json")
    assert result["top1_error"] < 3


def test_a_training_imports_neither_torchvision_nor_the_compiler(tmp_path: Path) -> None:
    """Each takes longer than a short training does."""
    code = (
        "import sys; from cnnbench.cli import main; code = main.main(sys.argv[1:]); "
        "print(code, [name for name in ('torchvision', 'torch._dynamo', 'sympy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "train", "epochs=1", "max_steps=2", "ema=0.9", "optim.clip=1", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


@pytest.mark.usefixtures("pictures")
def test_a_run_without_pictures_has_the_same_result(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "model=resnet8", "data=digits", "data.image_size=8", "max_steps=2", "device=cpu")
    for name in ("with", "without"):
        assert cnnbench(*command, f"run.dir={name}", f"tracking.pictures={name == 'with'}".lower()).code == 0
    assert {file.name for file in (tmp_path / "with").glob("*.png")} >= {"curves.png", "train_batch.png"}
    assert not [*(tmp_path / "without").glob("*.png")]
    first, second = (read_json(tmp_path / name / "result.json") for name in ("with", "without"))
    assert (first["metrics"], first["top1_error"], first["loss"]) == (
        second["metrics"], second["top1_error"], second["loss"])  # fmt: skip
