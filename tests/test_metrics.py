"""Exact metrics at any batch size."""

import pytest
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from torch.nn import functional as F

from cnnbench.metrics import Sums, confusion_counts, correct_counts

N, CLASSES = 103, 10


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(CLASSES, (N,), generator=generator)
    logits = torch.randn(N, CLASSES, generator=generator) + 2 * F.one_hot(targets, CLASSES)
    return logits, targets


def sums_over(logits: torch.Tensor, targets: torch.Tensor, size: int) -> Sums:
    sums = Sums(torch.device("cpu"))
    for part, part_targets in zip(logits.split(size), targets.split(size), strict=True):
        sums.add(F.cross_entropy(part, part_targets), part, part_targets)
    return sums


@pytest.mark.parametrize("size", [1, 7, 64, 103])
def test_any_batch_size_gives_scikit_learns_numbers(batch: tuple, size: int) -> None:
    logits, targets = batch
    metrics = sums_over(logits, targets, size).compute()
    labels = range(CLASSES)
    assert metrics.n == N
    assert metrics.top1_error == pytest.approx(100 * (1 - top_k_accuracy_score(targets, logits, k=1, labels=labels)))
    assert metrics.top5_error == pytest.approx(100 * (1 - top_k_accuracy_score(targets, logits, k=5, labels=labels)))
    assert metrics.loss == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)


def test_counts_are_the_same_integers_at_any_batch_size(batch: tuple) -> None:
    counts = {tuple(sums_over(*batch, size).correct.tolist()) for size in (1, 3, 50, 103)}
    assert len(counts) == 1


def test_with_fewer_than_five_classes_the_top_five_hold_every_answer() -> None:
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    sums = Sums(torch.device("cpu"))
    sums.add(torch.tensor(0.0), logits, torch.tensor([0, 0]))
    assert (sums.compute().top1_error, sums.compute().top5_error) == (50, 0)


def test_sums_go_through_a_checkpoint(batch: tuple) -> None:
    sums, other = sums_over(*batch, 10), Sums(torch.device("cpu"))
    other.load_state_dict(sums.state_dict())
    assert other.compute() == sums.compute()


def test_confusion_and_top1_error_agree_where_logits_are_equal() -> None:
    """bf16 logits often tie: 8 bits of mantissa."""
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).round()
    targets = torch.arange(500) % 10
    top1, _ = correct_counts(logits, targets).tolist()
    assert confusion_counts(logits, targets).trace() == top1


def test_confusion_counts_have_the_truth_in_rows(batch: tuple) -> None:
    logits, targets = batch
    expected = confusion_matrix(targets, logits.argmax(1), labels=range(CLASSES))
    assert confusion_counts(logits, targets).tolist() == expected.tolist()
