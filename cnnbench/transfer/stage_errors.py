"""Held-out errors of a linear classifier on the features of each stage, and by how much two stages differ.

A ridge regression is fitted on the features of each stage and answers for each image, or each group of images, without
having seen it. All stages answer for the same images, so that their difference has a paired interval.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnbench import data
from cnnbench.data.balance import class_weights
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor, feature_stages
from cnnbench.utils.statistics import newcombe

PROBED = (1000, 3000)  # images at most; the second number where the first leave open which of two stages is better
MOST_STAGES = 7
RIDGE = (0.01, 0.1, 1.0, 10.0)  # penalties per feature; the largest for classes of a few images


@dataclass(frozen=True, eq=False)
class StageErrors:
    """Which held-out images (N,) each stage gets wrong, and the images."""

    wrong: dict[str, Tensor]
    sample: data.Source

    @property
    def errors(self) -> dict[str, float]:
        """Balanced error of each stage in percent: each class counts once, however many images it has."""
        weights = _weights(self.sample.targets)
        return {name: 100 * float((wrong * weights).mean()) for name, wrong in self.wrong.items()}

    @property
    def earlier(self) -> str:
        """Stage before the last features with the lowest error; of a net that has none, these."""
        errors = self.errors
        return min((name for name in errors if name != PENULTIMATE), key=lambda name: errors[name], default=PENULTIMATE)

    @property
    def n(self) -> float:
        """Images of classes of equal size with which an error would be as exact; a group counts as one image."""
        groups = data.groups_of(self.sample)
        alone = 1.0 if groups is None else len(groups.unique()) / len(groups)
        return effective_n(self.sample.targets) * alone

    def gain(self, name: str) -> tuple[float, float, float]:
        """Points by which the stage errs less than the last features, and the paired 95 % interval of that."""
        last, other, weights = self.wrong[PENULTIMATE], self.wrong[name], _weights(self.sample.targets)
        first, second, both = (self.n * float((cases * weights).mean())
                               for cases in (other & ~last, last & ~other, other & last))  # fmt: skip
        low, high = newcombe(first, second, both, self.n)
        return 100 * (second - first) / self.n, low, high


def stage_errors(extractor: FeatureExtractor, source: data.Source) -> StageErrors:
    """Errors of at most MOST_STAGES stages, the last features among them, on at most PROBED[0] images.

    Where the interval between the last and the best earlier features holds 0, those two alone, on up to PROBED[1].
    """
    names = pick_evenly(feature_stages(extractor.model), MOST_STAGES)
    found = _probed(extractor, source, names, PROBED[0])
    if len(names) > 1 and len(source) > PROBED[0] and is_open(found.gain(found.earlier)):
        return _probed(extractor, source, [found.earlier, PENULTIMATE], PROBED[1])
    return found


def is_open(gain: tuple[float, float, float]) -> bool:
    """Whether the interval of a difference holds 0."""
    _, low, high = gain
    return low <= 0 <= high


def _probed(extractor: FeatureExtractor, source: data.Source, names: list[str], most: int) -> StageErrors:
    sample = first_images(source, most)
    features, groups = extractor(sample, names), data.groups_of(sample)
    return StageErrors({name: held_out_wrong(features[name], sample.targets, groups) for name in names}, sample)


def first_images(source: data.Source, most: int) -> data.Source:
    """About `most` of the images, evenly from each class; fewer are a part of more."""
    if len(source) <= most:
        return source
    return source.subset(data.pick(source.targets, most / len(source))[0])


def effective_n(targets: Tensor) -> float:
    """Images of classes of equal size with which an error would be as exact as a balanced error is with these: few
    images of one class leave much to chance."""
    counts = targets.bincount().double()
    counts = counts[counts > 0]
    return float(len(counts) ** 2 / (1 / counts).sum())


def pick_evenly(names: list[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced from the first to the last."""
    if len(names) <= most:
        return names
    return [names[round(number * (len(names) - 1) / (most - 1))] for number in range(most)]


def held_out_wrong(features: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
    """Whether a ridge regression classifier that has not seen an image gets it wrong, bool (N,), with the penalty whose
    balanced error is lowest.

    In the fit, too, images count by the rarity of their class. With groups, a whole group is left out at a time.

    Ridge regression replaces the SVM because it ranks features alike and leave-one-out is free: the residual of an
    image left out is its residual / (1 - h), with h its diagonal entry of the hat matrix; of a group, with its block.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6 * float(x.std()) + 1e-12)
    y = 2 * nn.functional.one_hot(targets).double() - 1
    kernel = x @ x.T / x.shape[1] + 1  # the 1 is a constant feature, for the intercept
    weights = _weights(targets)
    return min(_wrong_by_ridge(kernel, y, weights, groups), key=lambda wrong: float((wrong * weights).mean()))


def _weights(targets: Tensor) -> Tensor:
    """Weight of each image, of mean 1: those of a class weigh as much as those of another."""
    return class_weights(targets, int(targets.max()) + 1)[targets].double()


def _wrong_by_ridge(kernel: Tensor, y: Tensor, weights: Tensor, groups: Tensor | None) -> Iterable[Tensor]:
    for ridge in RIDGE:
        hat = kernel @ torch.linalg.inv(kernel + ridge * torch.diag(1 / weights))
        left_out = y - _left_out_residuals(y - hat @ y, hat, groups)
        yield left_out.argmax(1) != y.argmax(1)


def _left_out_residuals(residuals: Tensor, hat: Tensor, groups: Tensor | None) -> Tensor:
    """Residuals (N, classes) of images that the fit has not seen."""
    if groups is None:
        return residuals / (1 - hat.diagonal()[:, None])
    found = torch.empty_like(residuals)
    for group in groups.unique():
        members = (groups == group).nonzero().flatten()
        block = torch.eye(len(members), dtype=hat.dtype) - hat[members][:, members]
        found[members] = torch.linalg.solve(block, residuals[members])
    return found
