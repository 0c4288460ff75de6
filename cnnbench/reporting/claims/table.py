"""The table of verdicts, and the page with all that is behind it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cnnbench.config.sections import Format
from cnnbench.output.tables import flat, render
from cnnbench.reporting.claims.claim import TOP1, Best, Claim, Count, Design, Order, Value
from cnnbench.reporting.claims.numbers import VARIANTS
from cnnbench.reporting.claims.verdict import Outcome, Step, Verdict
from cnnbench.utils.files import json_text
from cnnbench.utils.format import plural
from cnnbench.utils.power import power, smallest_difference

OLDER = "measured on older code"
ALONE = (
    "Each interval is at 95 % and for its own claim: of twenty verdicts that rest on one, one may be wrong by chance "
    "alone. Counts have none, as they are exact."
)
ORDERS = "orders of magnitude"
UNITS = {"wall_seconds": "s", "psnr": "dB", "loss": "", "steps": "steps", "epochs": "epochs",
         **dict.fromkeys(VARIANTS.values(), ORDERS)}  # fmt: skip
POINTS = "points"


def row(verdict: Verdict) -> dict[str, Any]:
    """Row of the table: what is claimed, what is found, and by how much."""
    claim, step = verdict.claim, verdict.deciding
    return {
        "claim": claim.name,
        "what is tested": claim.says,
        "verdict": said(verdict),
        "effect": _count_text(verdict) if isinstance(claim.measure, Count) else effect_text(claim, step),
        "95 %": interval_text(claim, step),
        "seeds": _seeds(step),
        "n": verdict.n,
    }


def said(verdict: Verdict) -> str:
    """The verdict in words, with what is to be known of it."""
    return "; ".join([verdict.outcome.value, *notes(verdict)])


def notes(verdict: Verdict) -> list[str]:
    """Why it is no other verdict, and whether its runs are of older code."""
    return [*([verdict.reason] if verdict.reason else []), *([OLDER] if verdict.older else [])]


def effect_text(claim: Claim, step: Step | None) -> str | None:
    """`+1.30 points`: positive effects speak for the claim."""
    if step is None:
        return None
    unit = unit_of(claim)
    return f"{step.effect:+.{decimals(claim)}f}{f' {unit}' if unit else ''}"


def unit_of(claim: Claim) -> str:
    metric = getattr(claim.measure, "metric", TOP1)
    return UNITS.get(metric, POINTS)


def decimals(claim: Claim) -> int:
    return 0 if unit_of(claim) == "steps" else 2


def interval_text(claim: Claim, step: Step | None) -> str | None:
    if step is None or step.interval is None:
        return None
    return " to ".join(f"{limit:+.{decimals(claim)}f}" for limit in step.interval)


def _seeds(step: Step | None) -> str | None:
    return None if step is None else " and ".join(map(str, dict.fromkeys(step.seeds)))


def _count_text(verdict: Verdict) -> str:
    measure, number = verdict.claim.measure, verdict.number
    assert isinstance(measure, Count) and number is not None
    claimed = "{} to {}".format(*map(plain, measure.between)) if measure.between else plain(measure.said)
    return f"{plain(number)}, claimed {claimed}{f' {measure.unit}' if measure.unit else ''}"


def plain(number: float | None) -> str:
    """A number as it is read: `60,965,224`, `0.919`, `8.71`."""
    assert number is not None
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.3g}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """`31 claims: 20 hold, 4 do not hold, 7 cannot be decided here`."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    words = {Outcome.holds: ("holds", "hold"), Outcome.fails: ("does not hold", "do not hold"),
             Outcome.open: ("cannot be decided here",) * 2}  # fmt: skip
    parts = [f"{counts[one]} {words[one][counts[one] != 1]}" for one in Outcome if counts[one]]
    return f"{plural(len(verdicts), 'claim')}: {', '.join(parts)}"


def render_verdicts(verdicts: Sequence[Verdict], format: Format) -> str:
    """Markdown, CSV or JSON of the table, without a final newline. JSON has the steps, designs and dates too."""
    if format is Format.json:
        return json_text([data(verdict) for verdict in verdicts], ascii=False, default=str)
    if format is Format.csv:
        return render([flat(row(verdict)) for verdict in verdicts], format)
    if len(verdicts) == 1:
        return "\n\n".join(details(verdicts[0]))
    return f"{render([row(verdict) for verdict in verdicts], format)}\n\n{summary(verdicts)}. {ALONE}"


def data(verdict: Verdict) -> dict[str, Any]:
    claim = asdict(verdict.claim)
    return {**asdict(verdict), "claim": claim, "outcome": verdict.outcome.value, "verdict": said(verdict)}


