"""Whole runs from the command line: what they leave behind, how they go on, what a sweep does."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cnnbench import models
from cnnbench.models import resnet
from cnnbench.models.layers import Net
from cnnbench.runs import run_directory
from cnnbench.tasks.classification import evaluation
from cnnbench.utils import exit_codes
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import read_json
from cnnbench.weights import checkpoint
from tests.helpers.runs import SMALL, Ran, assert_same_run, interrupt_after, rows, weights

PICTURES = ("curves.png", "train_batch.png", "val_predictions.png", "confusion_matrix.png")
FILES = ("config.yaml", "overrides", "status.json", "metrics.jsonl", "result.json", "checkpoints/last.pt",
         "checkpoints/best.pt", *PICTURES)  # fmt: skip


def test_a_run_leaves_behind_all_that_it_promises(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("train", "epochs=2", *SMALL)
    assert ran.code == 0, ran.err
    path = (
        tmp_path
        / "outputs/train"
        / "resnet8-digits-batch_size_50-data.fraction_0.2-data.image_size_8-epochs_2-precision_fp32"
    )
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
    assert {"loss/train", "loss/val", "top1_error/train", "top1_error/val", "top5_error/train", "top5_error/val", "lr",
            "images_per_second"} == set(tags)  # fmt: skip
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


def resnet8_with_dropout(
    num_classes: int, in_channels: int, shortcut: str, shortcut_pad: str, zero_init_residual: bool
) -> Net:
    net = resnet.MODELS["resnet8"](num_classes=num_classes, in_channels=in_channels)
    net.avgpool = nn.Sequential(net.avgpool, nn.Dropout(0.5))
    return net


@pytest.mark.parametrize("extra", [(), ("ema=0.9", "accumulate=3", "optim.clip=1")])
def test_interrupted_and_resumed_equals_uninterrupted(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    """Bit for bit: in mid-epoch and at its end, with dropout, accumulation and a moving average."""
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


@pytest.mark.parametrize("where", ["tracker.Tracker.end_epoch", "checkpoint.keep_as"])
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


def test_the_same_name_for_other_data_is_refused(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for folder, classes in (("cats", "ab"), ("pets", "cd")):
        for split, name in itertools.product(("train", "val"), classes):
            directory = tmp_path / folder / split / name
            directory.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number * 60, ord(name), 0)).save(directory / f"{number}.png")
    command = ("train", "data=folder", "epochs=1", "augment=none", "data.image_size=8", "device=cpu")
    assert cnnbench(*command, "data.root=cats").code == 0
    assert cnnbench(*command, "data.root=pets").code == 0
    assert {path.name for path in (tmp_path / "outputs/train").iterdir()} == {
        f"resnet8-{folder}-augment_none-data.image_size_8-epochs_1" for folder in ("cats", "pets")
    }
    assert cnnbench(*command, "data.root=cats", "run.dir=r").code == 0
    refused = cnnbench(*command, "data.root=pets", "run.dir=r")
    assert (refused.code, "trained on other data" in refused.err) == (2, True)


def test_a_sweep_over_what_does_not_name_runs_names_them_all_the_same(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("train", "-m", "patience=1,2", "sweep.dir=s", "epochs=1", "format=json", *SMALL)
    assert ran.code == 0, ran.err
    assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir() and path.name != ".sweep"]) == 2
    assert len(json.loads(ran.out)) == 2


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


def test_a_run_is_found_by_the_name_it_got_and_paths_need_no_quotes(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    assert cnnbench("train", "epochs=1", "optim.lr=1e-2", "schedule.milestones=[0.3,0.6]", *SMALL).code == 0
    (path,) = (tmp_path / "outputs/train").iterdir()
    assert re.fullmatch(r"[\w.+-]+", path.name)
    assert cnnbench("evaluate", f"weights=outputs/train/{path.name}").code == 0
    odd = "my run=1, it's (new)"
    assert cnnbench("train", "epochs=1", f"run.dir={odd}", *SMALL).code == 0
    assert (tmp_path / odd / "result.json").exists()
    assert cnnbench("evaluate", f"weights={odd}").code == 0


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


def test_a_request_to_stop_is_heard_in_the_validation_by_views(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("train", "epochs=1", "run.dir=r", "crop=six", *SMALL)
    ask = evaluation._logits

    def asked(*given: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return ask(*given)

    monkeypatch.setattr(evaluation, "_logits", asked)
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


def test_resume_never_starts_beside_the_old_run(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "epochs=1", "run.name=r", *SMALL)
    assert cnnbench(*command).code == 0
    assert cnnbench(*command, "resume=never").code == 0
    assert {path.name for path in (tmp_path / "outputs/train").iterdir()} == {"r", "r-2"}
    assert "holds a run" in cnnbench("train", "run.dir=outputs/train/r", "resume=never", *SMALL).err


def test_two_processes_never_share_a_directory(cnnbench: Callable[..., Ran], tmp_path: Path, compose: Callable) -> None:
    cfg = compose("run.dir=r")
    directory = run_directory.claim(tmp_path / "r", cfg, "auto")
    directory.set_status("running")
    refused = cnnbench("train", "run.dir=r")
    assert refused.code == 2
    assert f"another process ({os.getpid()}) is running r" in refused.err
    assert read_json(tmp_path / "r/status.json")["status"] == "running"
    directory.release()
    run_directory.claim(tmp_path / "r", cfg, "auto").release()


def test_a_folder_of_other_files_is_left_alone(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    refused = cnnbench("train", "run.dir=photos", *SMALL)
    assert (refused.code, "no run of cnnbench" in refused.err) == (2, True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


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


def test_evaluate_repeats_the_runs_own_numbers(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=2", "ema=0.5", "run.dir=r", *SMALL).code == 0
    trained = read_json(tmp_path / "r/result.json")
    for batch_size in (1, 7, 400):
        ran = cnnbench(
            "evaluate", "weights=r", f"batch_size={batch_size}", "precision=fp32", "device=cpu", "format=json"
        )
        assert ran.code == 0, ran.err
        result = json.loads(ran.out)
        assert (result["top1_error"], result["top5_error"], result["n"]) == (
            trained["top1_error"],
            trained["top5_error"],
            359,
        )
        assert result["loss"] == pytest.approx(trained["loss"], rel=1e-5)
    assert Path(result["run_dir"], "confusion_matrix.png").exists()
    train_split = json.loads(cnnbench("evaluate", "weights=r/checkpoints/last.pt", "split=train", "format=json").out)
    assert (train_split["n"], train_split["split"]) == (287, "train")  # a fifth of each class


def test_evaluations_do_not_overwrite_each_other_or_the_training(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert cnnbench("train", "epochs=1", f"run.name={name}", *SMALL).code == 0
    weights = [f"outputs/train/{name}" for name in ("one", "two", "two/checkpoints/best.pt")]
    ran = cnnbench("evaluate", "-m", f"weights={','.join(weights)}", "sweep.dir=s")
    assert ran.code == 0, ran.err
    assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir() and path.name != ".sweep"]) == 3
    assert "top1_error" in ran.out.splitlines()[-4] and "-" not in ran.out.splitlines()[-1].split()[2]
    refused = cnnbench("evaluate", "weights=outputs/train/one", "run.dir=outputs/train/one")
    assert (refused.code, "holds a training" in refused.err) == (2, True)


def test_evaluate_takes_another_size_and_normalisation(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    command = ("evaluate", "weights=r", "precision=fp32", "format=json")
    plain, other = (json.loads(cnnbench(*command, *more).out) for more in ((), ("data.mean=[0.9]",)))
    assert plain["loss"] != other["loss"]
    assert json.loads(cnnbench(*command, "data.image_size=16").out)["crop"] == "center 16"


def test_evaluate_refuses_data_with_other_classes(cnnbench: Callable[..., Ran]) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    ran = cnnbench("evaluate", "weights=r", "data=synthetic", "data.num_images=40")
    assert (ran.code, "was trained for other classes than those of synthetic" in ran.err) == (2, True)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/ran",))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt is damaged, or holds more than weights"):
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
