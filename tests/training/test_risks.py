"""Risks of a training are said at its start and kept with its result, by the function that `doctor config` asks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnbench import data, models
from cnnbench.doctor.dry_run import KNOWN
from cnnbench.training import risks
from cnnbench.utils.files import read_json
from tests.helpers.data import class_tree
from tests.helpers.runs import Ran

CPU = ("device=cpu", "precision=fp32")
SMALL = (*CPU, "data.fraction=0.1", "run.dir=r")


def found(cnnbench: Callable[..., Ran], *args: str) -> list[str]:
    ran = cnnbench("train", *SMALL, *args)
    assert ran.code == 0, ran.err
    said = read_json(Path("r/result.json"))["warnings"]
    assert all(ran.out.count(text) + ran.err.count(text) == 1 for text in said)
    return said


@pytest.mark.usefixtures("no_pictures")
def test_a_batch_larger_than_the_data_and_the_lr_that_follows_are_said_and_its_divergence(
    cnnbench: Callable[..., Ran],
) -> None:
    lr, batch, length, *more = found(cnnbench, "batch_size=1000000", "epochs=1")
    assert lr.startswith("lr 781 at batch 1000000, scaled from 0.1 at 128 is more than SGD is known to bear, 3.2; try ")
    assert batch == "a batch of 1,000,000 is more than the 143 training images: one step per epoch; try batch_size=14"
    assert length.startswith("1 epoch, 1 step: too few for any net; try ")
    assert "the training diverged" in more[-1]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("setting", "check"),
    [
        ("accumulate=32", "BatchNorm"),
        ("ema=0.9999", "ema"),
        ("schedule.warmup_epochs=15", "schedule"),
        ("augment.flip=true", "augmentation"),
        ("augment.padding=0", "augmentation"),
        ("patience=3", "validation"),
        ("freeze=backbone", "frozen"),
        ("optim.weight_decay=0.02", "settings"),
    ],
)
def test_what_doctor_reads_out_a_training_says(cnnbench: Callable[..., Ran], setting: str, check: str) -> None:
    read = cnnbench(
        "doctor", "config", *CPU, "data.fraction=0.1", "batch_size=32", setting, "max_steps=2", "format=json"
    )
    details = [finding["detail"] for finding in json.loads(read.out) if finding["check"] == check]
    said = found(cnnbench, "batch_size=32", setting, "max_steps=2")
    assert any(text.startswith(detail) for text in said for detail in details), (said, details)


@pytest.mark.usefixtures("no_pictures")
def test_an_lr_that_was_typed_too_large_is_no_matter_of_the_batch(cnnbench: Callable[..., Ran]) -> None:
    lr, *_ = found(cnnbench, "batch_size=64", "max_steps=1", "optim.lr=100", "optim.clip=0.01")
    assert lr.startswith("lr 50 at batch 64, scaled from 100 at 128") and lr.endswith("try optim.lr=0.1")


@pytest.mark.usefixtures("no_pictures")
def test_a_training_on_unequal_classes_says_so_and_is_judged_by_the_balanced_error_where_asked(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    """In its first lines, warnings, lines, result and report; a top-5 error of two classes stands nowhere."""
    class_tree(tmp_path / "p/train", {"ant": 33, "bee": 6})
    class_tree(tmp_path / "p/val", {"ant": 12, "bee": 2}, seed=1)
    given = (*CPU, "model=resnet8", "data=folder", f"data.root={tmp_path / 'p'}", "epochs=2", "batch_size=8")
    ran = cnnbench("train", *given, "data.image_size=16", "loss.class_weights=balanced", "run.dir=r/w")
    assert ran.code == 0, ran.err
    found = read_json(Path("r/w/result.json"))
    assert ran.out.index("classes are unequal, in training images ant: 33, bee: 6") < ran.out.index("epoch 1/2")
    assert any("classes are unequal" in text for text in found["warnings"])
    assert "balanced err " in ran.out and "macro F1 " in ran.out and "top-5" not in ran.out
    rows = [json.loads(line) for line in Path("r/w/metrics.jsonl").read_text().splitlines()]
    assert found["best_balanced_error"] == min(row["balanced_error/val"] for row in rows)
    assert [one["name"] for one in found["metrics"]] == ["top1_error", "balanced_error", "macro_f1"]
    ran = cnnbench("evaluate", "weights=r/w", "device=cpu", "run.dir=r/e")
    assert ran.code == 0, ran.err
    judged = read_json(Path("r/e/result.json"))
    assert judged["balanced_error"] == pytest.approx(found["balanced_error"])
    assert f"balanced error {judged['balanced_error']:.2f} %, macro F1" in ran.out and "top-5" not in ran.out
    assert [one["class"] for one in judged["by_class"]] == ["ant", "bee"]
    recalls = [one["recall"] for one in judged["by_class"]]
    assert judged["balanced_error"] == pytest.approx(100 - sum(recalls) / 2)
    assert "precision,recall,f1" in Path("r/e/classes.csv").read_text().splitlines()[0]
    ran = cnnbench("report", "r")
    assert ran.code == 0 and "balanced error" in ran.out and "macro F1" in ran.out and "top-5" not in ran.out


@pytest.mark.usefixtures("no_pictures")
def test_a_sampler_has_no_effect_on_a_fitted_head_which_is_said(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("finetune", *SMALL, "transfer=svm", "data.image_size=16", "data.sampler=balanced")
    assert ran.code == 0, ran.err
    assert "data.sampler=balanced has no effect on a head that is fitted, not trained by steps; try loss." in ran.out


@pytest.mark.parametrize(
    ("seen", "net", "size", "said"),
    [
        (500, "resnet20", 32, "images of 500 px are shrunk to 32 px, the size of resnet20"),
        (32, "alexnet", 224, "images of 32 px are enlarged to 224 px, the size of alexnet: 49 times the arithmetic"),
        (96, "resnet20", 32, None),
        (8, "resnet8", 32, None),
        (500, "resnet18", 224, None),
    ],
)
def test_photographs_for_a_net_of_small_images_and_the_reverse_are_said_with_a_net_that_suits(
    compose: Callable, tmp_path: Path, seen: int, net: str, size: int, said: str | None
) -> None:
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    for file in files[1:]:  # the first is missing
        Image.new("L", (seen + 40, seen)).save(file)
    images = replace(KNOWN["cifar10"], seen=data.usual_side(data.Files(files, torch.zeros(3, dtype=torch.int64))))
    for typed in (None, size):
        cfg = compose(f"data.image_size={typed}" if typed else "data.image_size=null")
        plan = risks.TrainingPlan(
            cfg=cfg, images=images, net=models.build(net), size=size, batch=8, lr=0.1, fitted=False
        )
        found = [risk.text for risk in risks.of_resolution(plan)]
        assert found == [] if typed or not said else found[0].startswith(said) and "try model=resnet" in found[0]