def details(verdict: Verdict) -> list[str]:
    """Paragraphs on one claim: what the lecture says, what was found, what was planned, how to run it."""
    claim = verdict.claim
    parts = [f"{claim.says[0].upper()}{claim.says[1:]}: {said(verdict)}.", _lecture(claim)]
    parts += [_correction(claim)] if claim.correction or claim.published else []
    parts += [f"Counted: {_count_text(verdict)}."] if isinstance(claim.measure, Count) else _found(verdict)
    parts += [f"To decide it: {verdict.needs}."] if verdict.needs else []
    parts += [claim.remark] if claim.remark else []
    parts += [planned(claim)] if claim.design else []
    parts += [f"Changed since the runs: {', '.join(verdict.older)}."] if verdict.older else []
    parts += [claim.command] if claim.command else []
    return parts


def _lecture(claim: Claim) -> str:
    return f'"{claim.lecture}" ({claim.slide}; {claim.source})'


def _correction(claim: Claim) -> str:
    return " ".join([*([claim.correction] if claim.correction else []),
                     *([f"Published: {claim.published}"] if claim.published else [])])  # fmt: skip


def _found(verdict: Verdict) -> list[str]:
    if not verdict.steps:
        return []
    lines = [step_text(verdict.claim, step) for step in verdict.steps]
    images = f", n = {verdict.n:,}" if verdict.n else ""
    when = f" {' to '.join(dict.fromkeys((verdict.dates[0], verdict.dates[-1])))}" if verdict.dates else ""
    commits = f" at {', '.join(verdict.commits)}" if verdict.commits else ""
    devices = f" on {' and '.join(verdict.devices)}" if verdict.devices else ""
    measured = f" Measured{when}{commits}{devices}." if when or commits else ""
    counted = "subset" if isinstance(verdict.claim.measure, Best) else "run"
    return [f"{' '.join(lines)} {plural(verdict.runs, counted)}{images}.{measured}"]


def step_text(claim: Claim, step: Step) -> str:
    """`A 2.04, B 3.10: +1.06 points (95 %: +0.20 to +1.92), seeds 3 and 3.`"""
    unit = unit_of(claim)
    short = "%" if unit == POINTS else unit
    alone = ", over seeds alone" if getattr(claim.measure, "these_images", False) else ""
    limits = f" (95 %{alone}: {interval_text(claim, step)})" if step.interval else ""
    if isinstance(claim.measure, Value):
        return (f"{claim.measure.metric} {value_text(claim, step)}: on the claim's side by "
                f"{effect_text(claim, step)}{limits}, {plural(step.seeds[0], 'seed')}.")  # fmt: skip
    assert isinstance(claim.measure, Order | Best)
    named = isinstance(claim.measure, Best) or claim.measure.metric in (TOP1, unit)
    metric = "" if named else f" in {claim.measure.metric}"
    drawn = (
        f"seeds {' and '.join(map(str, step.seeds))}"
        if step.better_in is None
        else ("less on {} of {} pairs".format(*step.better_in))
    )
    means = [f"{mean:.{decimals(claim)}f}" for mean in step.means]
    return (f"{step.better} {means[0]}, {step.worse} {means[1]} {short}{metric}: "
            f"{effect_text(claim, step)}{limits}, {drawn}.")  # fmt: skip


def value_text(claim: Claim, step: Step) -> str:
    """`5.95 %, claimed at most 6`."""
    measure, unit = claim.measure, unit_of(claim)
    assert isinstance(measure, Value)
    bound = f"at most {measure.at_most:g}" if measure.at_most is not None else f"at least {measure.at_least:g}"
    return f"{step.means[0]:.2f} {'%' if unit == POINTS else unit}, claimed {bound}"


def planned(claim: Claim) -> str:
    """What was planned, and for a comparison what it could show by its own assumptions."""
    design = claim.design
    assert design is not None
    begin = (f"Planned: {plural(design.seeds, 'seed')} of each net on {design.images:,} images, about "
             f"{design.minutes:g} minutes of two cores.")  # fmt: skip
    return begin if isinstance(claim.measure, Value) else f"{begin} {_shows(design)}"


def _shows(design: Design) -> str:
    known = (design.images, design.seeds, design.disagreement, design.spread)
    disagree = (
        f"nets that disagree on {100 * design.disagreement:g} % of the images and " if design.disagreement else ""
    )
    return (
        f"With {disagree}a spread of {design.spread:g} over seeds, differences from {smallest_difference(*known):.3g} "
        f"on are shown with a power of 80 %; one of {design.smallest:g}, below which it would not matter, with "
        f"{power(design.smallest, *known):.0%}."
    )
