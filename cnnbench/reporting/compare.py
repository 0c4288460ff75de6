"""Whether the nets of a report differ by more than chance: in pairs, by their answers to the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from cnnbench.config.sections import Compare
from cnnbench.reporting.gather import Run
from cnnbench.reporting.group import RunGroup, group_labels
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.classification import TOP1
from cnnbench.tasks.classification.answers import Answers, read
from cnnbench.utils import statistics
from cnnbench.utils.format import Signed, plural, shorten_apart

SURE = 0.05  # a difference that chance makes less often than this is called one
UNASKED = 15  # pairs that compare=auto compares
NAME = 30  # characters of a net's name in the table

MCNEMAR = "exact McNemar test, interval by Newcombe"
BOOTSTRAP = "paired bootstrap over seeds and images"


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Two nets judged on the same images. Errors and their difference, second less first, in percent."""

    first: str
    second: str
    n: int
    runs: tuple[int, int]
    errors: tuple[float, float]
    interval: tuple[float, float]  # of the difference, 95 %
    alone: tuple[int, int] | None  # images that one net alone gets wrong; None of several runs
    p: float
    test: str
    corrected: float = 1.0  # p, for the number of pairs
    data: str

    @property
    def difference(self) -> float:
        return self.errors[1] - self.errors[0]

    @property
    def differs(self) -> bool:
        return self.corrected < SURE


