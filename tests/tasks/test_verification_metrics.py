"""What distances are worth, against scikit-learn and by hand; the losses, against their formulas."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional as F

from cnnbench.config.sections import Head, HeadConfig
from cnnbench.data.pairs import DRAWN, Pairs, drawn
from cnnbench.tasks.verification import metrics
from cnnbench.tasks.verification.losses import contrastive_loss, with_margin
from cnnbench.utils.errors import UserError


def noisy(count: int, ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.4
    far = rng.normal(1 - 0.3 * same, 0.2).clip(0, 2)
    return (far.round(1) if ties else far), same


def pairs_with(same: np.ndarray, fold: list[int] | None = None, folds: int = 10) -> Pairs:
    count, own = torch.arange(len(same)), None if fold is None else torch.tensor(fold)
    return Pairs(count, count, torch.from_numpy(same), own, folds, "some pairs")


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_and_its_area_are_scikit_learns(ties: bool) -> None:
    far, same = noisy(300, ties)
    curve = metrics.roc(far, same)
    false, true, thresholds = roc_curve(same, -far, drop_intermediate=False)
    assert np.allclose(curve.false, false) and np.allclose(curve.true, true)
    assert np.allclose(curve.distances[1:], -thresholds[1:])
    assert metrics.area(curve) == pytest.approx(roc_auc_score(same, -far), abs=1e-12)
    assert metrics.true_accepts(curve, 0.1) == true[false <= 0.1].max()


def test_the_equal_error_rate_lies_where_both_errors_are_alike() -> None:
    far, same = noisy(2000, ties=False)
    rate = metrics.equal_error_rate(metrics.roc(far, same))
    false, true, _ = roc_curve(same, -far, drop_intermediate=False)
    crossing = np.interp(0, false - (1 - true), false)  # the differences rise from -1 to 1
    assert rate == pytest.approx(crossing, abs=1e-9)
    apart = metrics.roc(np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False]))
    assert metrics.equal_error_rate(apart) == 0 and metrics.area(apart) == 1
    swapped = metrics.roc(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert metrics.equal_error_rate(swapped) == 1 and metrics.true_accepts(swapped) == 0


@pytest.mark.parametrize("count", [40, 47, 103])
def test_pairs_are_dealt_to_folds_as_by_scikit_learn(count: int) -> None:
    for seed in range(4):
        _, same = noisy(count, ties=False, seed=seed)
        ours, theirs = metrics.folds_of(pairs_with(same)), np.empty(count, np.int64)
        for number, (_, fold) in enumerate(StratifiedKFold(10).split(same, same)):
            theirs[fold] = number
        assert ours.tolist() == theirs.tolist()


def test_a_fold_is_judged_by_the_threshold_of_the_others_alone() -> None:
    far = np.array([0.1, 0.3, 0.5, 0.7, 1.1, 1.3, 1.5, 1.7])
    same = np.array([True, True, False, False, True, True, False, False])
    found = metrics.judged(far, pairs_with(same, [0, 0, 0, 0, 1, 1, 1, 1]))
    assert found.thresholds.tolist() == pytest.approx([1.4, 0.4])  # half-way between the kinds of the other fold
    assert found.right.tolist() == [True, True, False, False, False, False, True, True]
    assert (found.accuracy, found.accuracies.tolist()) == (0.5, [0.5, 0.5])


def test_accuracy_and_its_standard_error_are_those_of_a_plain_loop() -> None:
    far, same = noisy(400, ties=False)
    order = np.argsort(~same, kind="stable")  # as tables of pairs are: one kind behind the other
    far, same = far[order], same[order]
    accuracies = []
    for others, fold in StratifiedKFold(10).split(far, same):
        best = max((np.mean((far[others] <= t) == same[others]), t) for t in np.linspace(0, 2, 4001))[0]
        ours = metrics.best_threshold(far[others], same[others])
        assert np.mean((far[others] <= ours) == same[others]) >= best - 1e-12
        accuracies.append(100 * np.mean((far[fold] <= ours) == same[fold]))
    found = metrics.scores(far, pairs_with(same))
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["accuracy_standard_error"] == pytest.approx(np.std(accuracies, ddof=1) / math.sqrt(10))


def test_folds_need_two_pairs_of_each_kind() -> None:
    assert set(metrics.folds_of(pairs_with(np.array([True] * 3 + [False] * 9))).tolist()) == {0, 1, 2}
    with pytest.raises(UserError, match="some pairs: folds need two pairs of each kind or more, and of one"):
        metrics.folds_of(pairs_with(np.array([True] * 1 + [False] * 9)))


def test_drawn_pairs_are_even_different_and_always_the_same() -> None:
    people = torch.arange(60).repeat_interleave(7)
    found, again = drawn(people, 10), drawn(people, 10)
    assert torch.equal(found.first, again.first) and torch.equal(found.second, again.second)
    assert len(found) == 2 * DRAWN and int(found.same.sum()) == DRAWN
    assert torch.equal(people[found.first] == people[found.second], found.same)
    ends = {tuple(sorted(pair)) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)}
    assert len(ends) == len(found) and all(first != second for first, second in ends)
    few = drawn(torch.tensor([5, 5, 9]), 10)
    assert few.same.tolist() == [True, False] and "among 2 people, seed 0" in few.origin
    for lonely, why in (([1, 2, 3], "no two images of one person"), ([4, 4], "images of one person alone")):
        with pytest.raises(UserError, match=why):
            drawn(torch.tensor(lonely), 10)


def test_pairs_follow_their_images_into_a_subset() -> None:
    pairs = Pairs(torch.tensor([0, 1, 2]), torch.tensor([3, 2, 0]), torch.tensor([True, False, True]))
    some = pairs.among(torch.tensor([2, 0, 3]))
    assert (some.first.tolist(), some.second.tolist(), some.same.tolist()) == ([1, 0], [2, 1], [True, True])


def test_margins_are_those_of_the_papers() -> None:
    cosine = torch.tensor([[0.8, 0.1, -0.3], [0.2, -0.99, 0.4]], dtype=torch.float64)
    people = torch.tensor([0, 1])
    cos = with_margin(cosine, people, HeadConfig(name=Head.cosface, scale=30.0, margin=0.35))
    assert torch.allclose(cos, 30 * (cosine - 0.35 * F.one_hot(people, 3)))
    arc = with_margin(cosine, people, HeadConfig(name=Head.arcface, scale=64.0, margin=0.5))
    assert arc[0, 0].item() == pytest.approx(64 * math.cos(math.acos(0.8) + 0.5))
    assert arc[1, 1].item() == pytest.approx(64 * (-0.99 - 0.5 * math.sin(0.5)))  # beyond 180 degrees
    assert torch.allclose(arc[:, 2], 64 * cosine[:, 2])
    assert with_margin(cosine, people, HeadConfig()) is cosine


def test_the_contrastive_loss_is_that_of_a_plain_loop_and_has_a_gradient_at_zero_distance() -> None:
    embeddings = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    people = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    total = 0.0
    for i in range(7):
        near = [float((embeddings[i] - embeddings[j]).square().sum()) for j in range(7)
                if j != i and people[j] == people[i]]  # fmt: skip
        far = [max(0.0, 1.2 - float((embeddings[i] - embeddings[j]).norm())) ** 2 for j in range(7)
               if people[j] != people[i]]  # fmt: skip
        total += (np.mean(near) if near else 0.0) / 2 + np.mean(far) / 2
    assert contrastive_loss(embeddings, people, 1.2).item() == pytest.approx(total / 7, abs=1e-6)
    twins = torch.ones(2, 3, requires_grad=True)
    contrastive_loss(F.normalize(twins), torch.tensor([0, 1]), 1.0).backward()
    assert twins.grad is not None and twins.grad.isfinite().all()
