"""The choice of a strategy."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cnnbench.data import Arrays, Dataset, Source
from cnnbench.transfer import choose
from cnnbench.transfer.features import PENULTIMATE
from tests.helpers.batches import arrays
from tests.helpers.tiny import Tiny


@pytest.mark.parametrize("size", [1, 4])
def test_leaving_each_image_or_group_out_is_what_the_formula_says(size: int) -> None:
    """Against the long way: n fits, each without one image, or without one group of four."""
    rng = np.random.default_rng(0)
    y, groups = torch.arange(24) % 3, torch.arange(24) // size
    x = torch.from_numpy(rng.normal(size=(24, 6))) + torch.eye(3, 6)[y]
    x = (x - x.mean(0)) / x.std(0)
    errors = []
    for ridge in choose.RIDGE:
        wrong = 0
        for out in range(24):
            kept = groups != groups[out]
            kernel = x @ x.T / 6 + 1
            one = 2 * torch.nn.functional.one_hot(y[kept]).double() - 1
            alpha = torch.linalg.solve(kernel[kept][:, kept] + ridge * torch.eye(24 - size).double(), one)
            wrong += int((kernel[out, kept] @ alpha).argmax() != y[out])
        errors.append(100 * wrong / 24)
    assert choose.held_out_error(x, y, groups) == pytest.approx(min(errors))
    if size == 1:
        assert choose.held_out_error(x, y) == pytest.approx(min(errors))


def test_of_unequal_classes_each_counts_once_in_the_fit_and_in_the_error() -> None:
    """Against n fits of a ridge regression whose images are weighted as scikit-learn's "balanced"."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.utils.class_weight import compute_sample_weight

    rng = np.random.default_rng(0)
    y = torch.tensor([0] * 20 + [1] * 4)
    x = torch.from_numpy(rng.normal(size=(24, 6))) + 1.5 * torch.eye(2, 6)[y]
    x = (x - x.mean(0)) / x.std(0)
    padded = np.concatenate([x / np.sqrt(6), np.ones((24, 1))], axis=1)
    weights, errors = compute_sample_weight("balanced", y.numpy()), []
    for ridge in choose.RIDGE:
        answers = []
        for out in range(24):
            kept = np.arange(24) != out
            fit = Ridge(ridge, fit_intercept=False).fit(padded[kept], 2 * y[kept].numpy() - 1, weights[kept])
            answers.append(int(fit.predict(padded[out : out + 1])[0] > 0))
        errors.append(100 * (1 - balanced_accuracy_score(y, answers)))
    assert choose.held_out_error(x, y) == pytest.approx(min(errors))
    assert choose.effective_n(y) == pytest.approx(4 / (1 / 20 + 1 / 4))
    assert choose.effective_n(torch.arange(24) % 3) == pytest.approx(24)


class Extractor:
    """Features of a net for 32 px: noise, or the class itself."""

    def __init__(self, useful: bool) -> None:
        self.useful, self.model = useful, Tiny()
        self.spec = SimpleNamespace(model={"name": "tiny"}, input=SimpleNamespace(image_size=32))

    def __call__(self, source: Source, names: list[str]) -> dict[str, torch.Tensor]:
        noise = torch.randn(len(source), 8, generator=torch.Generator().manual_seed(0))
        return {name: noise + (4 * torch.eye(8)[source.targets] if self.useful else 0) for name in names}


def dataset_of(counts: tuple[int, ...], side: int) -> Dataset:
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    whole = arrays(len(targets), side)
    assert isinstance(whole.train, Arrays)
    return replace(whole, classes=list("abc")[: len(counts)], train=Arrays(whole.train.images, targets))


@pytest.mark.parametrize(("many", "strategy"), [(500, "svm"), (10, "full")])
def test_where_no_stage_beats_the_commonest_answer_nothing_is_advised(many: int, strategy: str) -> None:
    """110 : 9, by the top-1 error 7.6 % wrong, which looks good; and the small net is named."""
    advice = choose.choose_strategy(Extractor(False), dataset_of((110, 9), 96), many)
    assert (advice.strategy.value, advice.similar, advice.beats_chance) == (strategy, None, False)
    text = advice.text("cnnbench finetune")
    assert "each class counts once" in text and "60 images per class, 9 to 110" in text
    assert "neither similar nor different: no stage is clearly better than always the same answer" in text
    assert "by chance 50 %" in text and "no strategy can be advised" in text and "<- best" not in text
    assert "tiny sees 32 px of images of 96 px, too few for most photographs" in text


def test_a_net_is_not_called_small_where_it_sees_the_whole_image_or_errs_little() -> None:
    for useful, side in ((False, 40), (True, 96)):
        advice = choose.choose_strategy(Extractor(useful), dataset_of((40, 40, 40), side), 500)
        assert advice.beats_chance == useful and not advice.small_net
        assert "each class counts once" not in advice.text("") and "to" not in advice._range()


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