@dataclass(frozen=True)
class Comparison:
    """Pairs of nets, and what was not compared and why, a line each."""

    pairs: list[ComparedPair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """The comparison as JSON holds it."""
        pairs = [{**asdict(one), "difference": one.difference, "differs": one.differs} for one in self.pairs]
        return {"comparisons": pairs, "not_compared": self.notes}


@dataclass(frozen=True, eq=False)
class ComparedNet:
    """The runs of one net, as rows of answers to the same images."""

    name: str
    data: str
    answers: Answers  # of its first run: the images
    split: str
    wrong: np.ndarray  # bool (runs, images)

    def same_images(self, other: "ComparedNet") -> bool:
        numbers = self.answers.numbered and (self.data, self.split) != (other.data, other.split)
        return not numbers and self.answers.same_images(other.answers)


def compare(groups: Sequence[RunGroup], how: Compare) -> Comparison:
    """Comparison of all pairs of nets; by Compare.auto of few pairs only, as more would hide the report."""
    members = _members(groups, how)
    same_data = [pair for pair in combinations(members, 2) if pair[0][1][0].data == pair[1][1][0].data]
    count = len(same_data) if len(members) > 2 else len(members) // 2
    if how is Compare.none or not count:
        return Comparison()
    if how is Compare.auto and count > UNASKED:
        return Comparison(notes=[f"compare=all says which of these {count:,} pairs of nets differ by more than chance"])
    nets, notes = _read_all(members)
    pairs = []
    for one, other in combinations(nets, 2):
        if one.same_images(other):
            pairs.append(_pair(one, other))
        elif one.data == other.data or len(members) == 2:
            notes.append(_different(one, other))
    corrected = statistics.holm([pair.p for pair in pairs])
    return Comparison([replace(pair, corrected=p) for pair, p in zip(pairs, corrected, strict=True)], _few(notes))


def _members(groups: Sequence[RunGroup], how: Compare) -> list[tuple[str, list[Run]]]:
    """Names of the nets and their finished runs. Of one net: its runs, where there are two, or all were asked for."""
    some = [(name, group.done) for name, group in zip(group_labels(groups), groups, strict=True)
            if group.done and group.primary.name == TOP1.name]  # fmt: skip
    if len(some) == 1 and (len(some[0][1]) == 2 or how is Compare.all):
        return [(run.path.name, [run]) for run in some[0][1]]
    return some


def _read_all(members: Sequence[tuple[str, list[Run]]]) -> tuple[list[ComparedNet], list[str]]:
    """Nets with the answers of their runs; and a line for those that left none, for each damaged file, and for runs
    that were judged on other images than the other runs of their net."""
    nets, missing, notes = [], list[Run](), list[str]()
    for name, runs in members:
        found = []
        for run in runs:
            try:
                found.append(ComparedNet(name, run.data, *_answers(run)))
            except FileNotFoundError:
                missing.append(run)
            except (OSError, ValueError) as error:
                notes.append(f"not compared: {run.path / ANSWERS} is damaged ({error})")
        same = [one for one in found if one.same_images(found[0])]
        if len(same) < len(found):
            notes.append(f"not compared: {plural(len(found) - len(same), 'run')} of {name} judged on other images")
        if same:
            nets.append(replace(same[0], wrong=np.concatenate([one.wrong for one in same])))
    return nets, [*_left_none(missing), *notes]


def _answers(run: Run) -> tuple[Answers, str, np.ndarray]:
    """Answers of a run, split, and which are wrong (1, images). ValueError where they are not those of its result."""
    answers = read(run.path / ANSWERS)
    if abs(100 * answers.wrong.mean() - run.result[TOP1.name]) > 1e-6:
        raise ValueError("it does not have the errors of result.json")
    return answers, str(run.result.get("split")), answers.wrong[None]


def _left_none(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return []
    weights = runs[0].result.get("weights") if runs[0].command == "evaluate" else runs[0].path
    return [f"not compared: {plural(len(runs), 'run')} without {ANSWERS}, which this writes: "
            f"cnnbench evaluate weights={weights}"]  # fmt: skip


def _different(one: ComparedNet, other: ComparedNet) -> str:
    counts = [f"{net.wrong.shape[1]:,} {net.split}" for net in (one, other)]
    return f"not compared: {one.name} and {other.name} were judged on different images ({' and '.join(counts)})"


def _few(notes: list[str]) -> list[str]:
    return [*notes[:3], *([f"not compared: {len(notes) - 3} more"] if len(notes) > 3 else [])]


def _pair(one: ComparedNet, other: ComparedNet) -> ComparedPair:
    a, b = one.wrong, other.wrong
    known: dict[str, Any] = {
        "first": one.name, "second": other.name, "data": one.data, "n": a.shape[1], "runs": (len(a), len(b)),
        "errors": (100 * float(a.mean()), 100 * float(b.mean())),
    }  # fmt: skip
    if len(a) > 1 or len(b) > 1:
        low, high, p = statistics.bootstrap(a, b)
        return ComparedPair(**known, interval=(low, high), alone=None, p=p, test=BOOTSTRAP)
    first, second, both = (int(count) for count in ((a & ~b).sum(), (b & ~a).sum(), (a & b).sum()))
    interval = statistics.newcombe(first, second, both, a.shape[1])
    return ComparedPair(
        **known, interval=interval, alone=(first, second), p=statistics.mcnemar(first, second), test=MCNEMAR
    )


# In words


def sentence(pair: ComparedPair) -> str:
    """What is known of a single pair."""
    one, other = pair.first, pair.second
    begin = f"{one} and {other} differ" if pair.differs else f"No difference is shown between {one} and {other}"
    low, high = pair.interval
    text = (f"{begin}: {pair.errors[0]:.2f} and {pair.errors[1]:.2f} % of the same {pair.n:,} images wrong, difference "
            f"{pair.difference:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), {p_text(pair.p)}")  # fmt: skip
    if pair.alone is None:
        return f"{text} ({pair.test}, {' and '.join(plural(runs, 'run') for runs in pair.runs)})."
    return f"{text}. {one} alone gets {pair.alone[0]:,} of them wrong, {other} alone {pair.alone[1]:,} ({pair.test})."


def p_text(p: float) -> str:
    value = p_value(p)
    return f"p {value}" if value.startswith("<") else f"p = {value}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def rows(pairs: Sequence[ComparedPair]) -> list[dict[str, Any]]:
    """Rows of the table of pairs."""
    several = len({pair.data for pair in pairs}) > 1
    short = shorten_apart((name for pair in pairs for name in (pair.first, pair.second)), NAME)
    return [{
        "net": short[pair.first],
        "other": short[pair.second],
        **({"data": pair.data} if several else {}),
        "difference": Signed(pair.difference, 2),
        "95 %": "{:+.2f} to {:+.2f}".format(*pair.interval),
        "only net wrong": pair.alone[0] if pair.alone else None,
        "only other wrong": pair.alone[1] if pair.alone else None,
        "p": p_value(pair.p),
        "p of all": p_value(pair.corrected),
        "differ": "yes" if pair.differs else "not shown",
    } for pair in pairs]  # fmt: skip


def how_read(pairs: Sequence[ComparedPair]) -> str:
    """How the table is to be read, in one sentence for each column."""
    tests = "; ".join(dict.fromkeys(pair.test for pair in pairs))
    return (f"Pairs: difference is the top-1 error of the other net less that of the net, in points, on the same "
            f"images. p: {tests}. p of all: corrected for {plural(len(pairs), 'pair')} (Holm); below {SURE} two nets "
            "differ.")  # fmt: skip
