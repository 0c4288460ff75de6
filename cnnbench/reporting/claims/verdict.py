"""The verdict on a claim from its runs: it holds, it does not hold, or it cannot be decided by them.

The interval of a difference is at 95 %, for this claim alone: paired over the images and drawn over the seeds where
each run's answers are known, by Welch's t over the seeds otherwise. Differences are the cost of the worse level less
that of the better one, so that positive ones speak for the claim.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

import numpy as np

from cnnbench.reporting.claims import code, counts, numbers
from cnnbench.reporting.claims.claim import Best, Claim, Count, Order, Value
from cnnbench.reporting.claims.evidence import Evidence
from cnnbench.tasks import metrics_of
from cnnbench.tasks.classification import TOP1
from cnnbench.utils import statistics
from cnnbench.utils.power import seeds_needed

LEAST_SEEDS = 2  # of each net: one trained net says nothing of how much a recipe varies


class Outcome(Enum):
    holds = "holds"
    fails = "does not hold"
    open = "cannot be decided here"


@dataclass(frozen=True, kw_only=True)
class Step:
    """Two levels compared, or one level's value. Numbers are in the metric's units."""

    better: str
    worse: str
    means: tuple[float, ...]
    effect: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    disagreement: float | None = None  # share of the images, a run of the one against a run of the other
    spread: float | None = None  # standard deviation over seeds, of both together
    better_in: tuple[int, int] | None = None  # of pairs of data sets: those where the better one errs less, and all


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a claim. steps: what was compared; deciding: the step that decides, the weakest of an order."""

    claim: Claim
    outcome: Outcome
    reason: str = ""
    steps: list[Step] = field(default_factory=list)
    deciding: Step | None = None
    number: float | None = None  # of a count
    n: int | None = None
    runs: int = 0
    older: list[str] = field(default_factory=list)  # files that have changed since the runs
    needs: str = ""  # what would decide it
    dates: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


def judge(claim: Claim, evidence: Sequence[Evidence]) -> Verdict:
    """The verdict on a claim by these runs, all of them its own."""
    measure = claim.measure
    if isinstance(measure, Count):
        number = counts.counted(measure)
        return Verdict(claim=claim, outcome=Outcome.holds if counts.holds(measure, number) else Outcome.fails,
                       number=number)  # fmt: skip
    runs = [run for run in evidence if measure.metric in run.result]
    missing = [name or "the net" for name in claim.levels if not any(run.level == name for run in runs)]
    if missing:
        what = "no runs" if not runs else f"no runs of {', '.join(missing)}"
        return _open(claim, runs, [], what)
    steps = _steps(claim, runs)
    few = min(min(step.seeds) for step in steps)
    if few < (LEAST_SEEDS if claim.design is None or claim.design.seeds > 1 else 1):
        return _open(claim, runs, steps, "one seed")
    outcomes = [_outcome(claim, step) for step in steps]
    weakest = min(steps, key=lambda step: step.effect)
    if Outcome.fails in outcomes:
        weakest = min((step for step, one in zip(steps, outcomes, strict=True) if one is Outcome.fails),
                      key=lambda step: step.effect)  # fmt: skip
        return _decided(claim, Outcome.fails, runs, steps, weakest)
    if Outcome.open in outcomes:
        return _open(claim, runs, steps, "the interval holds both answers")
    return _decided(claim, Outcome.holds, runs, steps, weakest)


def _decided(claim: Claim, outcome: Outcome, runs: Sequence[Evidence], steps: list[Step], deciding: Step) -> Verdict:
    return Verdict(claim=claim, outcome=outcome, steps=steps, deciding=deciding, **_known(runs))  # type: ignore[arg-type]


def _open(claim: Claim, runs: Sequence[Evidence], steps: list[Step], reason: str) -> Verdict:
    undecided = [step for step in steps if _outcome(claim, step) is Outcome.open]
    deciding = min(undecided or steps, key=lambda step: step.effect, default=None)
    return Verdict(claim=claim, outcome=Outcome.open, reason=reason, steps=steps, deciding=deciding,
                   needs=_what_it_takes(claim, deciding), **_known(runs))  # type: ignore[arg-type]  # fmt: skip


