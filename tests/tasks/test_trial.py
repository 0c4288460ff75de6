"""Variants of unknown weights: what is said of their attempts."""

import math

from cnnbench.tasks.classification.task import Classification
from cnnbench.tasks.trial import Attempt, _rank, verdict


def attempt(error: float, loss: float) -> Attempt:
    return Attempt({"top1_error": error, "loss": loss}, f"model.variant={error:g}")


def test_answers_that_are_no_numbers_fit_nothing() -> None:
    """Not even where they happen to be right."""
    task, lucky, usual = Classification(), attempt(5.0, math.nan), attempt(40.0, 1.2)
    assert sorted([lucky, usual], key=lambda one: _rank(task, one.values)) == [usual, lucky]
    assert verdict(task, [usual, lucky], guessing=2.3).startswith("fits best: model.variant=40")
    assert verdict(task, [lucky], guessing=2.3) == "none fits: with each, the answers are not finite (NaN or infinity)"
