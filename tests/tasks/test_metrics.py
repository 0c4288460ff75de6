"""Exact metrics at any batch size."""

import math
from contextlib import nullcontext

import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torch.nn import functional as F

from cnnbench.tasks.classification import report
from cnnbench.tasks.classification.metrics import (
    ClassificationMeter,
    ConfusionMeter,
    answers,
    confusion_counts,
    correct_counts,
    evaluate_scores,
    worst_mistakes,
)
from tests.helpers.tiny import CPU

N, CLASSES = 103, 10


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(CLASSES, (N,), generator=generator)
    logits = torch.randn(N, CLASSES, generator=generator) + 2 * F.one_hot(targets, CLASSES)
    return logits, targets


def meter_over(logits: torch.Tensor, targets: torch.Tensor, size: int) -> ConfusionMeter:
    meter = ConfusionMeter(CPU, CLASSES)
    for part, part_targets in zip(logits.split(size), targets.split(size), strict=True):
        meter.add(F.cross_entropy(part, part_targets), part, part_targets)
    return meter


@pytest.mark.parametrize("size", [1, 7, 64, 103])
def test_any_batch_size_gives_scikit_learns_numbers(batch: tuple, size: int) -> None:
    logits, targets = batch
    meter = meter_over(logits, targets, size)
    metrics, labels = meter.compute(), range(CLASSES)
    assert meter.n == N
    assert metrics["top1_error"] == pytest.approx(100 * (1 - top_k_accuracy_score(targets, logits, k=1, labels=labels)))
    assert metrics["top5_error"] == pytest.approx(100 * (1 - top_k_accuracy_score(targets, logits, k=5, labels=labels)))
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)


def test_counts_are_the_same_integers_at_any_batch_size(batch: tuple) -> None:
    counts = {tuple(meter_over(*batch, size).correct.tolist()) for size in (1, 3, 50, 103)}
    assert len(counts) == 1


@pytest.mark.parametrize(("classes", "measured"), [(2, False), (5, False), (6, True)])
def test_of_at_most_five_classes_there_is_no_top_5_error(classes: int, measured: bool) -> None:
    """All five of them hold every answer: 0 % would look like a measurement."""
    logits, targets = torch.eye(classes)[:2], torch.tensor([0, 0])
    meter, confusion = ClassificationMeter(CPU), ConfusionMeter(CPU, classes)
    for one in (meter, confusion):
        one.add(torch.tensor(0.0), logits, targets)
        found = one.compute()
        assert (found["loss"], found["top1_error"], found.get("top5_error")) == (0, 50, 0 if measured else None)
    found = evaluate_scores(logits, targets)
    assert found.errors == confusion.metrics()
    assert ("top5_wrong" in report.headline(found)) == ("top5_interval" in report.headline(found)) == measured


def test_what_is_kept_of_an_answer_is_what_scikit_learn_counts() -> None:
    """Ranks, losses and the five best, with ties between logits; truths beyond the fifth rank among them."""
    logits = torch.randn(300, 12, generator=torch.Generator().manual_seed(0)).mul(3).round().div(2)
    targets = torch.arange(300) % 12
    meter = ConfusionMeter(CPU, 12)
    for part in (slice(0, 170), slice(170, 300)):
        meter.add(F.cross_entropy(logits[part], targets[part]), logits[part], targets[part])
    truth, rank, log, *rest = meter.answers().T
    assert truth.tolist() == targets.tolist()
    assert 100 * (rank > 1).double().mean() == pytest.approx(meter.metrics()["top1_error"])
    assert 100 * (rank > 5).double().mean() == pytest.approx(meter.metrics()["top5_error"])
    theirs = log_loss(targets, logits.double().softmax(dim=1), labels=range(12))
    assert -log.double().mean() == pytest.approx(theirs, rel=1e-5)
    better = (logits > logits.gather(1, targets[:, None])).sum(dim=1)
    ties = (logits == logits.gather(1, targets[:, None])).sum(dim=1)
    assert ((rank > better) & (rank <= (better + ties).clamp(min=6))).all()
    best, logs = torch.stack(rest[:5], dim=1).long(), torch.stack(rest[5:], dim=1)
    assert torch.equal(best, answers(logits))
    torch.testing.assert_close(logs.exp(), logits.softmax(dim=1).gather(1, best))


def test_a_meter_goes_through_a_checkpoint(batch: tuple) -> None:
    meter, other = meter_over(*batch, 10), ConfusionMeter(CPU, CLASSES)
    other.load_state_dict(meter.state_dict())
    assert other.compute() == meter.compute() and other.n == N
    assert torch.equal(other.confusion, meter.confusion)
    with pytest.raises(KeyError, match="confusion"):  # sums that are not there are not taken for zeros
        other.load_state_dict(ClassificationMeter(CPU).state_dict())


