"""Numbers that follow from the layers of a net alone, as claims count them."""

from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from cnnbench.analysis.complexity import Layer
from cnnbench.analysis.summary import Summary, layer_kind, layer_neurons, summarize
from cnnbench.config import compose
from cnnbench.reporting.claims.claim import Count
from cnnbench.utils.errors import UserError

COUNTED = {
    "params": lambda row: row.weights + row.biases,
    "weights": lambda row: row.weights,
    "macs": lambda row: row.macs,
    "neurons": layer_neurons,
    "layers": lambda row: 1,
}


def counted(claim: Count) -> float:
    """The number itself. A share or a ratio where the claim has `over`, whose other keys are those of the count."""
    number = _number(claim.of, claim.what, claim.kind, claim.layer)
    if claim.over is None:
        return number
    over = claim.over
    whole = _number(over.get("of", claim.of), over.get("what", claim.what), over.get("kind"), over.get("layer"))
    if not whole:
        raise UserError(f"a claim divides by what is 0: {claim.over}")
    return number / whole


def holds(claim: Count, number: float) -> bool:
    """Whether a number is the one that is said."""
    if claim.between is not None:
        low, high = claim.between
        return low <= number <= high
    assert claim.said is not None
    return abs(number / claim.said - 1) <= claim.within


def _number(of: str, what: str, kind: str | None, layer: str | None) -> float:
    summary = _summary(of)
    if what == "depth":
        return summary.depth
    rows = [row for row in summary.rows if kind in (None, layer_kind(row)) and fnmatchcase(row.name, layer or "*")]
    return sum(COUNTED[what](row) for row in rows) if what != "modules" else _modules(rows)


def _modules(rows: list[Layer]) -> int:
    """Parts of the net whose layers these are: `inception3a` of `inception3a.branch1.0`."""
    return len({row.name.partition(".")[0] for row in rows})


@cache
def _summary(of: str) -> Summary:
    composed: Any = compose.compose("summary", of.split())
    return summarize(compose.typed_config("summary", composed, of.split()))
