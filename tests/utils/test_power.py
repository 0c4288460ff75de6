"""The power of a planned comparison: against simulated nets, and against what it is made of."""

import numpy as np
import pytest
from scipy import stats

from cnnbench.utils.power import power, seeds_needed, smallest_difference, standard_error
from cnnbench.utils.statistics import bootstrap, bootstrap_mean, student, welch, wilson


def simulated(rng: np.random.Generator, seeds: int, images: int, difference: float, spread: float) -> np.ndarray:
    """Wrong answers (2, seeds, images) of two recipes. Half of the images are settled, the others chance: 0.5."""
    errors = 0.25 + np.array([[0.0], [difference / 100]]) + spread / 100 * rng.normal(size=(2, seeds))
    uncertain = rng.random((2, seeds, images // 2)) < (2 * errors)[..., None]
    return np.concatenate([uncertain, np.zeros((2, seeds, images // 2), bool)], axis=-1)


@pytest.mark.parametrize(("difference", "seeds"), [(0.0, 3), (2.5, 3), (2.5, 6)])
def test_power_is_that_of_simulated_comparisons(difference: float, seeds: int) -> None:
    """The images disagree by 2 x 0.5 x 0.5 / 2; without a difference an interval leaves 0 out on one side in 2.5 %."""
    rng, images, spread = np.random.default_rng(3), 4000, 1.0
    lows = [bootstrap(*simulated(rng, seeds, images, difference, spread))[0] for _ in range(150)]
    expected = power(difference, images, seeds, 0.25, spread) if difference else 0.025
    assert np.mean(np.array(lows) > 0) == pytest.approx(expected, abs=0.1)


def test_with_one_seed_it_is_the_power_of_mcnemars_test() -> None:
    rng, n = np.random.default_rng(0), 5000
    alone = rng.multinomial(n, [0.10, 0.12, 0.78], size=2000)[:, :2]
    beyond = [stats.norm.sf((b - a) / np.sqrt(a + b)) < 0.025 for a, b in alone.tolist()]
    assert power(2.0, n, 1, 0.22, 5.0) == pytest.approx(np.mean(beyond), abs=0.03)


def test_seeds_and_differences_invert_the_power() -> None:
    assert standard_error(10_000, 4, 0.25, 0.0) == pytest.approx(0.25)
    assert power(smallest_difference(10_000, 3, 0.25, 0.7), 10_000, 3, 0.25, 0.7) == pytest.approx(0.8, abs=1e-6)
    seeds = seeds_needed(0.5, 10_000, 0.25, 0.7)
    assert seeds is not None
    assert power(0.5, 10_000, seeds, 0.25, 0.7) >= 0.8 > power(0.5, 10_000, seeds - 1, 0.25, 0.7)
    assert seeds_needed(0.001, 359, 0.25, 0.7) is None


def test_intervals_of_numbers_without_images_are_scipys() -> None:
    first, second = [1.0, 2.5, 2.0, 3.1], [4.0, 4.2, 3.1]
    theirs = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    assert welch(first, second) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    alone = stats.ttest_1samp(first, 0).confidence_interval()
    assert student(first) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert welch([1.0, 1.0], [2.0, 2.0]) == (1.0, 1.0)


def test_the_interval_of_one_mean_holds_the_true_error() -> None:
    rng = np.random.default_rng(5)
    held = []
    for _ in range(150):
        low, high = bootstrap_mean(simulated(rng, 3, 2000, 0.0, 0.7)[0])
        held.append(low <= 25.0 <= high)
    assert np.mean(held) >= 0.91
    one = rng.random((1, 500)) < 0.1
    assert bootstrap_mean(one) == wilson(int(one.sum()), 500)
