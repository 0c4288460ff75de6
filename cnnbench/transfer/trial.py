"""Tries the strategies between which the advice is open, on training images that they have not seen."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnbench import data, tasks
from cnnbench.config.commands import FinetuneConfig
from cnnbench.config.sections import Strategy
from cnnbench.tasks.metric import Metric
from cnnbench.transfer.choose import StrategyAdvice
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor
from cnnbench.transfer.linear_svm import fit_svm
from cnnbench.transfer.stage_errors import PROBED, first_images
from cnnbench.utils.files import read_json

PARTS = 5  # of the training images, of which the first judges strategies that train

Train = Callable[[Strategy, Tensor, Tensor], tuple[int, Path]]
"""Trains by a strategy on the images of the first indices, judged by those of the second: exit code and run."""


def try_fitted(cfg: FinetuneConfig, extractor: FeatureExtractor, advised: StrategyAdvice) -> dict[Strategy, float]:
    """Cross-validated balanced error in percent of the SVM of each candidate, on at most PROBED[0] images.

    A class of a single image leaves nothing to cross-validate: there it is the error that the advice rests on.
    """
    sample = first_images(extractor.dataset.train, PROBED[0])
    layers = {Strategy.svm: PENULTIMATE, Strategy.deep_features: advised.earlier}
    features, found = extractor(sample, list(layers.values())), dict[Strategy, float]()
    for strategy in advised.candidates:
        layer = layers[strategy]
        probe = fit_svm(features[layer], sample.targets, cfg.transfer.c, balanced=True, groups=data.groups_of(sample))
        error = probe.cv_balanced_error
        found[strategy] = advised.errors[layer] if error is None else error
    return found


def try_trained(
    extractor: FeatureExtractor, advised: StrategyAdvice, train: Train
) -> tuple[int, Mapping[Strategy, float]]:
    """Exit code of the training that was cut, else 0, and the error of each candidate on a fifth of the images, which
    it has not seen. Trainings that are done are not done again."""
    others, held = data.folds(extractor.dataset.train, PARTS)[0]
    metric, found = tasks.find(extractor.dataset.task).metrics[0], dict[Strategy, float]()
    for strategy in advised.candidates:
        code, run = train(strategy, others, held)
        if code:
            return code, {}
        found[strategy] = float(read_json(run / "result.json")[metric.name])
    return 0, found


def summary_of_folds(results: list[dict[str, Any]], primary: Metric) -> tuple[str, dict[str, Any]]:
    """Mean ± standard deviation over the folds of each metric that one of them shows, in words and for result.json."""
    shown = {metric.name: metric for result in results for metric in tasks.metrics_of(result)}
    texts, found = [], dict[str, Any]()
    for name, metric in ({primary.name: primary} | shown).items():
        values = [float(result[name]) for result in results if name in result]
        mean, spread = statistics.mean(values), statistics.stdev(values)
        texts.append(f"{metric.label} {mean:.{metric.decimals}f} ± {spread:.{metric.decimals}f} {metric.unit}".rstrip())
        found |= {name: mean, f"{name}_std": spread}
        if name == primary.name:
            found |= {"std": found.pop(f"{name}_std"), "folds": values}
    return ", ".join(texts), found
