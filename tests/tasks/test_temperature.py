"""The temperature of a classifier, held to an independent minimiser."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from cnnbench.tasks.classification.temperature import LEAST, MOST, fit
from cnnbench.utils.errors import UserError


def judged(n: int, classes: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits whose own softmax the targets are drawn from, and then made `scale` times as large."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=random)
    return scale * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]


@pytest.mark.parametrize(("n", "classes", "scale"), [(2000, 10, 2.5), (500, 3, 0.2), (1000, 100, 1.0), (60, 2, 5.0)])
def test_the_temperature_is_the_one_of_the_least_loss(n: int, classes: int, scale: float) -> None:
    logits, targets = judged(n, classes, scale)
    found = minimize_scalar(
        lambda log: F.cross_entropy(logits.double() / math.exp(log), targets).item(),
        bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert fit(logits, targets, "net") == pytest.approx(math.exp(found.x), rel=1e-5)
    assert fit(logits + 1000, targets, "net") == pytest.approx(math.exp(found.x), rel=1e-2)  # what float32 leaves


def test_logits_that_are_three_times_too_large_are_found_so() -> None:
    assert fit(*judged(20_000, 10, 3.0), "net") == pytest.approx(3.0, rel=0.05)


def test_right_answers_alone_and_answers_by_chance_have_no_temperature() -> None:
    logits, targets = F.one_hot(torch.arange(40) % 4, 4).float(), torch.arange(40) % 4
    with pytest.raises(UserError, match="the 40 validation images are all right"):
        fit(logits, targets, "net")
    with pytest.raises(UserError, match="no better than guessing"):
        fit(logits, targets.roll(1), "net")
    with pytest.raises(UserError, match="no better than guessing"):
        fit(torch.zeros(40, 4), targets, "net")
    one_wrong = torch.cat([1e4 * logits, 1e4 * logits[:1].roll(1, 1)]), torch.cat([targets, targets[:1]])
    assert fit(*one_wrong, "net") == pytest.approx(MOST)
    assert fit(one_wrong[0] / 1e8, one_wrong[1], "net") == pytest.approx(LEAST)
