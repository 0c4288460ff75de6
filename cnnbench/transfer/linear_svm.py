"""Linear SVM on features (scikit-learn's), with C chosen by cross-validation, as the weights of a layer.

The features are standardised, and the standardisation is folded into the weights. The margins are scaled (temperature
scaling) so that their softmax fits the held-out folds best; the predicted classes stay the SVM's.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench.data.splits import folds_of_groups
from cnnbench.utils.errors import UserError

MOST_IMAGES = 5000  # in the cross-validation: more take longer and choose the same C
FOLDS, MANY, FEW_FOLDS = 5, 500, 3  # FEW_FOLDS from MANY images on: the error is exact enough, in less time
TOLERANCE = 1e-2  # of the SVM's solver: same predictions as with 1e-4, in half the time
USUAL_C = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # as in conf/transfer/svm.yaml
COMPONENTS = 128  # of a stage's thousands of features
LEAST_STD = 0.1  # relative to the root mean square std: an almost constant feature would get a huge weight


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Linear classifier: logits = features @ weight.T + bias; weight (classes, D), bias (classes,) or None."""

    weight: Tensor
    bias: Tensor | None
    c: float
    cv_error: float | None  # percent of the cross-validated images; None if a class has too few images for folds
    cv_balanced_error: float | None  # the same with each class counted once
    cv_n: int  # images cross-validated

    def logits(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias)


def fit_svm(
    features: Tensor, targets: Tensor, values_of_c: list[float], *, bias: bool = True, balanced: bool = False,
    seed: int = 0, groups: Tensor | None = None,
) -> LinearProbe:  # fmt: skip
    """The linear SVM on features (N, D) with targets (N,), each class 0..classes-1 occurring.

    balanced: images count by the rarity of their class, and C is chosen by the balanced error. Images of one group
    share a fold of the cross-validation.
    """
    x, y = features.numpy().astype(np.float64), targets.numpy()
    values, sample = sorted(values_of_c), _sample(y, MOST_IMAGES, seed)
    number = _folds(y[sample], None if groups is None else groups.numpy()[sample], len(sample), seed)
    c, margins = values[len(values) // 2], None
    if number is not None:
        c, margins = _best_c(x[sample], y[sample], values, number, bias, balanced)
    errors = [None if margins is None else 100 * _error(margins, y[sample], each) for each in (False, True)]
    weight, intercept = _svm(x, y, c, bias, balanced)
    scale = 1.0 if margins is None else _scale(margins, y[sample])
    return LinearProbe(
        weight=torch.from_numpy(weight * scale).float(),
        bias=torch.from_numpy(intercept * scale).float() if bias else None,
        c=c,
        cv_error=errors[0],
        cv_balanced_error=errors[1],
        cv_n=len(sample) if margins is not None else 0,
    )


def out_of_fold(features: Tensor, targets: Tensor, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities (N, classes) of each image by an SVM that was fitted on other folds, scaled to be calibrated.

    Images of one group (copies of each other) share a fold. Each class needs two groups that begin with it.
    """
    x, y = features.numpy().astype(np.float64), targets.numpy()
    number, folds = _grouped_folds(y, groups, seed)
    sample = _sample(y, MOST_IMAGES, seed)
    few = min(folds, int(np.bincount(y).min()))
    c = _best_c(x[sample], y[sample], list(USUAL_C), _stratified(y[sample], few, seed), True)[0]
    margins = np.empty((len(y), int(y.max()) + 1))
    for fold in range(folds):
        weight, intercept = _svm(x[number != fold], y[number != fold], c, True)
        margins[number == fold] = x[number == fold] @ weight.T + intercept
    from scipy.special import softmax

    probabilities: np.ndarray = softmax(margins * _scale(margins, y), axis=1)
    return probabilities


def principal_components(features: Tensor, count: int = COMPONENTS) -> Tensor:
    """The standardised features (N, D) along their first principal components, (N, count): for an SVM in seconds."""
    x = features - features.mean(0)
    std = x.std(0)
    x = x / std.clamp_min(LEAST_STD * float(std.square().mean().sqrt()) + 1e-12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        directions = torch.pca_lowrank(x, q=min(count, *x.shape), center=False)[2]
    return x @ directions


def _grouped_folds(y: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """Fold of each image, and the number of folds: the groups of each class are dealt out in turn."""
    _, firsts, which = np.unique(groups, return_index=True, return_inverse=True)
    folds = min(FOLDS, int(np.bincount(y[firsts]).min()))
    rng = np.random.default_rng(seed)
    number = np.empty(len(firsts), dtype=np.int64)
    for label in np.unique(y[firsts]):
        members = np.flatnonzero(y[firsts] == label)
        number[rng.permutation(members)] = np.arange(len(members)) % folds
    return number[which], folds


def _best_c(
    x: np.ndarray, y: np.ndarray, values: list[float], number: np.ndarray, bias: bool, balanced: bool = False
) -> tuple[float, np.ndarray]:
    """C with the lowest held-out error (the smallest of equals), and its held-out margins.

    number: fold of each image. The search goes downhill from the middle value: the error has one valley, and large
    values take long.
    """
    margins: dict[int, np.ndarray] = {}

    def error(at: int) -> float:
        if at not in margins:
            margins[at] = _held_out_margins(x, y, values[at], number, bias, balanced)
        return _error(margins[at], y, balanced)

    at = len(values) // 2
    while at > 0 and error(at - 1) <= error(at):
        at -= 1
    while at + 1 < len(values) and error(at + 1) < error(at):
        at += 1
    error(at)  # a single value has not been measured yet
    return values[at], margins[at]


def _error(margins: np.ndarray, y: np.ndarray, balanced: bool) -> float:
    """Share of wrong answers: of the images, or (balanced) of each class, averaged over the classes."""
    wrong = margins.argmax(1) != y
    return float((np.bincount(y, wrong) / np.bincount(y)).mean() if balanced else wrong.mean())


def write_to_layer(probe: LinearProbe, layer: nn.Linear | nn.Conv2d) -> None:
    """Write the probe into the layer whose input the features were."""
    with torch.no_grad():
        layer.weight.copy_(probe.weight.view_as(layer.weight))
        if layer.bias is not None and probe.bias is not None:
            layer.bias.copy_(probe.bias)


def _sample(y: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of at most `most` images, stratified by class, with at least FOLDS per class."""
    if len(y) <= most:
        return np.arange(len(y))
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)]
    return np.sort(np.concatenate([part[: max(FOLDS, round(most * len(part) / len(y)))] for part in parts]))


