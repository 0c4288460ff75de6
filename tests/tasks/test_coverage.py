"""Error against coverage, held to a computation image by image."""

import pytest
import torch

from cnnbench.tasks.classification.coverage import LEAST, SHOWN, coverage


def test_the_area_is_the_mean_error_of_the_surest_answers() -> None:
    random = torch.Generator().manual_seed(0)
    confidence = torch.rand(1500, generator=random, dtype=torch.float64)
    wrong = torch.rand(1500, generator=random) > confidence
    found = coverage(confidence, wrong)
    ranked = sorted(zip(confidence.tolist(), wrong.tolist(), strict=True), reverse=True)
    errors = [100 * sum(missed for _, missed in ranked[:k]) / k for k in range(1, 1501)]
    assert found.error.tolist() == pytest.approx(errors)
    assert found.area == pytest.approx(sum(errors) / 1500)
    best = [False] * (1500 - int(wrong.sum())) + [True] * int(wrong.sum())
    assert found.least_area == pytest.approx(sum(100 * sum(best[:k]) / k for k in range(1, 1501)) / 1500)
    for least in LEAST:
        kept = [missed for one, missed in ranked if one >= least]
        assert found.at(least) == {
            "min_probability": least, "answered": len(kept), "coverage": pytest.approx(100 * len(kept) / 1500),
            "error": pytest.approx(100 * sum(kept) / len(kept)),
        }  # fmt: skip
    points, shown = found.curve()
    assert len(points) == SHOWN and (points[-1], shown[-1]) == (100, found.error[-1])


def test_equally_sure_answers_have_no_order() -> None:
    confidence = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    wrong = torch.tensor([False, True, False, False, True])
    for order in (torch.arange(5), torch.tensor([4, 2, 0, 1, 3])):
        found = coverage(confidence[order], wrong[order])
        assert found.error.tolist() == pytest.approx([0, 25, 100 / 3, 37.5, 40])


def test_where_nothing_is_sure_enough_there_is_no_error() -> None:
    found = coverage(torch.tensor([0.4], dtype=torch.float64), torch.tensor([True]))
    assert found.at(0.5) == {"min_probability": 0.5, "answered": 0, "coverage": 0, "error": None}
    assert (found.area, found.at(0.4)["error"]) == (100, 100)
