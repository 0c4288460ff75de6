"""The verdicts as text for a terminal: no line is longer than it is wide, and no word is broken."""

from collections.abc import Sequence
from itertools import groupby

from cnnbench.cli.wrapped import example, wrapped
from cnnbench.reporting.claims import table
from cnnbench.reporting.claims.claim import Value
from cnnbench.reporting.claims.verdict import Verdict


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """A few lines on each verdict under the title of its slide, and their sum; of a single one all that is known."""
    if len(verdicts) == 1:
        return _single(verdicts[0])
    slides = groupby(verdicts, lambda verdict: verdict.claim.slide)
    parts = ["\n".join([slide, *map(_entry, of_slide)]) for slide, of_slide in slides]
    return "\n\n".join([*parts, wrapped(f"{table.summary(verdicts)}. {table.ALONE}")])


def _single(verdict: Verdict) -> str:
    command = verdict.claim.command
    return "\n\n".join(example(part, 0) if part == command else wrapped(part) for part in table.details(verdict))


def _entry(verdict: Verdict) -> str:
    claim = wrapped(f"{verdict.claim.name}: {verdict.claim.says}", "  ", "    ")
    return f"{claim}\n{wrapped(_found(verdict), '    -> ', '       ')}"


def _found(verdict: Verdict) -> str:
    """`holds: +1.39 points (95 %: +0.27 to +2.53, 2 seeds, n = 10,000)`, and what is to be known of it."""
    row = table.row(verdict)
    of = [f"95 %: {row['95 %']}"] if row["95 %"] else []
    of += [f"{row['seeds']} seed{'' if row['seeds'] == '1' else 's'}"] if row["seeds"] else []
    of += [f"n = {verdict.n:,}"] if verdict.n else []
    numbers = f" ({', '.join(of)})" if of else ""
    effect = f": {row['effect']}{numbers}" if row["effect"] else ""
    if verdict.deciding and isinstance(verdict.claim.measure, Value):
        effect = f": {table.value_text(verdict.claim, verdict.deciding)}{effect}"
    return "; ".join([f"{verdict.outcome.value}{effect}", *table.notes(verdict)])
