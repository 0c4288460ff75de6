"""A claim: a sentence of the lecture, what is compared to test it, and what the comparison was designed to show."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError, unknown

TOP1 = "top1_error"


@dataclass(frozen=True, kw_only=True)
class Order:
    """Levels of one factor, each claimed to be better than the next by more than `by` of the metric's units.

    by: 0: better; negative: not worse by more than this. Levels are named settings of a run, the best one first.
    """

    levels: dict[str, dict[str, Any]]
    metric: str = TOP1
    by: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric of one net that is claimed to be at most, or at least, so much.

    these_images: whether it is claimed of these very images; its interval is then over seeds alone.
    """

    metric: str = TOP1
    at_most: float | None = None
    at_least: float | None = None
    these_images: bool = False


@dataclass(frozen=True, kw_only=True)
class Count:
    """A number that follows from the layers of nets alone, and what it is said to be.

    of: arguments of `cnnbench summary`; what: is added up, of the layers of this kind and name; over: by what it is
    divided. within: relative deviation that still counts as the number said; between: the range that is said.
    """

    of: str
    what: str = "params"
    kind: str | None = None
    layer: str | None = None
    over: dict[str, Any] | None = None
    said: float | None = None
    within: float = 0.02
    between: tuple[float, float] | None = None
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Strategies of transfer, one of which is claimed to err less than each of the others on pairs of data sets.

    named: of several the one that errs less in the mean speaks for them. of: file with the errors on subsets of the
    pairs' targets, in the folder of the kept evidence; amounts: training images per class; by: as of an Order.
    """

    named: list[str]
    others: list[str]
    of: str
    pairs: list[str]
    amounts: list[int]
    by: float = 0.0

    @property
    def metric(self) -> str:
        return self.named[0]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What was planned before anything ran. smallest: a difference below which it does not matter, in the metric's
    units; disagreement: share of images on which two of the nets disagree; spread: standard deviation over seeds;
    minutes: of all runs, on two cores."""

    smallest: float
    images: int
    seeds: int
    minutes: float
    disagreement: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Claim:
    """lecture: its own words; says: the sentence that is tested; correction: where the lecture slips."""

    name: str
    slide: str
    lecture: str
    says: str
    source: str
    measure: Order | Value | Count | Best
    command: str = ""
    needs: str = ""
    published: str = ""
    correction: str = ""
    remark: str = ""
    design: Design | None = None

    @property
    def levels(self) -> dict[str, dict[str, Any]]:
        """Settings of what is compared, by name."""
        if isinstance(self.measure, Best):
            return {pair: {} for pair in self.measure.pairs}
        return self.measure.levels if isinstance(self.measure, Order) else {"": {}}

    @property
    def commands(self) -> list[str]:
        """Lines of the command: what measures is the last one; what trains for it stands before it."""
        return self.command.splitlines()


KINDS: dict[str, type] = {"order": Order, "value": Value, "count": Count, "best": Best}


def claims_dir() -> Path:
    return conf_dir() / "claims"


def names() -> list[str]:
    """Names of all claims, in the order of the lecture: that of conf/claims/order.txt."""
    return [line for line in (claims_dir() / "order.txt").read_text().splitlines() if line]


def read_claims(name: str | None = None) -> list[Claim]:
    """All claims, or the one of this name. UserError where there is none."""
    known = names()
    if name is not None and name not in known:
        raise unknown("claim", name, known)
    return [read(claims_dir() / f"{one}.yaml") for one in ([name] if name else known)]


def read(file: Path) -> Claim:
    """Claim of a YAML file. UserError where it has other keys than a claim has."""
    content = yaml.safe_load(file.read_text())
    kinds = [kind for kind in KINDS if kind in content]
    if len(kinds) != 1:
        raise UserError(f"{file}: a claim has one of {', '.join(KINDS)}")
    content["measure"] = _make(KINDS[kinds[0]], content.pop(kinds[0]), file)
    if "design" in content:
        content["design"] = _make(Design, content["design"], file)
    return _make(Claim, {"name": file.stem, **content}, file)


def _make(which: type, content: Mapping[str, Any], file: Path) -> Any:
    known = {item.name: item for item in fields(which)}
    if others := sorted(content.keys() - known.keys()):
        raise UserError(f"{file}: unknown key {others[0]}; known: {', '.join(known)}")
    required = {name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING}
    if missing := sorted(required - content.keys()):
        raise UserError(f"{file}: {missing[0]} is missing")
    return which(**content)