def _known(runs: Sequence[Evidence]) -> dict[str, object]:
    counted = {run.result.get("n") for run in runs}
    return {
        "n": counted.pop() if len(counted) == 1 else None,
        "runs": len(runs),
        "older": sorted({name for run in runs for name in code.changed(run.code or {})}),
        "dates": tuple(sorted({run.date for run in runs if run.date})),
        "commits": tuple(sorted({commit for run in runs for commit in (run.commit or "").split()})),
        "devices": tuple(sorted({run.result["device"] for run in runs if run.result.get("device")})),
    }


def _steps(claim: Claim, runs: Sequence[Evidence]) -> list[Step]:
    if isinstance(claim.measure, Value):
        return [_value(claim.measure, runs)]
    if isinstance(claim.measure, Best):
        return _against_others(claim.measure, runs)
    assert isinstance(claim.measure, Order)
    groups = [[run for run in runs if run.level == name] for name in claim.levels]
    named = zip(claim.levels, groups, strict=True)
    return [_pair(claim.measure.metric, one, other) for one, other in pairwise(named)]


def _value(measure: Value, runs: Sequence[Evidence]) -> Step:
    """Positive effects are on the claim's side of the bound."""
    values = _values(measure.metric, runs)
    mean, sign = float(np.mean(values)), 1 if measure.at_least is not None else -1
    bound = measure.at_least if measure.at_least is not None else measure.at_most
    assert bound is not None
    wrong = _same_images(runs) if measure.metric == TOP1.name and not measure.these_images else None
    interval: tuple[float, float] | None
    if wrong is not None:
        interval = statistics.bootstrap_mean(wrong)
    else:
        own = runs[0].result.get(numbers.interval_of(measure.metric))
        interval = statistics.student(values) if len(values) > 1 else own
    sides = None if interval is None else tuple(sorted(sign * (limit - bound) for limit in interval))
    return Step(better="", worse="", means=(mean,), effect=sign * (mean - bound), interval=sides,  # type: ignore[arg-type]
                seeds=(len(values),), spread=float(np.std(values, ddof=1)) if len(values) > 1 else None)  # fmt: skip


def _pair(metric: str, one: tuple[str, Sequence[Evidence]], other: tuple[str, Sequence[Evidence]]) -> Step:
    (better, first), (worse, second) = one, other
    a, b = _values(metric, first), _values(metric, second)
    sign = 1 if _lower_is_better(metric, first[0]) else -1
    wrong = _same_images([*first, *second]) if metric == TOP1.name else None
    disagreement = None
    interval: tuple[float, float] | None
    if wrong is not None:
        x, y = wrong[: len(a)], wrong[len(a) :]
        low, high, _ = statistics.bootstrap(x, y)
        interval, disagreement = (low, high), float((x[:, None] != y[None]).mean())
    elif min(len(a), len(b)) > 1:
        interval = statistics.welch(a, b)
    else:
        interval = None
    if interval is not None and sign < 0:
        interval = -interval[1], -interval[0]
    return Step(better=better, worse=worse, means=(float(np.mean(a)), float(np.mean(b))),
                effect=sign * float(np.mean(b) - np.mean(a)), interval=interval, seeds=(len(a), len(b)),
                disagreement=disagreement, spread=_spread(a, b))  # fmt: skip


def _against_others(measure: Best, runs: Sequence[Evidence]) -> list[Step]:
    """The strategy that is named, against each of those that are not."""
    named = min(measure.named, key=lambda name: np.mean(_values(name, runs)))
    return [_strategies(named, other, runs) for other in measure.others]


