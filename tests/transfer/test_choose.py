"""The choice of a strategy."""

import numpy as np
import pytest
import torch

from cnnbench.transfer import choose
from cnnbench.transfer.features import PENULTIMATE


def test_leaving_each_image_out_is_what_the_formula_says() -> None:
    """Against the long way: n fits, each without one image."""
    rng = np.random.default_rng(0)
    y = torch.arange(24) % 3
    x = torch.from_numpy(rng.normal(size=(24, 6))) + torch.eye(3, 6)[y]
    x = (x - x.mean(0)) / x.std(0)
    errors = []
    for ridge in choose.RIDGE:
        wrong = 0
        for out in range(24):
            kept = torch.arange(24) != out
            kernel = x @ x.T / 6 + 1
            one = 2 * torch.nn.functional.one_hot(y[kept]).double() - 1
            alpha = torch.linalg.solve(kernel[kept][:, kept] + ridge * torch.eye(23).double(), one)
            wrong += int((kernel[out, kept] @ alpha).argmax() != y[out])
        errors.append(100 * wrong / 24)
    assert choose.held_out_error(x, y) == pytest.approx(min(errors))


def test_the_best_features_are_the_last_unless_earlier_ones_are_clearly_better() -> None:
    assert choose.best_layer({"layer1": 9.0, PENULTIMATE: 10.0}, 200) == PENULTIMATE
    assert choose.best_layer({"layer1": 2.0, PENULTIMATE: 10.0}, 200) == "layer1"
    assert choose.pick_evenly(list("abcdefghij"), 4) == ["a", "d", "g", "j"]


def test_the_quadrants_are_the_lectures() -> None:
    named = {key: strategy.value for key, (strategy, _) in choose.QUADRANTS.items()}
    assert named == {
        (False, True): "svm",
        (False, False): "deep_features",
        (True, True): "partial",
        (True, False): "full",
    }
