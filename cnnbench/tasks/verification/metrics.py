"""What distances between pairs of images are worth: ROC, AUC, equal error rate, and accuracy by folds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.data.pairs import Pairs
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.verification import ACCURACY, AUC, EER, STANDARD_ERROR, TAR
from cnnbench.utils.errors import UserError

FAR = 0.01
MARGIN = 1.0  # of the loss that is reported, whatever was trained for


@dataclass(frozen=True, eq=False)
class Roc:
    """Rates in 0..1 of pairs that are accepted as one person's up to each distance: of two people's (false) and of one
    person's (true). The first accepts nothing."""

    distances: np.ndarray
    false: np.ndarray
    true: np.ndarray


@dataclass(frozen=True, eq=False)
class Judgement:
    """Accuracy in 0..1 of each fold by the threshold of the others."""

    accuracies: np.ndarray
    thresholds: np.ndarray
    fold: np.ndarray  # int64 (P,), of each pair
    right: np.ndarray  # bool (P,)

    @property
    def accuracy(self) -> float:
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean over the folds, as LFW's rules have it."""
        return float(self.accuracies.std(ddof=1) / math.sqrt(len(self.accuracies)))


def distances(embeddings: Tensor, pairs: Pairs) -> np.ndarray:
    """1 - cosine of the two embeddings of each pair, float64 (P,), in 0..2. embeddings (N, D), of any length."""
    unit = F.normalize(embeddings.double().cpu())
    found: np.ndarray = (1 - (unit[pairs.first] * unit[pairs.second]).sum(1)).clamp(0, 2).numpy()
    return found


def roc(far: np.ndarray, same: np.ndarray) -> Roc:
    """Rates up to each distance that occurs. far: distances (P,); same: bool (P,)."""
    order = np.argsort(far, kind="stable")
    sorted_far, sorted_same = far[order], same[order]
    last = np.append(np.diff(sorted_far) > 0, True)  # of those of one distance: all are accepted, or none
    true, false = np.cumsum(sorted_same)[last], np.cumsum(~sorted_same)[last]
    return Roc(
        np.append(-np.inf, sorted_far[last]),
        np.append(0, false) / max(false[-1], 1),
        np.append(0, true) / max(true[-1], 1),
    )


def area(curve: Roc) -> float:
    """Area under the curve: the probability that a pair of one person is nearer than a pair of two."""
    return float(np.trapezoid(curve.true, curve.false))


def equal_error_rate(curve: Roc) -> float:
    """Rate at which as many pairs of two people are accepted as pairs of one are refused, between two points of the
    curve on the straight line."""
    missed = 1 - curve.true
    after = int(np.argmax(curve.false >= missed))
    if after == 0:
        return float(curve.false[0])
    before = after - 1
    gap, next_gap = missed[before] - curve.false[before], curve.false[after] - missed[after]
    share = gap / (gap + next_gap) if gap + next_gap else 0.0
    return float(curve.false[before] + share * (curve.false[after] - curve.false[before]))


def true_accepts(curve: Roc, far: float = FAR) -> float:
    """Largest rate of true accepts with at most this rate of false ones."""
    return float(curve.true[curve.false <= far].max())


def best_threshold(far: np.ndarray, same: np.ndarray) -> float:
    """Distance up to which pairs are to be accepted so that most of these are right: half-way between two that occur;
    of several as good ones the middle one."""
    values, place = np.unique(far, return_inverse=True)
    kinds = np.bincount(place, np.where(same, 1.0, -1.0))
    right = np.append(0.0, np.cumsum(kinds))  # more right than if nothing is accepted
    between = np.concatenate([[values[0] / 2], (values[:-1] + values[1:]) / 2, [(values[-1] + 2) / 2]])
    best = np.flatnonzero(right == right.max())
    return float(between[best[len(best) // 2]])


def folds_of(pairs: Pairs) -> np.ndarray:
    """Fold of each pair, int64 (P,): the set's own; else both kinds are divided evenly, in their order.

    UserError where there are fewer pairs of a kind than folds.
    """
    if pairs.fold is not None:
        own: np.ndarray = pairs.fold.numpy()
        return own
    same, count = pairs.same.numpy(), pairs.folds
    fewest = int(min(same.sum(), (~same).sum()))
    if fewest < 2:
        raise UserError(f"{pairs.origin}: folds need two pairs of each kind or more, and of one kind there is {fewest}")
    count = min(count, fewest)
    kinds = (same, ~same) if same[0] else (~same, same)
    sizes = np.concatenate([np.full(kind.sum(), number) for number, kind in enumerate(kinds)])
    found = np.empty(len(same), np.int64)
    for number, kind in enumerate(kinds):  # as scikit-learn's StratifiedKFold shares a remainder out
        shares = [int((sizes[fold::count] == number).sum()) for fold in range(count)]
        found[kind] = np.repeat(np.arange(count), shares)
    return found


def judged(far: np.ndarray, pairs: Pairs) -> Judgement:
    """Each fold by the threshold that suits the others best."""
    same, fold = pairs.same.numpy(), folds_of(pairs)
    numbers = np.unique(fold)
    thresholds = np.array([best_threshold(far[fold != one], same[fold != one]) for one in numbers])
    right = (far <= thresholds[np.searchsorted(numbers, fold)]) == same
    return Judgement(np.array([right[fold == one].mean() for one in numbers]), thresholds, fold, right)


def contrastive(far: np.ndarray, same: np.ndarray) -> float:
    """Contrastive loss of pairs (Hadsell, Chopra & LeCun, 2006) by the straight distance of embeddings of length 1."""
    straight = np.sqrt(2 * far)
    return float(np.where(same, far, np.maximum(MARGIN - straight, 0) ** 2 / 2).mean())


def scores(far: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """All metrics by name."""
    curve, found = roc(far, pairs.same.numpy()), judged(far, pairs)
    return {
        ACCURACY.name: 100 * found.accuracy,
        STANDARD_ERROR: 100 * found.standard_error,
        AUC.name: area(curve),
        EER.name: 100 * equal_error_rate(curve),
        TAR.name: 100 * true_accepts(curve),
    }


class PairMeter(Meter):
    """Embeddings of all images, whose pairs are judged when all are there."""

    def __init__(self, runtime: Runtime, pairs: Pairs, length: int) -> None:
        super().__init__(runtime)
        self.pairs = pairs
        self.rows = [torch.zeros(0, length, device=runtime.device)]
        self.gathered: Tensor | None = None

    def update(self, outputs: Tensor, targets: Any) -> None:
        self.rows.append(outputs.float())

    def gather(self, gather: Callable[[Tensor], Tensor]) -> None:
        self.gathered = gather(torch.cat(self.rows))

    @property
    def distances(self) -> np.ndarray:
        return distances(torch.cat(self.rows) if self.gathered is None else self.gathered, self.pairs)

    def mean_loss(self) -> float:
        """Mean over the pairs, not over the images."""
        return contrastive(self.distances, self.pairs.same.numpy()) if math.isfinite(self.loss.item()) else math.nan

    def metrics(self) -> dict[str, float]:
        return scores(self.distances, self.pairs)

    def threshold(self) -> float:
        """Distance that suits all these pairs best: for others than these."""
        return best_threshold(self.distances, self.pairs.same.numpy())

    def answers(self) -> Tensor:
        return torch.cat(self.rows)
