"""Soft targets of mixed images: their loss is that of each class by its share, and what counts as an error."""

import pytest
import torch
from torch.nn import functional as F

from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification.metrics import ClassificationMeter
from cnnbench.tasks.classification.plots import target_label
from cnnbench.tasks.classification.task import Classification

N, CLASSES = 12, 7
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, CLASSES, generator=GENERATOR)
FIRST, SECOND = torch.randint(CLASSES, (2, N), generator=GENERATOR)
SHARE = torch.rand(N, 1, generator=GENERATOR)
SOFT = SHARE * F.one_hot(FIRST, CLASSES) + (1 - SHARE) * F.one_hot(SECOND, CLASSES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weigh", [False, True])
def test_the_loss_is_that_of_each_class_by_its_share(smoothing: float, weigh: bool) -> None:
    weights = torch.rand(CLASSES, generator=torch.Generator().manual_seed(1)) + 0.1 if weigh else None
    task = Classification(label_smoothing=smoothing, weights=weights)

    def alone(number: int, target: int) -> float:
        return task.training_loss(LOGITS[number : number + 1], torch.tensor([target])).item()

    pairs = zip(FIRST.tolist(), SECOND.tolist(), SHARE[:, 0].tolist(), strict=True)
    each = [share * alone(n, one) + (1 - share) * alone(n, other) for n, (one, other, share) in enumerate(pairs)]
    assert task.training_loss(LOGITS, SOFT).item() == pytest.approx(sum(each) / N, rel=1e-5)
    halves = [task.training_loss(LOGITS[part], SOFT[part]).item() for part in (slice(0, 6), slice(6, 12))]
    assert task.training_loss(LOGITS, SOFT).item() == pytest.approx(sum(halves) / 2, rel=1e-5)
    hard = F.one_hot(FIRST, CLASSES).float()
    assert task.training_loss(LOGITS, hard).item() == pytest.approx(task.training_loss(LOGITS, FIRST).item(), rel=1e-5)


def test_the_error_is_counted_against_the_larger_share() -> None:
    larger = torch.where(SHARE[:, 0] > 0.5, FIRST, SECOND)
    soft, hard = (ClassificationMeter(create_runtime("cpu", "fp32", None)) for _ in range(2))
    for part in (slice(0, 5), slice(5, 12)):
        soft.add(torch.tensor(1.0), LOGITS[part], SOFT[part])
    hard.add(torch.tensor(1.0), LOGITS, larger)
    assert soft.compute() == hard.compute() and soft.n == N


def test_a_mixed_image_is_drawn_with_its_two_classes() -> None:
    names = ["aeroplane", "cat", "dog"]
    assert target_label(torch.tensor(1).numpy(), names, 20) == "cat"
    assert target_label(torch.tensor([0.0, 0.3, 0.7]).numpy(), names, 24) == "70 % dog\n30 % cat"
    assert target_label(torch.tensor([0.0, 1.0, 0.0]).numpy(), names, 24) == "100 % cat"
