"""Held-out errors of stages, and by how much two of them differ."""

import numpy as np
import pytest
import torch

from cnnbench.data import Arrays, Source
from cnnbench.transfer import stage_errors
from cnnbench.transfer.features import PENULTIMATE
from cnnbench.transfer.stage_errors import StageErrors
from cnnbench.utils.statistics import newcombe
from tests.helpers.tiny import Tiny


def answered(wrong: dict[str, torch.Tensor], targets: torch.Tensor, groups: torch.Tensor | None = None) -> StageErrors:
    return StageErrors(wrong, Arrays(torch.zeros(len(targets), 1, 1, 1), targets, groups=groups))


def error(features: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor | None = None) -> float:
    wrong = stage_errors.held_out_wrong(features, targets, groups)
    return answered({PENULTIMATE: wrong}, targets).errors[PENULTIMATE]


@pytest.mark.parametrize("size", [1, 4])
def test_leaving_each_image_or_group_out_is_what_the_formula_says(size: int) -> None:
    """Against the long way: n fits, each without one image, or without one group of four."""
    rng = np.random.default_rng(0)
    y, groups = torch.arange(24) % 3, torch.arange(24) // size
    x = torch.from_numpy(rng.normal(size=(24, 6))) + torch.eye(3, 6)[y]
    x = (x - x.mean(0)) / x.std(0)
    errors = []
    for ridge in stage_errors.RIDGE:
        wrong = 0
        for out in range(24):
            kept = groups != groups[out]
            kernel = x @ x.T / 6 + 1
            one = 2 * torch.nn.functional.one_hot(y[kept]).double() - 1
            alpha = torch.linalg.solve(kernel[kept][:, kept] + ridge * torch.eye(24 - size).double(), one)
            wrong += int((kernel[out, kept] @ alpha).argmax() != y[out])
        errors.append(100 * wrong / 24)
    assert error(x, y, groups) == pytest.approx(min(errors))
    if size == 1:
        assert error(x, y) == pytest.approx(min(errors))


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
    for ridge in stage_errors.RIDGE:
        answers = []
        for out in range(24):
            kept = np.arange(24) != out
            fit = Ridge(ridge, fit_intercept=False).fit(padded[kept], 2 * y[kept].numpy() - 1, weights[kept])
            answers.append(int(fit.predict(padded[out : out + 1])[0] > 0))
        errors.append(100 * (1 - balanced_accuracy_score(y, answers)))
    assert error(x, y) == pytest.approx(min(errors))
    assert stage_errors.effective_n(y) == pytest.approx(4 / (1 / 20 + 1 / 4))
    assert stage_errors.effective_n(torch.arange(24) % 3) == pytest.approx(24)


def test_two_stages_differ_by_a_paired_interval() -> None:
    """30 of 200 images wrong by one stage alone, 6 by the other, 10 by both; then the same with unequal classes."""
    last, early = torch.zeros(200, dtype=torch.bool), torch.zeros(200, dtype=torch.bool)
    last[:40], early[30:46] = True, True
    found = answered({"layer1": early, PENULTIMATE: last}, torch.arange(200) % 2)
    assert found.errors == pytest.approx({"layer1": 8.0, PENULTIMATE: 20.0}) and found.earlier == "layer1"
    assert found.gain("layer1") == pytest.approx((12.0, *newcombe(6, 30, 10, 200)))
    rare = (torch.arange(200) < 20).long()  # the images that the last stage alone gets wrong are a class of their own
    points, low, high = answered({"layer1": early, PENULTIMATE: last}, rare).gain("layer1")
    assert points == pytest.approx(50 * (1 + 20 / 180) - 50 * 16 / 180) and low < points < high
    assert high - low > 12  # a class of 20 images leaves much to chance
    paired = answered({"layer1": early, PENULTIMATE: last}, torch.arange(200) % 2, torch.arange(200) // 4)
    assert paired.n == pytest.approx(50) and paired.gain("layer1")[1] < found.gain("layer1")[1]


def test_more_images_are_probed_where_the_first_leave_two_stages_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last features miss one image in five, the stem none or one in five too; a third stage is hopeless."""
    asked = []

    def planted(gap: float) -> stage_errors.StageErrors:
        def extractor(source: Source, names: list[str]) -> dict[str, torch.Tensor]:
            asked.append((len(source), tuple(names)))
            noise = torch.randn(len(source), 8, generator=torch.Generator().manual_seed(len(source)))
            signal = torch.eye(8)[source.targets]
            strength = {"stem": 2 + gap, "layer1": 0.0, PENULTIMATE: 2.0}
            return {name: noise.roll(number, 0) + strength[name] * signal for number, name in enumerate(names)}

        extractor.model = Tiny()  # type: ignore[attr-defined]
        return stage_errors.stage_errors(extractor, images)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_errors, "PROBED", (100, 160))
    images = Arrays(torch.zeros(200, 1, 1, 1), torch.arange(200) % 2)
    decided = planted(4.0)
    assert [number for number, _ in asked] == [100] and set(decided.wrong) == {"stem", "layer1", PENULTIMATE}
    asked.clear()
    still_open = planted(0.0)
    assert asked == [(100, ("stem", "layer1", PENULTIMATE)), (160, ("stem", PENULTIMATE))]
    assert len(still_open.sample) == 160 and still_open.earlier == "stem"


def test_stages_are_picked_evenly_and_a_net_of_one_stage_has_no_earlier_one() -> None:
    assert stage_errors.pick_evenly(list("abcdefghij"), 4) == ["a", "d", "g", "j"]
    wrong = {PENULTIMATE: torch.tensor([True, False, False, False])}
    assert answered(wrong, torch.tensor([0, 0, 1, 1])).earlier == PENULTIMATE