def test_meters_of_two_processes_add_up_to_the_meter_over_all(batch: tuple) -> None:
    """`tensors()` and `n` are all that processes add up, the images left out of the mean loss among them."""
    logits, targets = batch
    whole, *parts = (ConfusionMeter(CPU, CLASSES) for _ in range(3))
    for number, (part, truths) in enumerate(zip(logits.split(10), targets.split(10), strict=True)):
        loss = torch.tensor(math.nan) if number == 4 else F.cross_entropy(part, truths)
        for meter in (whole, parts[number % 2]):
            meter.add(loss, part, truths, finite_only=True)
    first, second = parts
    for total, value in zip(first.tensors(), second.tensors(), strict=True):
        total += value
    first.n += second.n
    assert (first.n, int(first.left_out)) == (N, 10)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first.tensors()[1:], whole.tensors()[1:], strict=True))
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


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


@pytest.mark.parametrize("never", ["answered", "seen", "neither"])
def test_figures_of_unequal_classes_are_scikit_learns(never: str) -> None:
    """Also where a class is never answered, has no images, or neither."""
    generator = torch.Generator().manual_seed(3)
    targets = torch.multinomial(torch.tensor([90.0, 9, 4, 2, 1, 1]), 500, replacement=True, generator=generator)
    logits = torch.randn(500, 6, generator=generator) + 1.5 * F.one_hot(targets, 6)
    if never in ("answered", "neither"):
        logits[:, 4] = -99
    if never in ("seen", "neither"):
        targets[targets == 4] = 0
    found, meter = evaluate_scores(logits, targets), ConfusionMeter(CPU, 6)
    meter.add(torch.tensor(0.0), logits, targets)
    assert found.errors == meter.metrics()
    seen, guessed = targets.unique(), logits.argmax(1)
    each = precision_recall_fscore_support(targets, guessed, labels=range(6), zero_division=float("nan"))
    rows = report.per_class(found, list("abcdef"))
    for key, theirs in zip(("precision", "recall", "f1"), each, strict=False):
        for row, their in zip(rows, theirs, strict=True):
            assert row[key] is None if math.isnan(their) else row[key] == pytest.approx(100 * their), (row, key)
    precision, recall, f1, _ = precision_recall_fscore_support(
        targets, guessed, labels=seen, average="macro", zero_division=0
    )
    assert found.errors["balanced_error"] == pytest.approx(100 * (1 - recall))
    assert found.errors["macro_precision"] == pytest.approx(100 * precision)
    assert found.errors["macro_f1"] == pytest.approx(100 * f1)
    with pytest.warns(UserWarning) if never == "seen" else nullcontext():
        assert found.errors["balanced_error"] == pytest.approx(100 * (1 - balanced_accuracy_score(targets, guessed)))


# The evaluation of scores


def test_the_calibration_error_is_that_of_its_definition() -> None:
    """Against a loop over the images: mean |confidence - accuracy| of 15 equal bins, weighted by their counts."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = 3 * torch.randn(500, 4, generator=generator), torch.randint(4, (500,), generator=generator)
    found = evaluate_scores(logits, targets).calibration
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, target in zip(logits.double().softmax(1), targets.tolist(), strict=True):
        confidence, best = row.max(0)
        bins.setdefault(math.ceil(confidence.item() * 15) - 1, []).append((confidence.item(), best.item() == target))
    error = sum(abs(sum(c for c, _ in part) - sum(right for _, right in part)) for part in bins.values()) / 500
    assert found.error == pytest.approx(100 * error)
    assert found.counts.tolist() == [len(bins.get(index, [])) for index in range(15)]


def test_a_net_that_is_sure_and_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not() -> None:
    logits, targets = torch.eye(4) * 50, torch.arange(4)
    assert evaluate_scores(logits, targets).calibration.error == pytest.approx(0, abs=1e-9)
    assert evaluate_scores(logits, targets.roll(1)).calibration.error == pytest.approx(100)


def test_an_evaluation_counts_what_the_meter_of_training_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(100, 10, generator=generator), torch.randint(10, (100,), generator=generator)
    found = evaluate_scores(logits, targets)
    meter = ClassificationMeter(CPU)
    meter.add(F.cross_entropy(logits, targets), logits, targets)
    metrics = meter.compute()
    assert found.n == meter.n == 100
    assert found.loss == pytest.approx(metrics.pop("loss"))
    assert metrics == {"top1_error": found.top1_error, "top5_error": found.top5_error}
    assert found.errors.items() >= metrics.items()
    assert int(found.confusion.diagonal().sum()) == 100 - found.top1_wrong


def test_the_worst_mistakes_are_the_surest_wrong_answers() -> None:
    """By the probability of the answer, not by the loss: in the last row the true class has the smallest of all."""
    logits = torch.tensor([[9.0, 0, 0], [5, 0, 0], [0, 7, 0], [0, 0, 1], [-20, 3, 3.1]])
    targets = torch.tensor([0, 1, 0, 0, 0])
    assert worst_mistakes(logits, targets, 5).tolist() == [2, 1, 3, 4]
    assert worst_mistakes(logits, targets, 1).tolist() == [2]