def _strategies(named: str, other: str, runs: Sequence[Evidence]) -> Step:
    """Two strategies on the same subsets. Each pair of data sets counts alike, and so does each amount of a pair.

    What the draws of the subsets change is seen within each amount; what the test images change is taken as if the two
    answered independently, which is more than where they err on the same ones.
    """
    strata: dict[tuple[str, int], list[Evidence]] = defaultdict(list)
    for run in runs:
        strata[run.level, run.settings["amount"]].append(run)
    amounts = Counter(pair for pair, _ in strata)
    weights = [1 / len(amounts) / amounts[pair] for pair, _ in strata]
    differences = [[run.result[other] - run.result[named] for run in some] for some in strata.values()]
    by_pair = {pair: [run for run in runs if run.level == pair] for pair in amounts}
    variance = sum(_of_images(some, named) + _of_images(some, other) for some in by_pair.values()) / len(amounts) ** 2
    means = [float(np.dot(weights, [np.mean(_values(name, some)) for some in strata.values()]))
             for name in (named, other)]  # fmt: skip
    less = sum(np.mean(_values(named, some)) < np.mean(_values(other, some)) for some in by_pair.values())
    draws = min(map(len, differences))
    return Step(better=named, worse=other, means=tuple(means), effect=means[1] - means[0],
                interval=statistics.stratified(differences, weights, variance) if draws > 1 else None,
                seeds=(draws,), better_in=(int(less), len(amounts)))  # fmt: skip


def _of_images(runs: Sequence[Evidence], strategy: str) -> float:
    """Variance of an error in percent by the draw of its test images."""
    error = float(np.mean(_values(strategy, runs)))
    return error * (100 - error) / float(runs[0].result["n"])


def _values(metric: str, runs: Sequence[Evidence]) -> list[float]:
    return [float(run.result[metric]) for run in runs]


def _lower_is_better(metric: str, run: Evidence) -> bool:
    """Whether less is better: what the run says of the metric, else so, as of times and losses."""
    known = {one.name: one.lower_is_better for one in metrics_of(run.result)}
    return known.get(metric.removeprefix("train_"), True)


def _same_images(runs: Sequence[Evidence]) -> np.ndarray | None:
    """Wrong answers (runs, images); None where a run's are not known, or are to other images."""
    if any(run.wrong is None or run.images != runs[0].images for run in runs):
        return None
    return np.stack([run.wrong for run in runs])  # type: ignore[misc]


def _spread(*groups: Sequence[float]) -> float | None:
    known = [np.var(values, ddof=1) for values in groups if len(values) > 1]
    return float(np.sqrt(np.mean(known))) if known else None


def _outcome(claim: Claim, step: Step) -> Outcome:
    """Holds: the whole interval is beyond `by`. Does not hold: all of it is short of that, or within the smallest
    difference of interest around 0."""
    by = claim.measure.by if isinstance(claim.measure, Order | Best) else 0.0
    if step.interval is None:
        return Outcome.open
    low, high = step.interval
    if low > by:
        return Outcome.holds
    small = claim.design.smallest if claim.design and by == 0 else 0.0
    return Outcome.fails if high < by or (-small < low and high < small) else Outcome.open


def _subsets_needed(step: Step, by: float) -> str:
    assert step.interval is not None
    half, off = (step.interval[1] - step.interval[0]) / 2, max(abs(step.effect - by), 0.01)
    return (
        f"about {math.ceil((half / off) ** 2)} times as many subsets and test images (from the interval that was seen)"
    )


def _what_it_takes(claim: Claim, step: Step | None) -> str:
    """Seeds and minutes with which the smallest difference of interest is shown, from what was seen, else planned."""
    plan = claim.design
    if isinstance(claim.measure, Best) and step is not None and step.interval is not None:
        return _subsets_needed(step, claim.measure.by)
    if plan is None or isinstance(claim.measure, Value):
        return ""
    seen = step is not None and step.spread is not None
    spread = step.spread if step is not None and step.spread is not None else plan.spread
    disagreement = step.disagreement or 0.0 if seen and step is not None else plan.disagreement
    seeds = seeds_needed(plan.smallest, plan.images, disagreement, spread)
    known = "from the spread that was seen" if seen else "from the planned spread"
    if seeds is None:
        return f"more than 1,000 seeds ({known})"
    if step is not None and min(step.seeds) >= seeds:
        return f"more seeds: these show a difference of {plan.smallest:g}, and the one that was seen is smaller"
    minutes = plan.minutes * seeds / plan.seeds
    long = f"{minutes / 60:,.0f} hours" if minutes > 120 else f"{minutes:.0f} minutes"
    return f"{seeds} seeds of each net on {plan.images:,} images, about {long} ({known})"