def _folds(y: np.ndarray, groups: np.ndarray | None, images: int, seed: int) -> np.ndarray | None:
    """Fold of each image; None where a class has too few images, or too few groups of them."""
    most = FOLDS if images < MANY else FEW_FOLDS
    if groups is None:
        folds = min(most, int(np.bincount(y).min()))
        return _stratified(y, folds, seed) if folds >= 2 else None
    try:
        return folds_of_groups(y, groups, min(most, len(np.unique(groups))), seed)
    except UserError:
        return None


def _stratified(y: np.ndarray, folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    number = np.empty(len(y), dtype=np.int64)
    for fold, (_, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)):
        number[held_out] = fold
    return number


def _held_out_margins(
    x: np.ndarray, y: np.ndarray, c: float, number: np.ndarray, bias: bool, balanced: bool
) -> np.ndarray:
    """Margins (N, classes) of each image, from the SVM trained on the other folds."""
    margins = np.empty((len(y), int(y.max()) + 1))
    for fold in np.unique(number):
        train, held_out = number != fold, number == fold
        weight, intercept = _svm(x[train], y[train], c, bias, balanced)
        margins[held_out] = x[held_out] @ weight.T + intercept
    return margins


def _svm(x: np.ndarray, y: np.ndarray, c: float, bias: bool, balanced: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, D) and intercepts (classes,) for unstandardised features. With two classes, each has half the
    SVM's margin, with opposite signs, so that their difference is the SVM's margin."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    mean = x.mean(0) if bias else np.zeros(x.shape[1])
    std = x.std(0)
    std = np.maximum(std, LEAST_STD * np.sqrt((std**2).mean()) + 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the last digits of a large C: no harm to a choice among them
        svm = LinearSVC(C=c, fit_intercept=bias, dual=len(x) < x.shape[1], tol=TOLERANCE, random_state=0,
                        class_weight="balanced" if balanced else None).fit((x - mean) / std, y)  # fmt: skip
    weight = svm.coef_ / std
    intercept = (svm.intercept_ if bias else 0.0) - weight @ mean
    if len(weight) == 1:
        weight, intercept = np.concatenate([-weight, weight]) / 2, np.concatenate([-intercept, intercept]) / 2
    return weight, intercept


def _scale(margins: np.ndarray, y: np.ndarray) -> float:
    """Inverse temperature: the factor on the margins that maximises the likelihood (Guo et al., 2017)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_factor: float) -> float:
        return -float(log_softmax(margins * np.exp(log_factor), axis=1)[np.arange(len(y)), y].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))
