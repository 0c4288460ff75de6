#!/usr/bin/env python3
"""Tables of what scripts/two_by_two.py found: scripts/two_by_two_table.py FILE.json … [--keep SMALL.json]

Errors of each strategy on the test images, by pair and amount, mean over the subsets; then by how much a choice errs
more than the best of the strategies on the same subset: its regret, in points, mean over the pairs, with the 95 %
interval of a bootstrap of the pairs. A choice is called right where its regret is at most a point. Where transfer=auto
tries two strategies that train and was not run itself, it counts as the worse one.

--keep writes one row per subset; such a file is read like those of the runs.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STRATEGIES = ("svm", "deep_features", "partial", "full")
TRIED = ("partial", "full")  # by transfer=auto, where it is open which
RIGHT = 1.0  # points
DRAWS = 10_000


@dataclass(frozen=True)
class Subset:
    """What was found on one subset of a target. errors: percent of the test images."""

    pair: str
    amount: int
    seed: int
    n: int
    errors: Mapping[str, float]
    advice: str  # of transfer=auto
    similar: bool | None
    commits: Sequence[str]

    @property
    def best(self) -> float:
        return min(self.errors[strategy] for strategy in STRATEGIES)

    @property
    def auto(self) -> float:
        if "auto" in self.errors:
            return self.errors["auto"]
        return max(self.errors[name] for name in (TRIED if self.advice == "auto" else (self.advice,)))

    def regret(self, choice: str) -> float:
        return (self.auto if choice == "auto" else self.errors[choice]) - self.best


def read(files: Iterable[Path]) -> list[Subset]:
    """Subsets on which all strategies ran."""
    found: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in itertools.chain.from_iterable(json.loads(file.read_text()) for file in files):
        if "errors" in row:  # a file that was kept
            yielded = Subset(**row)
            found[yielded.pair, yielded.amount, yielded.seed]["kept"] = row
        else:
            found[row["pair"], row["amount"], row["seed"]][row["strategy"]] = row
    return [_subset(key, rows) for key, rows in sorted(found.items())
            if "kept" in rows or all(name in rows for name in (*STRATEGIES, "advice"))]  # fmt: skip


def _subset(key: tuple[str, int, int], rows: Mapping[str, dict[str, Any]]) -> Subset:
    if "kept" in rows:
        return Subset(**rows["kept"])
    ran = {name: row for name, row in rows.items() if "error" in row}
    advice = rows["advice"]["advice"]
    return Subset(
        *key,
        n=ran["svm"]["n"],
        errors={name: round(row["error"], 3) for name, row in ran.items()},
        advice=advice["strategy"],
        similar=advice["similar"],
        commits=sorted({row["commit"] for row in ran.values()}),
    )


def by_pair(subsets: Sequence[Subset]) -> dict[str, list[Subset]]:
    return {pair: list(group) for pair, group in itertools.groupby(subsets, lambda subset: subset.pair)}


def mean_regret(subsets: Sequence[Subset], choice: str) -> tuple[float, float, float]:
    """Mean over the pairs, and its 95 % interval by a bootstrap of the pairs."""
    means = np.array([np.mean([one.regret(choice) for one in group]) for group in by_pair(subsets).values()])
    drawn = means[np.random.default_rng(0).integers(len(means), size=(DRAWS, len(means)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(means.mean()), float(low), float(high)


def errors_table(subsets: Sequence[Subset]) -> str:
    lines = [
        "| source → target | per class | subsets | svm | deep_features | partial | full | auto | similar |",
        "|---" * 9 + "|",
    ]
    for (pair, amount), group in itertools.groupby(subsets, lambda one: (one.pair, one.amount)):
        rows = list(group)
        means = {name: np.mean([one.errors[name] for one in rows]) for name in STRATEGIES}
        cells = [f"**{mean:.1f}**" if mean == min(means.values()) else f"{mean:.1f}" for mean in means.values()]
        verdict = ", ".join(sorted({{True: "yes", False: "no", None: "open"}[one.similar] for one in rows}))
        auto = np.mean([one.auto for one in rows])
        lines.append(
            f"| {pair.replace('-', ' → ')} | {amount} | {len(rows)} | {' | '.join(cells)} | {auto:.1f} | {verdict} |"
        )
    return "\n".join(lines)


def regret_table(subsets: Sequence[Subset]) -> str:
    lines = ["| always | regret, points | 95 % | right |", "|---|---|---|---|"]
    for choice in ("auto", *STRATEGIES):
        mean, low, high = mean_regret(subsets, choice)
        right = sum(one.regret(choice) <= RIGHT for one in subsets)
        lines.append(f"| `{choice}` | {mean:.2f} | {low:.2f} to {high:.2f} | {right} of {len(subsets)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    subsets = read(options.files)
    print(f"{len(subsets)} subsets of {len(by_pair(subsets))} pairs\n")
    print(errors_table(subsets), regret_table(subsets), sep="\n\n")
    if options.keep:
        options.keep.write_text("[\n" + ",\n".join(json.dumps(vars(one)) for one in subsets) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
