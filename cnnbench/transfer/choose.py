"""Chooses the transfer strategy: the lecture's 2x2 of how much data there is and how similar it is to the net's own.

                          little data                           a lot of data
    similar data          svm: a linear SVM on the              partial: fine-tune the upper
                          bottleneck features                   layers
    different data        deep_features: a linear SVM on        full: fine-tune all layers
                          the features of an earlier stage

Amount: images per class. Similarity: a linear classifier is fitted on the features of each stage and measured on
held-out images, by the balanced error: each class counts once, however many images it has. If the last features, made
for the classes that the net was trained on, are the best, the data are similar. If an earlier stage separates the
classes better, the data are different. If no stage beats the answer that is always the same, nothing is advised.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import data
from cnnbench.config.sections import Format, Strategy
from cnnbench.data import Dataset
from cnnbench.data.balance import class_counts, class_weights, unequal
from cnnbench.data.spread import shorter_side
from cnnbench.output.tables import render
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor, feature_stages
from cnnbench.utils.format import plural

MOST_IMAGES = 1000  # measured: enough to see a difference of a few percent between stages
MOST_STAGES = 7
SMALL, MISSED = 64, 5.0  # a net for so few pixels may be the cause of an error of more than so many percent
RIDGE = (0.01, 0.1, 1.0, 10.0)  # penalties per feature; the largest for classes of a few images
SURE = 3  # standard errors below chance: the best of some 28 tries is in part the luckiest

QUADRANTS = {  # (a lot of data, similar data): strategy, the lecture's advice
    (False, True): (Strategy.svm, "little data, similar: a linear SVM on top of the bottleneck features"),
    (False, False): (
        Strategy.deep_features,
        "little data, different: a classifier on features from earlier in the net",
    ),
    (True, True): (Strategy.partial, "a lot of data, similar: fine-tune the upper layers"),
    (True, False): (Strategy.full, "a lot of data, different: fine-tune all layers, from these weights"),
}


NOTHING = {  # a lot of data: strategy, where no stage is of use
    False: (Strategy.svm, "no strategy can be advised: look at the images (cnnbench doctor data), or try another net; "
            "the quickest is an SVM"),
    True: (Strategy.full, "no strategy can be advised: look at the images (cnnbench doctor data), or try another net; "
           "with this many images all layers may learn"),
}  # fmt: skip


@dataclass(frozen=True)
class StrategyAdvice:
    """Chosen strategy and its reasons. errors: held-out balanced error in percent of a linear classifier on each
    stage; chance_error: that of the answer that is always the same."""

    strategy: Strategy
    quadrant: str
    images_per_class: float
    many: int
    errors: dict[str, float]
    chance_error: float
    n: int
    best: str
    beats_chance: bool = True
    counts: tuple[int, ...] = ()
    small_net: str = ""  # sentence where the net may be too small for the images
    grouped: bool = False  # whether whole groups were left out

    @property
    def similar(self) -> bool | None:
        """None: it cannot be said."""
        return self.best == PENULTIMATE if self.beats_chance else None

    def text(self, command: str) -> str:
        rows = [
            {
                "features": name,
                "held-out error": f"{error:.1f} %",
                "": "<- best" if name == self.best and self.beats_chance else "",
            }
            for name, error in self.errors.items()
        ]
        amount = "little" if self.images_per_class < self.many else "a lot"
        return "\n".join([
            f"a linear classifier on the features of each stage, {plural(self.n, 'image')}, "
            f"each {'group ' if self.grouped else ''}left out in turn"
            f"{'; each class counts once' if unequal(self.counts) else ''}:",
            *(f"  {line}" for line in render(rows, Format.table).splitlines()),
            f"data   {amount}: {plural(round(self.images_per_class), 'image')} per class{self._range()} (a lot from "
            f"{self.many:,} on)",
            f"       {self._nearness()}",
            *([f"net    {self.small_net}"] if self.small_net else []),
            f"so     {self.quadrant}",
            f"       {command}",
        ])  # fmt: skip

    def _range(self) -> str:
        return f", {min(self.counts):,} to {max(self.counts):,}" if unequal(self.counts) else ""

    def _nearness(self) -> str:
        last, best = self.errors[PENULTIMATE], self.errors[self.best]
        chance = f"by chance {self.chance_error:.0f} %"
        if not self.beats_chance:
            lowest = min(self.errors.values())
            return (f"neither similar nor different: no stage is clearly better than always the same answer "
                    f"({lowest:.1f} % wrong; {chance})")  # fmt: skip
        if self.similar:
            return f"similar: no earlier features beat the last ({last:.1f} % wrong; {chance})"
        return (f"different: {self.best} separates the classes better ({best:.1f} % wrong) than the last features "
                f"({last:.1f} %; {chance})")  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.value,
            "quadrant": self.quadrant,
            "images_per_class": self.images_per_class,
            "similar": self.similar,
            "best_features": self.best,
            "held_out_errors": self.errors,
            "chance_error": self.chance_error,
            "n": self.n,
            "beats_chance": self.beats_chance,
            "small_net": self.small_net or None,
        }


def choose_strategy(extractor: FeatureExtractor, dataset: Dataset, many: int) -> StrategyAdvice:
    """Strategy for the data: both axes are measured on at most MOST_IMAGES training images."""
    errors, sample = layer_errors(extractor, dataset)
    counts, n = class_counts(dataset.train, len(dataset.classes)), effective_n(sample.targets)
    best, chance = best_layer(errors, n), 100 * (1 - 1 / sum(count > 0 for count in counts))
    per_class = len(dataset.train) / len(counts)
    beats = min(errors.values()) < chance - SURE * standard_error(chance, n)
    strategy, quadrant = QUADRANTS[per_class >= many, best == PENULTIMATE] if beats else NOTHING[per_class >= many]
    small = too_small(extractor, dataset) if min(errors.values()) > MISSED else ""
    grouped, judged = data.groups_of(sample) is not None, len(sample)
    return StrategyAdvice(
        strategy, quadrant, per_class, many, errors, chance, judged, best, beats, counts, small, grouped
    )


def too_small(extractor: FeatureExtractor, dataset: Dataset) -> str:
    """Sentence where a net for small images judges larger ones; empty where that is not so."""
    size, side = extractor.spec.input.image_size, shorter_side(dataset.train)
    if size > SMALL or side < 2 * size:
        return ""
    return (
        f"{extractor.spec.model['name']} sees {size} px of images of {side} px, too few for most photographs: a net "
        "for 224 px errs far less, as model=resnet34 (docs/your-data.md)"
    )


def layer_errors(extractor: FeatureExtractor, dataset: Dataset) -> tuple[dict[str, float], data.Source]:
    """Held-out error of at most MOST_STAGES stages, including the last features, and the images used."""
    sample = dataset.train
    if len(sample) > MOST_IMAGES:
        sample = sample.subset(data.pick(sample.targets, MOST_IMAGES / len(sample))[0])
    names = pick_evenly(feature_stages(extractor.model), MOST_STAGES)
    features = extractor(sample, names)
    groups = data.groups_of(sample)
    return {name: held_out_error(features[name], sample.targets, groups) for name in names}, sample


def best_layer(errors: dict[str, float], n: float) -> str:
    """Stage with the lowest error; the last features unless another is better by more than two standard errors."""
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < errors[PENULTIMATE] - 2 * standard_error(errors[PENULTIMATE], n) else PENULTIMATE


def standard_error(error: float, n: float) -> float:
    """Standard error of an error in percent of n images."""
    p = error / 100
    return 100 * math.sqrt(max(p * (1 - p), 1 / n) / n)


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


def held_out_error(features: Tensor, targets: Tensor, groups: Tensor | None = None) -> float:
    """Leave-one-out balanced error in percent of a ridge regression classifier, with the best of a few penalties.

    In the fit, too, images count by the rarity of their class.

    With groups, a whole group is left out at a time.

    Ridge regression replaces the SVM because it ranks features alike and leave-one-out is free: the residual of an
    image left out is its residual / (1 - h), with h its diagonal entry of the hat matrix; of a group, with its block.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6 * float(x.std()) + 1e-12)
    y = 2 * nn.functional.one_hot(targets).double() - 1
    kernel = x @ x.T / x.shape[1] + 1  # the 1 is a constant feature, for the intercept
    weights = class_weights(targets, int(targets.max()) + 1)[targets].double()  # of mean 1 over the images
    errors = []
    for ridge in RIDGE:
        hat = kernel @ torch.linalg.inv(kernel + ridge * torch.diag(1 / weights))
        left_out = y - _left_out_residuals(y - hat @ y, hat, groups)
        wrong = (left_out.argmax(1) != targets).double()
        errors.append(100 * float((wrong * weights).mean()))
    return min(errors)


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
