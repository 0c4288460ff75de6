"""What a comparison of two nets can show before it is run: its standard error, its power, and the seeds that it takes.

Two trained nets of one recipe disagree on a share of the test images, one right and the other wrong: that is what
McNemar's test looks at. Nets of other seeds differ in their error besides. With s seeds of each net, judged on the same
n images, the difference of their mean errors has the variance

    disagreement / (s n) + 2 spread^2 / s

Points are percentage points of error.
"""

import math

POWER = 0.8  # of a hundred such comparisons so many show the difference
MOST_SEEDS = 1000


def standard_error(images: int, seeds: int, disagreement: float, spread: float) -> float:
    """Standard error of the difference, in points. disagreement: share of images; spread: points, over seeds."""
    return math.sqrt(1e4 * disagreement / (seeds * images) + 2 * spread * spread / seeds)


def power(difference: float, images: int, seeds: int, disagreement: float, spread: float) -> float:
    """Probability that the 95 % interval leaves out 0, on the side of a true difference of so many points.

    By Student's t with 2 (seeds - 1) degrees of freedom; with one seed the nets, not the recipes, are compared, and it
    is McNemar's test in its normal approximation: `spread` then counts for nothing.
    """
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit  # scipy.stats takes a second to import

    if seeds == 1:
        return float(ndtr(abs(difference) / standard_error(images, 1, disagreement, 0) - ndtri(0.975)))
    freedom = 2 * (seeds - 1)
    shift = abs(difference) / standard_error(images, seeds, disagreement, spread)
    return 1 - float(nctdtr(freedom, shift, stdtrit(freedom, 0.975)))


def smallest_difference(images: int, seeds: int, disagreement: float, spread: float) -> float:
    """Points that are shown with a power of 0.8."""
    low, high = 0.0, 50 * standard_error(images, seeds, disagreement, spread)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, images, seeds, disagreement, spread) >= POWER else (middle, high)
    return high


def seeds_needed(difference: float, images: int, disagreement: float, spread: float) -> int | None:
    """Seeds of each net with which this difference is shown with a power of 0.8; None: more than a thousand."""
    enough = [2, MOST_SEEDS]
    if power(difference, images, MOST_SEEDS, disagreement, spread) < POWER:
        return None
    while enough[0] < enough[1]:
        middle = sum(enough) // 2
        at_most = power(difference, images, middle, disagreement, spread) >= POWER
        enough = [enough[0], middle] if at_most else [middle + 1, enough[1]]
    return enough[0]
