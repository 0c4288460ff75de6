"""Splits of a set of images: held-out parts, folds and samples, evenly from each class, with groups kept whole.

The images are the same for every seed of a training, so that runs can be compared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.sources import Source, has_spatial_targets
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

TRAIN, VAL, TEST = 0, 1, 2


class Parts(NamedTuple):
    """Indices int64 of the images of each part."""

    train: Tensor
    val: Tensor
    test: Tensor


def strata(source: Source) -> Tensor:
    """Class of each image, int64 (N,), for stratified sampling; zeros where images have masks."""
    return torch.zeros(len(source), dtype=torch.int64) if has_spatial_targets(source) else source.targets


def groups_of(source: Source) -> Tensor | None:
    """Number of the group of each image, int64 (N,); None without `data.group=`."""
    return source.groups


def hold_out(source: Source, val: float, test: float) -> Parts:
    """Parts of a source: these fractions of each class, with at least one image each where the class has enough.

    A class keeps an image to train on. A smaller fraction gives a subset of a larger one, and `val` does not depend on
    `test`, except where there are groups, which stay whole. UserError where they leave a part empty.
    """
    targets, groups = strata(source), groups_of(source)
    if groups is None:
        number = _dealt_images(targets, val, test)
    else:
        number = torch.from_numpy(deal(targets.numpy(), groups.numpy(), (1 - val - test, val, test), keep=True))
    return Parts(*((number == part).nonzero().flatten() for part in (TRAIN, VAL, TEST)))


def _dealt_images(targets: Tensor, val: float, test: float) -> Tensor:
    """Part of each image: of each class the first images of a permutation are `val`, the last are `test`."""
    rng = np.random.default_rng(0)
    number = torch.full((len(targets),), TRAIN)
    for members in _by_class(targets):
        shuffled = members[torch.from_numpy(rng.permutation(len(members)))]
        first = _count(val, len(members), 1)
        last = _count(test, len(members), 1 + first)
        number[shuffled[:first]] = VAL
        number[shuffled[len(members) - last :]] = TEST
    return number


def _by_class(targets: Tensor) -> Sequence[Tensor]:
    return torch.split(torch.argsort(targets, stable=True), torch.bincount(targets).tolist())


def _count(fraction: float, images: int, leave: int) -> int:
    """So many of a class's images: at least one, but for a fraction of 0, and at most all but `leave`."""
    return max(0, min(max(1, round(fraction * images)), images - leave)) if fraction else 0


def pick(targets: Tensor, fraction: float, *, leave: int = 0) -> tuple[Tensor, Tensor]:
    """Stratified sample: indices of `fraction` of each class (at least one image, at most all but `leave`), and of the
    others. A smaller fraction gives a subset of a larger one."""
    rng = np.random.default_rng(0)
    picked = torch.zeros(len(targets), dtype=torch.bool)
    for members in _by_class(targets):
        order = torch.from_numpy(rng.permutation(len(members)))
        picked[members[order[: _count(fraction, len(members), leave)]]] = True
    return picked.nonzero().flatten(), (~picked).nonzero().flatten()


def sample(source: Source, fraction: float) -> Tensor:
    """Indices of a fraction of each class, at least one image of each, where there are groups of whole groups.

    Without groups a smaller fraction gives a subset of a larger one. UserError where the groups are too few.
    """
    groups = groups_of(source)
    if groups is None:
        return pick(strata(source), fraction)[0]
    number = deal(strata(source).numpy(), groups.numpy(), (fraction, 1 - fraction), keep=True)
    return torch.from_numpy(number == TRAIN).nonzero().flatten()


def folds(source: Source, count: int) -> list[tuple[Tensor, Tensor]]:
    """Stratified folds for cross-validation: for each, the indices of the other images and of its own.

    UserError where a class has fewer images than there are folds, or groups leave a fold without a class to learn.
    """
    targets, groups = strata(source), groups_of(source)
    if groups is None:
        number = _folds_of_images(targets, count)
    else:
        number = torch.from_numpy(folds_of_groups(targets.numpy(), groups.numpy(), count))
    return [((number != fold).nonzero().flatten(), (number == fold).nonzero().flatten()) for fold in range(count)]


def _folds_of_images(targets: Tensor, count: int) -> Tensor:
    fewest = int(torch.bincount(targets).min())
    if fewest < count:
        raise UserError(f"folds={count} needs at least {count} images in every class, but one class has {fewest}")
    rng = np.random.default_rng(0)
    number = torch.empty(len(targets), dtype=torch.int64)
    for members in _by_class(targets):
        number[members[torch.from_numpy(rng.permutation(len(members)))]] = torch.arange(len(members)) % count
    return number


