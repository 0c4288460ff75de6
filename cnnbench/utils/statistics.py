"""Statistics of errors: intervals, and whether two nets differ by more than chance. Shares and intervals in percent."""

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964  # of the normal distribution, for 95 %
DRAWS = 10_000  # of a bootstrap


def wilson(wrong: float, n: float, z: float = Z) -> tuple[float, float]:
    """The 95 % confidence interval of an error, in percent, when `wrong` of n are (Wilson, 1927).

    It holds near 0 and 100 percent too, where that of the normal approximation leaves the range.
    """
    share = wrong / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)


def mcnemar(first: int, second: int) -> float:
    """p of the exact McNemar test. first, second: images that one of two nets alone gets wrong.

    If the nets were equally good, either would be as likely to be the wrong one: a binomial test with 1/2, two-sided.
    """
    from scipy.special import bdtr  # scipy.stats takes a second to import

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def newcombe(first: float, second: float, both: float, n: float) -> tuple[float, float]:
    """The 95 % interval, in percent, of the second net's error less the first's on the same n images.

    first, second: images that one net alone gets wrong; both: that both do. Newcombe (1998), method 10: Wilson's
    intervals of the two errors, joined by their correlation.
    """
    (a, b), neither = (both + first, both + second), n - first - second - both
    low_a, high_a, low_b, high_b = (limit / 100 for wrong in (a, b) for limit in wilson(wrong, n))
    phi = _correlation(both, first, second, neither)
    below, above = ((b / n - low_b, high_a - a / n), (high_b - b / n, a / n - low_a))
    low, high = (math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)) for x, y in (below, above))
    return 100 * ((b - a) / n - low), 100 * ((b - a) / n + high)


def _correlation(both: float, first: float, second: float, neither: float) -> float:
    """phi of a table of two by two, with Newcombe's correction for continuity where it is positive."""
    sides = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not sides:
        return 0.0
    excess = float(both * neither - first * second)
    if excess > 0:
        excess = max(excess - (both + first + second + neither) / 2, 0.0)
    return excess / math.sqrt(sides)


def bootstrap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The 95 % interval, in percent, of the second net's mean error less the first's, and p. Paired bootstrap.

    first, second: whether an answer is wrong, (runs, images) each, of the same images, which are drawn with the
    answers of all runs to them; the runs of each net are drawn too. What both draws change is added up.
    """
    rng = np.random.default_rng(seed)
    # Of few runs the mean difference of an image has few values: it is their counts that are drawn.
    changes, counts = np.unique(len(first) * second.sum(axis=0) - len(second) * first.sum(axis=0), return_counts=True)
    n = first.shape[1]
    images = rng.multinomial(n, counts / n, size=DRAWS) @ changes / (n * len(first) * len(second))
    runs = _drawn_runs(second.mean(axis=1), rng) - _drawn_runs(first.mean(axis=1), rng)
    drawn = images + runs * _unsure_spread(len(first) + len(second) - 2, rng)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    beyond = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return 100 * low, 100 * high, min(1.0, 2 * beyond / (1 + DRAWS))


def bootstrap_mean(wrong: np.ndarray) -> tuple[float, float]:
    """The 95 % interval, in percent, of one net's mean error over seeds and images. wrong: bool (runs, images)."""
    if len(wrong) == 1:
        return wilson(int(wrong.sum()), wrong.shape[1])
    low, high, _ = bootstrap(np.zeros((1, wrong.shape[1]), bool), wrong)
    return max(0.0, low), min(100.0, high)


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of `second` less that of `first`: Welch's t, for numbers without images.

    At least two numbers each.
    """
    parts = [np.var(values, ddof=1) / len(values) for values in (first, second)]
    squares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / squares if squares else math.inf
    return _around(float(np.mean(second) - np.mean(first)), math.sqrt(sum(parts)), float(freedom))


def student(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by Student's t. At least two numbers."""
    return _around(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values) - 1)


def stratified(strata: Sequence[Sequence[float]], weights: Sequence[float], variance: float) -> tuple[float, float]:
    """The 95 % interval of a weighted mean of the strata's means, whose draws vary within each stratum alone.

    At least two numbers each. variance: of the mean from another, independent source. Freedom by Satterthwaite (1946).
    """
    parts = [weight**2 * np.var(one, ddof=1) / len(one) for one, weight in zip(strata, weights, strict=True)]
    squares = sum(part**2 / (len(one) - 1) for part, one in zip(parts, strata, strict=True))
    whole = sum(parts) + variance
    mean = sum(weight * float(np.mean(one)) for one, weight in zip(strata, weights, strict=True))
    return _around(mean, math.sqrt(whole), float(whole**2 / squares) if squares else math.inf)


def _around(mean: float, error: float, freedom: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = error * (float(stdtrit(freedom, 0.975)) if math.isfinite(freedom) else Z)
    return mean - half, mean + half


def _drawn_runs(errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean of as many runs, drawn with replacement, less the mean of all: (DRAWS,), of the variance of such a mean.

    A draw with replacement varies less than its source: by (n - 1) / n.
    """
    n = len(errors)
    drawn = errors[rng.integers(n, size=(DRAWS, n))].mean(axis=1)
    return (drawn - errors.mean()) * math.sqrt(n / max(1, n - 1))


def _unsure_spread(freedom: int, rng: np.random.Generator) -> np.ndarray:
    """Factor for each draw, as Student's t has: a few runs do not say well how much runs vary. 1 for single runs."""
    return np.sqrt(freedom / rng.chisquare(freedom, size=DRAWS)) if freedom else np.ones(DRAWS)


def holm(values: Sequence[float]) -> list[float]:
    """p values, corrected for their number (Holm, 1979): all that fall below 0.05 do so by chance once in 20 tables."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected
