"""Intervals and tests: against scipy's, exact counts, published examples and simulated nets."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from cnnbench.utils.statistics import bootstrap, holm, mcnemar, newcombe, wilson


def test_wilson_gives_the_published_intervals() -> None:
    """Newcombe (1998), table I, the score method without continuity correction."""
    for wrong, n, low, high in (
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
    ):
        assert wilson(wrong, n) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))
    assert wilson(7, 7)[1] == pytest.approx(100)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (0, 6), (5, 5), (3, 12), (10, 35), (300, 455), (2000, 2500)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**n))
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(float(exact), rel=1e-9)
    if n:
        assert mcnemar(first, second) == pytest.approx(stats.binomtest(first, n, 0.5).pvalue, rel=1e-9)


def test_newcombe_gives_his_own_numbers() -> None:
    """Improved confidence intervals for the difference between binomial proportions based on paired data, Statistics
    in Medicine 17 (1998), method 10: of 50, 36 both, 12 and 2 one alone."""
    assert newcombe(12, 2, 36, 50) == (pytest.approx(-34.04, abs=0.006), pytest.approx(-5.69, abs=0.006))


def test_newcombe_is_symmetric_and_holds_in_95_of_100_pairs() -> None:
    low, high = newcombe(10, 35, 17, 359)
    assert newcombe(35, 10, 17, 359) == (pytest.approx(-high), pytest.approx(-low))
    rng = np.random.default_rng(0)
    tables = rng.multinomial(359, [0.02, 0.05, 0.03, 0.9], size=2000)  # only first, only second, both, none
    held = [low <= 3 <= high for low, high in (newcombe(a, b, both, 359) for a, b, both, _ in tables.tolist())]
    assert 0.935 < np.mean(held) < 0.97


def nets(rng: np.random.Generator, runs: int, images: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Two equally good nets: some images are hard for both, and each run has luck of its own."""
    hard = rng.normal(size=images)
    bounds = 1.9 + spread * rng.normal(size=(2, runs, 1))
    return tuple((0.8 * hard + 0.6 * rng.normal(size=(2, runs, images))) > bounds)  # type: ignore[return-value]


@pytest.mark.parametrize(("runs", "spread"), [(2, 0.0), (2, 0.2), (3, 0.2), (5, 0.05)])
def test_the_bootstrap_finds_no_difference_in_nets_that_have_none(runs: int, spread: float) -> None:
    rng = np.random.default_rng(1)
    found = [bootstrap(*nets(rng, runs, 500, spread)) for _ in range(80)]
    assert np.mean([low <= 0 <= high for low, high, _ in found]) > 0.9
    assert np.mean([p < 0.05 for *_, p in found]) < 0.1


def test_the_bootstrap_of_single_runs_agrees_with_newcombe_and_scipy() -> None:
    """Of one run each only the images are drawn: the interval is that of scipy's bootstrap of the mean."""
    first, second = np.zeros((2, 1, 400), dtype=bool)
    first[0, :30], second[0, 10:60] = True, True  # 10 and 30 alone, 20 both
    low, high, p = bootstrap(first, second)
    assert (low, high) == pytest.approx(newcombe(10, 30, 20, 400), abs=0.35)
    difference = (second[0].astype(float) - first[0],)
    theirs = stats.bootstrap(difference, np.mean, method="percentile", random_state=0)
    assert (low, high) == pytest.approx([100 * limit for limit in theirs.confidence_interval], abs=0.3)
    assert p < 0.01 and bootstrap(first, second) == (low, high, p)  # the same each time
    assert bootstrap(first, first) == (0, 0, 1)


def test_of_many_runs_that_vary_much_the_bootstrap_is_welchs_test() -> None:
    rng = np.random.default_rng(3)
    errors = np.clip(rng.normal([[0.10], [0.16]], 0.05, size=(2, 12)), 0, 1)
    first, second = (np.arange(4000)[None] % 100 < 100 * side[:, None] for side in errors)
    low, high, p = bootstrap(first, second)
    welch = stats.ttest_ind(second.mean(axis=1), first.mean(axis=1), equal_var=False)
    span = welch.confidence_interval()
    assert (low, high) == pytest.approx((100 * span.low, 100 * span.high), abs=0.8)
    assert p == pytest.approx(welch.pvalue, abs=0.02)


def test_holm_is_his_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]