def folds_of_groups(targets: np.ndarray, groups: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Fold of each image, int64 (N,). UserError where all images of a class are in one fold: the others lack it."""
    fewest = fewest_groups(targets, groups)
    if fewest < 2:
        raise UserError(f"folds={count} needs at least 2 groups with images of every class, but one class has {fewest}")
    number = deal(targets, groups, (1 / count,) * count, seed)
    where = np.zeros((count, int(targets.max()) + 1), dtype=bool)
    where[number, targets] = True
    if (where.sum(0) < 2).any():
        raise UserError(f"folds={count}: these groups put all images of a class into one fold; try fewer folds")
    return number


def fewest_groups(targets: np.ndarray, groups: np.ndarray) -> int:
    """Groups that hold images of a class, for the class with the fewest."""
    return int(np.bincount(np.unique(np.stack([targets, groups]), axis=1)[0]).min())


def deal(
    targets: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int = 0, *, keep: bool = False
) -> np.ndarray:
    """Part of each image, int64 (N,): whole groups, so that each part gets about its share of every class.

    Large groups first, each goes where the classes are then most even. With equal shares that is what scikit-learn's
    StratifiedGroupKFold does. keep: the first part has images of every class, the others where groups suffice.
    UserError where a part stays empty.
    """
    _, number = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(number.max()) + 1, int(targets.max()) + 1), dtype=np.int64)
    np.add.at(counts, (number, targets), 1)
    dealt = _Dealt(counts, np.asarray(shares), keep)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    large_first = np.argsort(-np.linalg.norm(counts / dealt.totals, axis=1)[shuffled], kind="stable")
    for group in shuffled[large_first].tolist():
        dealt.put(group)
    for part in dealt.open:
        if not (dealt.part == part).any():
            dealt.fill(part)
        if keep:
            dealt.complete(part)
    return dealt.part[number]


class _Dealt:
    """Groups dealt out to parts so far. counts: int64 (groups, classes)."""

    def __init__(self, counts: np.ndarray, shares: np.ndarray, keep: bool) -> None:
        self.counts, self.shares, self.keep = counts, shares, keep
        self.totals = np.maximum(counts.sum(0), 1)
        self.filled = np.zeros((len(shares), counts.shape[1]))
        self.part = np.full(len(counts), -1)
        self.every = np.arange(counts.shape[1])
        self.open: list[int] = np.flatnonzero(shares).tolist()  # parts that get something

    def put(self, group: int) -> None:
        """Put a group into the part where the classes are then most even."""
        classes = np.flatnonzero(self.counts[group])
        if self.keep and (self.filled[0, classes] == 0).any():
            self._move(group, 0)
        else:
            self._move(group, min(self.open, key=lambda part: (self._unevenness(group, part, classes), part)))

    def fill(self, part: int) -> None:
        """Move a group into an empty part. UserError where no other part can spare one."""
        spare = [group for group in range(len(self.counts)) if self._can_spare(group)]
        if not spare:
            raise UserError(
                f"data.group: {plural(len(self.counts), 'group')} cannot be divided into {len(self.open)} parts "
                f"{'with every class to train on' if self.keep else ''}: a part stays empty"
            )
        self._move(min(spare, key=lambda group: self._unevenness(group, part, self.every)), part)

    def complete(self, part: int) -> None:
        """Move a group of each class that a part lacks into it, where others keep one."""
        for label in np.flatnonzero((self.filled[part] == 0) & (self.counts.sum(0) > 0)):
            spare = [group for group in np.flatnonzero(self.counts[:, label]).tolist() if self._keeps_classes(group)]
            if spare:
                self._move(min(spare, key=lambda group: self._unevenness(group, part, self.every)), part)

    def _can_spare(self, group: int) -> bool:
        """Whether its part keeps other groups, and the first part every class that it must keep."""
        others = (self.part == self.part[group]).sum() > 1
        return bool(others and (self._keeps_classes(group) or not self.keep or self.part[group] != 0))

    def _keeps_classes(self, group: int) -> bool:
        """Whether the group's part has other images of each class in the group."""
        left = self.filled[self.part[group]] - self.counts[group]
        return bool((left[self.counts[group] > 0] > 0).all())

    def _move(self, group: int, part: int) -> None:
        if self.part[group] >= 0:
            self.filled[self.part[group]] -= self.counts[group]
        self.filled[part] += self.counts[group]
        self.part[group] = part

    def _unevenness(self, group: int, part: int, classes: np.ndarray) -> float:
        """How much the parts differ in these classes, relative to their shares, more than before the group is there."""
        before = self.filled[self.open][:, classes] / (self.shares[self.open][:, None] * self.totals[classes])
        after = before.copy()
        after[self.open.index(part)] += self.counts[group, classes] / (self.shares[part] * self.totals[classes])
        if self.part[group] >= 0:
            there = int(self.part[group])
            after[self.open.index(there)] -= self.counts[group, classes] / (self.shares[there] * self.totals[classes])
        return float((after.std(0) - before.std(0)).sum())
