"""Pairs of images, of one person or of two: read from a table, or drawn."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

SEED = 0  # of the pairs that are drawn, whatever the seed of a training: runs are to be compared
DRAWN = 1000  # of each kind, where there are as many
YES, NO = ("1", "true", "yes", "same"), ("0", "false", "no", "different")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images of a source, by their numbers. `fold`: the part of each, where the set says it."""

    first: Tensor  # int64 (P,)
    second: Tensor
    same: Tensor  # bool (P,): whether both show one person
    fold: Tensor | None = None  # int64 (P,), from 0 on
    folds: int = 10  # parts, where the set does not say them
    origin: str = ""  # where they are from, in words

    def __len__(self) -> int:
        return len(self.same)

    def among(self, indices: Tensor) -> "Pairs":
        """The pairs of which both images are among these, by their numbers there."""
        place = {index: number for number, index in enumerate(indices.tolist())}
        first, second = ([place.get(index, -1) for index in one.tolist()] for one in (self.first, self.second))
        kept = [number for number, ends in enumerate(zip(first, second, strict=True)) if min(ends) >= 0]
        return replace(
            self,
            first=torch.tensor(first, dtype=torch.int64)[kept],
            second=torch.tensor(second, dtype=torch.int64)[kept],
            same=self.same[kept],
            fold=None if self.fold is None else self.fold[kept],
        )


def drawn(people: Tensor, folds: int) -> Pairs:
    """As many pairs of one person as of two, at most DRAWN of each, all different. people: of each image, int64 (N,).

    UserError where there is none of one kind.
    """
    rng, who = np.random.default_rng(SEED), people.cpu().numpy()
    same = _of_one(who)
    if not len(same) or len(np.unique(who)) < 2:
        lack = "no two images of one person" if not len(same) else "images of one person alone"
        raise UserError(f"pairs cannot be drawn: among {plural(len(who), 'image')} there are {lack}")
    count = min(DRAWN, len(same))
    chosen = same[rng.permutation(len(same))[:count]]
    others = _of_two(who, count, rng)
    both = torch.from_numpy(np.concatenate([chosen, others]))
    kinds = torch.arange(len(both)) < len(chosen)
    origin = f"{plural(len(both), 'pair')} drawn among {persons(len(np.unique(who)))}, seed {SEED}"
    return Pairs(both[:, 0].contiguous(), both[:, 1].contiguous(), kinds, folds=folds, origin=origin)


def persons(count: int) -> str:
    """`1 person`, `31 people`."""
    return "1 person" if count == 1 else f"{count:,} people"


def _of_one(who: np.ndarray) -> np.ndarray:
    """All pairs of images of one person: int64 (P, 2)."""
    found = [np.zeros((0, 2), np.int64)]
    for members in np.split(np.argsort(who, kind="stable"), np.cumsum(np.unique(who, return_counts=True)[1])[:-1]):
        found.append(members[np.stack(np.triu_indices(len(members), 1), axis=1)])
    return np.concatenate(found)


def _of_two(who: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` different pairs of images of two people: int64 (P, 2)."""
    if len(who) ** 2 <= 100 * count:  # few images: of all pairs
        first, second = np.triu_indices(len(who), 1)
        all_of_them = np.stack([first, second], axis=1)[who[first] != who[second]]
        return all_of_them[rng.permutation(len(all_of_them))[:count]]
    found = dict[tuple[int, int], None]()
    while len(found) < count:
        ends = np.sort(rng.integers(len(who), size=(count, 2)), axis=1)
        ends = ends[who[ends[:, 0]] != who[ends[:, 1]]]
        found |= dict.fromkeys(map(tuple, ends.tolist()))
    return np.array(list(found)[:count], dtype=np.int64)


# Tables


@dataclass(frozen=True)
class Row:
    """A row of a table of pairs: two files relative to its folder, whether they show one person, the fold."""

    first: str
    second: str
    same: bool
    fold: str | None = None


def read_table(table: Path) -> list[Row]:
    """Rows of a table with the columns first, second, same and, where it has them, fold; or of LFW's pairs.txt.
    UserError that names the line."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            lines = list(csv.reader(file, delimiter=max("\t;,", key=head.count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"data.pairs: cannot read '{table}': {reason}") from None
    numbered = [(number, row) for number, row in enumerate(lines, start=1) if any(row)]
    if not numbered:
        raise UserError(f"data.pairs: '{table}' is empty")
    if re.fullmatch(r"\d+(\s+\d+)?", "\t".join(numbered[0][1]).strip()):
        rows = _read_lfw(table, numbered)
    else:
        rows = _read_columns(table, numbered)
    if not rows:
        raise UserError(f"data.pairs: '{table}' names no pairs, only its columns")
    return rows


def _read_columns(table: Path, numbered: Sequence[tuple[int, list[str]]]) -> list[Row]:
    (_, head), *rest = numbered
    names = [name.strip().casefold() for name in head]
    if missing := [name for name in ("first", "second", "same") if name not in names]:
        raise UserError(f"data.pairs: '{table}' has no column {missing[0]}; it needs first, second and same")
    found = []
    for number, row in rest:
        if len(row) != len(names):
            raise UserError(f"data.pairs: '{table}', line {number}: {len(row)} values for {len(names)} columns")
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        if cells["same"].casefold() not in (*YES, *NO):
            raise UserError(f"data.pairs: '{table}', line {number}: same is '{cells['same']}', not 1 or 0")
        same = cells["same"].casefold() in YES
        found.append(Row(cells["first"], cells["second"], same, cells.get("fold")))
    return found


def _read_lfw(table: Path, numbered: Sequence[tuple[int, list[str]]]) -> list[Row]:
    """LFW's own: first the number of folds and of pairs of each kind in one; then NAME 1 2, or NAME 1 OTHER 2."""
    (_, head), *rest = numbered
    sizes = [int(size) for size in "\t".join(head).split()]
    each = sizes[-1]
    found = []
    for place, (number, row) in enumerate(rest):
        cells = "\t".join(row).split()
        if len(cells) not in (3, 4) or not cells[1].isdigit() or not cells[-1].isdigit():
            raise UserError(f"data.pairs: '{table}', line {number}: neither NAME 1 2 nor NAME 1 OTHER 2")
        first, second = (cells[0], cells[1]), (cells[-2] if len(cells) == 4 else cells[0], cells[-1])
        ends = [f"{name}/{name}_{int(image):04d}.jpg" for name, image in (first, second)]
        found.append(Row(ends[0], ends[1], len(cells) == 3, str(place // (2 * each)) if len(sizes) == 2 else None))
    return found
