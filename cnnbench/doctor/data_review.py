"""Review of a data set: what its files, its copies and its labels say, as findings and as rows of a table."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnbench.doctor.copies import Copy
from cnnbench.doctor.finding import OK, PROBLEM, WARNING, Finding
from cnnbench.doctor.image_files import Images
from cnnbench.doctor.labels import Suspect
from cnnbench.utils.format import plural, some

CHANCE = 0.8  # part of the error of always naming the largest class
NAMED = 3  # files that a finding names
UNEQUAL = 3  # times as many images as the smallest class has: from here on the classes count as unequal
LISTED = 10  # so many classes are listed one by one


@dataclass(kw_only=True)
class Review:
    """All that was found. `unseen`: why near copies and labels were not looked at; empty where they were."""

    images: Images
    notes: tuple[str, ...] = ()  # of the data set: what was guessed or left out
    ignored: list[str] = field(default_factory=list)
    exact: list[Copy] = field(default_factory=list)
    near: list[Copy] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    judged: int = 0  # images whose labels were judged
    error: float = 0.0  # percent of them that the classifier, fitted on the others, gets wrong
    majority_error: float = 0.0  # percent, of always naming the largest class
    net: str = ""  # the layer whose features judged the labels
    similarity: float = 0.0
    unseen: str = ""
    uncompared: str = ""  # why no near copies were looked for, where labels were judged

    @property
    def hopeless(self) -> bool:
        """Whether the classifier is hardly better than chance (or by no more than two standard errors): its doubts
        then mean nothing."""
        chance = self.majority_error
        return self.error > min(CHANCE * chance, chance - 2 * math.sqrt(chance * (100 - chance) / self.judged))

    @property
    def two_labels(self) -> list[Copy]:
        """Copies that have different labels, exact ones first."""
        labels = self.images.targets
        return [pair for pair in [*self.exact, *self.near] if labels[pair.first] != labels[pair.other]]

    def across(self, pairs: Sequence[Copy]) -> list[Copy]:
        """Pairs among these whose images are in different splits."""
        splits = self.images.splits
        return [pair for pair in pairs if splits[pair.first] != splits[pair.other]]


def findings(review: Review) -> Iterator[Finding]:
    yield from _files(review)
    yield _sizes(review.images)
    yield _modes(review.images)
    yield _classes(review.images)
    yield _copies(review, "exact copies", review.exact, "with the same content")
    if review.unseen:
        why = "; ".join(review.unseen.splitlines())
        yield Finding("net", WARNING, f"near copies and labels were not looked at: {why}",
                      "give weights=FILE with model=NET, or weights=RUN")  # fmt: skip
    elif review.uncompared:
        yield Finding("near copies", WARNING, review.uncompared, "data.fraction=0.1 takes a tenth of each class")
    else:
        how = f"whose cosine is {review.similarity:g} or more"
        yield _copies(review, "near copies", review.near, how)
    yield _two_labels(review)
    if not review.unseen:
        yield _labels(review)


def _files(review: Review) -> Iterator[Finding]:
    images, unreadable = review.images, review.images.unreadable
    counts = Counter(images.splits)
    detail = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    yield Finding("images", OK, f"{plural(len(images), 'image')} that can be read: {detail}")
    if unreadable:
        named = some([f"{row['file']} ({_reason(row['detail'])})" for row in unreadable], NAMED)
        yield Finding("unreadable", PROBLEM, f"{plural(len(unreadable), 'image')} cannot be read: {named}",
                      "delete or replace them; data.on_error=skip leaves them out of a training")  # fmt: skip
    for note in review.notes:
        yield Finding("folders", WARNING, note)
    if review.ignored:
        yield Finding("ignored", WARNING, f"{plural(len(review.ignored), 'file')} beside the images not used: "
                      f"{some(review.ignored, NAMED)}")  # fmt: skip


def _reason(detail: str) -> str:
    """The reason without the path, which is said already."""
    return detail.rpartition("': ")[2] or detail


def _sizes(images: Images) -> Finding:
    sizes = sorted((one.width * one.height, one.width, one.height) for one in images.facts)
    if sizes[0] == sizes[-1]:
        return Finding("sizes", OK, f"all {sizes[0][1]} x {sizes[0][2]} px")
    shown = [f"{width} x {height}" for _, width, height in (sizes[0], sizes[-1], sizes[len(sizes) // 2])]
    return Finding("sizes", OK, "from {} to {} px, the middle one {}".format(*shown))


def _modes(images: Images) -> Finding:
    kinds = Counter(f"{one.format} {one.mode}".strip() for one in images.facts).most_common()
    return Finding("modes", OK, ", ".join(f"{count:,} {kind}" for kind, count in kinds))


def class_counts(images: Images) -> list[dict[str, Any]]:
    """Rows: the images of each class in each split."""
    counts = Counter(zip(images.splits, images.targets.tolist(), strict=True))
    return [
        {"class": name, **{split: counts[split, number] for split in images.sources}}
        for number, name in enumerate(images.classes)
    ]


def _classes(images: Images) -> Finding:
    rows = class_counts(images)
    smallest, largest = (how(rows, key=lambda row: row["train"]) for how in (min, max))
    if len(rows) <= LISTED:
        detail = "; ".join(f"{split}: {_listed(rows, split)}" for split in images.sources)
    else:
        detail = (f"{len(rows):,} classes, with {smallest['train']:,} ({smallest['class']}) to {largest['train']:,} "
                  f"({largest['class']}) training images")  # fmt: skip
    empty = [f"{row['class']} in {split}" for row in rows for split in images.sources if not row[split]]
    if empty:
        return Finding(
            "classes", WARNING, f"{detail}; no images of {some(empty, NAMED)}", "add images of these classes"
        )
    if largest["train"] > UNEQUAL * smallest["train"]:
        ratio = largest["train"] / smallest["train"]
        return Finding("classes", WARNING, f"{detail}; {largest['class']} has {ratio:.1f} times as many as "
                       f"{smallest['class']}", "the error over all images says little about small classes")  # fmt: skip
    return Finding("classes", OK, detail)


def _listed(rows: list[dict[str, Any]], split: str) -> str:
    return ", ".join(f"{row['class']} {row[split]:,}" for row in rows)


def _copies(review: Review, check: str, pairs: list[Copy], how: str) -> Finding:
    if not pairs:
        return Finding(check, OK, f"no two images {how}")
    detail = f"{plural(len(pairs), 'pair')} of images {how}"
    across = review.across(pairs)
    if across:
        advice = f"keep copies on one side: an error on {_others(review.images)} images that were trained on is too low"
        return Finding(check, WARNING, f"{detail}, {len(across):,} of them in two splits", advice)
    return Finding(check, WARNING, detail, "a copy adds nothing to a training, and falls on both sides of a split")


def _others(images: Images) -> str:
    return " or ".join(split for split in images.sources if split != "train") or "held-out"


def _two_labels(review: Review) -> Finding:
    pairs = review.two_labels
    if not pairs:
        return Finding("two labels", OK, "no image and its copy have different labels")
    labels = review.images.classes
    named = some([
        f"{review.images.names[pair.first]} = {review.images.names[pair.other]} "
        f"({labels[review.images.targets[pair.first]]}, {labels[review.images.targets[pair.other]]})"
        for pair in pairs
    ], NAMED)  # fmt: skip
    exact = sum(pair.exact for pair in pairs)
    return Finding("two labels", PROBLEM if exact else WARNING, f"{plural(len(pairs), 'pair')} of copies "
                   f"({exact:,} exact) with two labels: {named}", "one of the two labels is wrong")  # fmt: skip


def _labels(review: Review) -> Finding:
    if not review.judged:
        return Finding("labels", WARNING, "not judged: that needs two classes with two different images each")
    sure = sum(suspect.confident for suspect in review.suspects)
    left = len(review.images) - review.judged
    error = (f"a linear classifier on the features of {review.net} errs on {review.error:.1f} % of the images it was "
             "not fitted on")  # fmt: skip
    if left:
        error += f"; {plural(left, 'image')} of classes with a single image were not judged"
    if review.hopeless:
        return Finding("labels", WARNING, f"{error}, hardly less than chance ({review.majority_error:.1f} %): this net "
                       "cannot judge these labels", "weights= with a net that knows such images")  # fmt: skip
    if not sure:
        return Finding("labels", OK, f"no label is probably wrong: {error}")
    return Finding("labels", WARNING, f"{sure:,} of {review.judged:,} labels are probably wrong: {error}",
                   "look at labels.png: the likeliest mistakes come first")  # fmt: skip


# Rows


def suspect_rows(review: Review) -> list[dict[str, Any]]:
    classes = review.images.classes
    return [
        {
            "label": classes[one.label],
            "suggested": classes[one.suggested],
            "p_label": round(one.p_label, 4),
            "p_suggested": round(one.p_suggested, 4),
            "split": review.images.splits[one.index],
            "file": review.images.names[one.index],
        }
        for one in review.suspects
    ]


def pair_rows(review: Review) -> list[dict[str, Any]]:
    """Rows of all copies: two labels first, then those in two splits, then the others; the most similar first."""
    return [
        {"cosine": round(pair.cosine, 4), "exact": pair.exact, **review.images.place(pair.first),
         **{f"other_{key}": value for key, value in review.images.place(pair.other).items()}}
        for pair in ordered_pairs(review)
    ]  # fmt: skip


def ordered_pairs(review: Review) -> list[Copy]:
    labels, splits = review.images.targets, review.images.splits

    def order(pair: Copy) -> tuple[bool, bool, float]:
        return (
            bool(labels[pair.first] == labels[pair.other]),
            splits[pair.first] == splits[pair.other],
            -pair.cosine,
        )

    return sorted([*review.exact, *review.near], key=order)


COLUMNS = ("kind", "rank", "file", "split", "label", "suggested", "p_label", "p_suggested", "confident", "other_file",
           "other_split", "other_label", "cosine", "detail")  # fmt: skip


def issue_rows(review: Review) -> list[dict[str, Any]]:
    """Every single thing to look at, one row each, all with the same columns."""
    rows: list[dict[str, Any]] = [{"kind": "unreadable", **row} for row in review.images.unreadable]
    rows += [{"kind": "ignored", "file": file} for file in review.ignored]
    rows += [{"kind": "exact copy" if row["exact"] else "near copy", **row} for row in pair_rows(review)]
    for rank, (row, one) in enumerate(zip(suspect_rows(review), review.suspects, strict=True), start=1):
        rows.append({"kind": "label", "rank": rank, **row, "confident": one.confident})
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def majority_error(targets: np.ndarray) -> float:
    return float(100 * (1 - np.bincount(targets).max() / len(targets)))


def written(path: Path, sheets: Sequence[str]) -> Finding:
    return Finding("written", OK, f"{path}/: {', '.join(['issues.csv', 'classes.csv', *sheets])}")
