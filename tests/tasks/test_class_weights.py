"""loss.class_weights=balanced: each image's own loss times the weight of its class, against a loop."""

import pytest
import torch
from torch import Tensor

from cnnbench.data import Arrays
from cnnbench.data.balance import class_weights
from cnnbench.tasks.classification import BALANCED, METRICS, TOP1, USUAL
from cnnbench.tasks.classification.task import Classification
from tests.helpers.batches import arrays
from tests.helpers.tiny import CPU

TARGETS = torch.tensor([0] * 20 + [1] * 3 + [2] * 7)
WEIGHTS = class_weights(TARGETS, 3)


def by_hand(logits: Tensor, smoothing: float) -> Tensor:
    losses = []
    for row, target in zip(logits.log_softmax(1), TARGETS.tolist(), strict=True):
        wanted = torch.full((3,), smoothing / 3)
        wanted[target] += 1 - smoothing
        losses.append(-(wanted * row).sum() * WEIGHTS[target])
    return torch.stack(losses).sum() / len(TARGETS)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_its_definition_with_smoothing_and_auxiliary_heads(
    logits: Tensor, smoothing: float
) -> None:
    task = Classification(smoothing, 0.3, weights=WEIGHTS)
    assert task.training_loss(logits, TARGETS) == pytest.approx(by_hand(logits, smoothing).item(), rel=1e-5)
    both = by_hand(logits, smoothing) + 0.3 * by_hand(2 * logits, smoothing)
    assert task.training_loss((logits, 2 * logits), TARGETS) == pytest.approx(both.item(), rel=1e-5)


def test_microbatches_of_any_size_add_up(logits: Tensor) -> None:
    """torch's own mean, over the weights of a batch, does not."""
    task = Classification(0.1, weights=WEIGHTS)
    parts = zip(logits.split(7), TARGETS.split(7), strict=True)
    total = sum(task.training_loss(part, targets) * len(targets) / 30 for part, targets in parts)
    assert total == pytest.approx(task.training_loss(logits, TARGETS).item(), rel=1e-5)


def test_the_loss_that_is_reported_has_no_weights(logits: Tensor) -> None:
    expected = torch.nn.functional.cross_entropy(logits, TARGETS)
    assert Classification(0.1, weights=WEIGHTS).loss(logits, TARGETS) == pytest.approx(expected.item())


def test_the_balanced_error_is_shown_where_the_judged_classes_are_unequal_and_is_the_aim_where_asked_for() -> None:
    dataset = arrays(30)
    dataset.classes.extend("abc")
    unequal = Arrays(dataset.train.images, TARGETS)
    equal = Arrays(dataset.train.images, torch.arange(30) % 3)
    assert Classification().suited(dataset, unequal, CPU).metrics == METRICS
    assert Classification().suited(dataset, equal, CPU).metrics == USUAL
    assert (Classification().aim, Classification(balance=True).aim) == (TOP1, BALANCED)
