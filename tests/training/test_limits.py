"""When a training ends: a function of its progress and its step alone."""

from typing import Any

import pytest

from cnnbench.tasks.classification import TOP1
from cnnbench.tasks.metric import Metric
from cnnbench.training.limits import StopRule
from cnnbench.training.state import Progress
from cnnbench.utils.errors import UserError


def rule(**limits: Any) -> StopRule:
    return StopRule(**{"epochs": 3, "aim": TOP1, **limits})


@pytest.mark.parametrize(
    ("limits", "progress", "step", "reason"),
    [
        ({}, {}, 0, ""),
        ({}, {"epoch": 2, "batch": 5, "seconds": 1e9}, 10**6, ""),
        ({}, {"epoch": 3}, 18, "all 3 epochs"),
        ({}, {"epoch": 4}, 24, "all 3 epochs"),  # fewer are asked for now than are done
        ({"epochs": 1}, {"epoch": 1}, 6, "its one epoch"),
        ({"epochs": 0}, {}, 0, "its head is fitted, not trained by steps"),
        ({"max_steps": 8}, {"epoch": 1, "batch": 1}, 7, ""),
        ({"max_steps": 8}, {"epoch": 1, "batch": 2}, 8, "max_steps=8"),
        ({"max_steps": 18}, {"epoch": 3}, 18, "all 3 epochs"),
        ({"max_time": "2m"}, {"seconds": 119.9}, 3, ""),
        ({"max_time": "2m"}, {"seconds": 120.0}, 3, "max_time=2m"),
        ({"max_time": "2m", "max_steps": 3}, {"seconds": 120.0}, 3, "max_steps=3"),
        ({}, {"epoch": 1, "pruned": "worse than the median"}, 6, "worse than the median"),
        ({}, {"epoch": 3, "pruned": "worse than the median"}, 18, "all 3 epochs"),
        ({"epochs": 9, "patience": 2}, {"epoch": 3, "best_epoch": 2}, 18, ""),
        ({"epochs": 9, "patience": 2}, {"epoch": 4, "best_epoch": 2}, 24, "no better top-1 error in 2 epochs"),
        ({"epochs": 9, "patience": 2}, {"epoch": 4, "batch": 1, "best_epoch": 2}, 25, ""),  # the epoch is begun
        ({"epochs": 9, "patience": 2}, {"epoch": 2}, 12, "no better top-1 error in 2 epochs"),
    ],
)
def test_every_limit_ends_a_training_and_says_so(
    limits: dict[str, Any], progress: dict[str, Any], step: int, reason: str
) -> None:
    assert rule(**limits).reason(Progress(**progress), step) == reason


def test_patience_is_said_in_the_words_of_the_metric() -> None:
    iou = Metric("miou", "mean IoU", "%", lower_is_better=False)
    assert rule(aim=iou, patience=1).reason(Progress(epoch=1), 6) == "no better mean IoU in 1 epoch"


@pytest.mark.parametrize(
    ("progress", "error", "reason"),
    [({"epoch": 2}, 25.1, ""), ({"epoch": 2}, 25.0, "until=25"), ({"epoch": 2}, None, ""),
     ({"epoch": 2, "batch": 1}, 20.0, ""), ({"epoch": 3}, 20.0, "all 3 epochs")],
)  # fmt: skip
def test_a_training_ends_with_the_epoch_in_which_its_own_error_is_low_enough(
    progress: dict[str, Any], error: float | None, reason: str
) -> None:
    rows = [{"top1_error/train": 10.0}, {"top1_error/train": error}]
    assert rule(until=25.0).reason(Progress(**progress), 12, rows) == reason
    assert rule(until=25.0).reason(Progress(), 0) == ""


def test_limits_are_those_of_the_configuration(compose: Any) -> None:
    cfg = compose("epochs=7", "max_steps=11", "max_time=90s", "patience=2", "until=25")
    assert StopRule.of(cfg, TOP1) == rule(epochs=7, max_steps=11, max_time="90s", patience=2, until=25)
    assert (StopRule.of(cfg, TOP1).seconds, rule().seconds) == (90, float("inf"))
    with pytest.raises(UserError, match="soon"):
        _ = rule(max_time="soon").seconds
