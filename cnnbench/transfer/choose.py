"""Chooses the transfer strategy: the lecture's 2x2 of how much data there is and how similar it is to the net's own.

                          little data                           a lot of data
    similar data          svm: a linear SVM on the              partial: fine-tune the upper
                          bottleneck features                   layers
    different data        deep_features: a linear SVM on        full: fine-tune all layers
                          the features of an earlier stage

Amount: images per class. Similarity: a linear classifier is fitted on the features of each stage and measured on
held-out images. If the last features, made for the classes that the net was trained on, are the best, the data are
similar. If an earlier stage separates the classes better, the data are different.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench import data
from cnnbench.config.sections import Format, Strategy
from cnnbench.data import Dataset
from cnnbench.output.tables import render
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor, feature_stages
from cnnbench.utils.format import plural

MOST_IMAGES = 1000  # measured: enough to see a difference of a few percent between stages
MOST_STAGES = 7
RIDGE = (0.01, 0.1, 1.0)  # penalties per feature

QUADRANTS = {  # (a lot of data, similar data): strategy, the lecture's advice
    (False, True): (Strategy.svm, "little data, similar: a linear SVM on top of the bottleneck features"),
    (False, False): (
        Strategy.deep_features,
        "little data, different: a classifier on features from earlier in the net",
    ),
    (True, True): (Strategy.partial, "a lot of data, similar: fine-tune the upper layers"),
    (True, False): (Strategy.full, "a lot of data, different: fine-tune all layers, from these weights"),
}


@dataclass(frozen=True)
class StrategyAdvice:
    """Chosen strategy and its reasons. errors: held-out error in percent of a linear classifier on each stage."""

    strategy: Strategy
    quadrant: str
    images_per_class: float
    many: int
    errors: dict[str, float]
    chance_error: float
    n: int
    best: str

    @property
    def similar(self) -> bool:
        return self.best == PENULTIMATE

    def text(self, command: str) -> str:
        rows = [
            {"features": name, "held-out error": f"{error:.1f} %", "": "<- best" if name == self.best else ""}
            for name, error in self.errors.items()
        ]
        last, best = self.errors[PENULTIMATE], self.errors[self.best]
        near = (
            f"similar: no earlier features beat the last ({last:.1f} % wrong; by chance {self.chance_error:.0f} %)"
            if self.similar
            else f"different: {self.best} separates the classes better ({best:.1f} % wrong) than the last features "
            f"({last:.1f} %; by chance {self.chance_error:.0f} %)"
        )
        amount = "little" if self.images_per_class < self.many else "a lot"
        return "\n".join([
            f"a linear classifier on the features of each stage, {plural(self.n, 'image')}, each left out in turn:",
            *(f"  {line}" for line in render(rows, Format.table).splitlines()),
            f"data   {amount}: {plural(round(self.images_per_class), 'image')} per class (a lot from {self.many:,} on)",
            f"       {near}",
            f"so     {self.quadrant}",
            f"       {command}",
        ])  # fmt: skip

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
        }


def choose_strategy(extractor: FeatureExtractor, dataset: Dataset, many: int) -> StrategyAdvice:
    """Strategy for the data: both axes are measured on at most MOST_IMAGES training images."""
    errors, n = layer_errors(extractor, dataset)
    best = best_layer(errors, n)
    counts = np.bincount(dataset.train.targets.numpy(), minlength=len(dataset.classes))
    per_class = float(counts.mean())
    strategy, quadrant = QUADRANTS[per_class >= many, best == PENULTIMATE]
    chance = 100 * (1 - counts.max() / counts.sum())
    return StrategyAdvice(strategy, quadrant, per_class, many, errors, float(chance), n, best)


def layer_errors(extractor: FeatureExtractor, dataset: Dataset) -> tuple[dict[str, float], int]:
    """Held-out error of at most MOST_STAGES stages, including the last features, and the number of images used."""
    sample = dataset.train
    if len(sample) > MOST_IMAGES:
        sample = sample.subset(data.pick(sample.targets, MOST_IMAGES / len(sample))[0])
    names = pick_evenly(feature_stages(extractor.model), MOST_STAGES)
    features = extractor(sample, names)
    return {name: held_out_error(features[name], sample.targets) for name in names}, len(sample)


def best_layer(errors: dict[str, float], n: int) -> str:
    """Stage with the lowest error; the last features unless another is better by more than two standard errors."""
    best = min(errors, key=lambda name: errors[name])
    p = errors[PENULTIMATE] / 100
    margin = 200 * math.sqrt(max(p * (1 - p), 1 / n) / n)
    return best if errors[best] < errors[PENULTIMATE] - margin else PENULTIMATE


def pick_evenly(names: list[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced from the first to the last."""
    if len(names) <= most:
        return names
    return [names[round(number * (len(names) - 1) / (most - 1))] for number in range(most)]


def held_out_error(features: Tensor, targets: Tensor) -> float:
    """Leave-one-out error in percent of a ridge regression classifier, with the best of a few penalties.

    Ridge regression replaces the SVM because it ranks features alike and leave-one-out is free: the residual of an
    image left out is its residual / (1 - h), with h its diagonal entry of the hat matrix.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6 * float(x.std()) + 1e-12)
    y = 2 * nn.functional.one_hot(targets).double() - 1
    kernel = x @ x.T / x.shape[1] + 1  # the 1 is a constant feature, for the intercept
    wrong = []
    for ridge in RIDGE:
        hat = kernel @ torch.linalg.inv(kernel + ridge * torch.eye(len(x), dtype=torch.float64))
        left_out = y - (y - hat @ y) / (1 - hat.diagonal()[:, None])
        wrong.append(100 * float((left_out.argmax(1) != targets).double().mean()))
    return min(wrong)
