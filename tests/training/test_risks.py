"""Risks of a training are said at its start and kept with its result, by the function that `doctor config` asks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.utils.files import read_json
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
