"""`data.on_error=skip`: images that cannot be read are found, named and left out before anything begins.

All images are checked first, so that all numbers that follow (images of a split, steps of an epoch, errors of a net)
are exact and the same for any number of processes, and no batch is short.
"""

import io
import sys
from dataclasses import replace
from typing import Any

import torch

from cnnbench.data.identity import without
from cnnbench.data.shards import Record
from cnnbench.data.sound_files import Sound
from cnnbench.data.sources import Arrays, Dataset, Pair, Source, has_spatial_targets, open_image, read_bytes, upright
from cnnbench.data.workers import for_each_image
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import are, plural

NAMED = 10  # so many files are named; the others are counted


def without_unreadable(dataset: Dataset, workers: int) -> Dataset:
    """Data set without unreadable images, which are named on stderr. UserError where a class loses all its images."""
    missing: list[dict[int, str]] = []  # of each split

    def readable(source: Source) -> Source:
        kept, reasons = _readable(source, workers)
        missing.append(reasons)
        return kept

    left = dataset.changed(readable)
    found = tuple(reason for reasons in missing for reason in reasons.values())
    if not found:
        return left
    report_left_out(found, "cannot be read")
    if not has_spatial_targets(left.train) and (
        gone := set(dataset.train.targets.tolist()) - set(left.train.targets.tolist())
    ):
        raise UserError(f"none of the training images of class {dataset.classes[min(gone)]} can be read")
    numbers = [index for reasons in missing[:2] for index in reasons]  # of train and val, which identify a training
    identity = without(dataset.identity, numbers) if numbers else dataset.identity
    return replace(left, unreadable=found, identity=identity)


def report_left_out(found: tuple[str, ...], why: str) -> None:
    """Print the first reasons and the number of images left out."""
    for reason in found[:NAMED]:
        print(f"skipped: {reason}", file=sys.stderr)
    more = f", {len(found) - NAMED} of them not named here" if len(found) > NAMED else ""
    print(
        f"data.on_error=skip: {plural(len(found), 'image')} {why} and {are(len(found))} left out{more}",
        file=sys.stderr,
    )


def _readable(source: Source, workers: int) -> tuple[Source, dict[int, str]]:
    """The images that can be read, and why the others cannot, by their numbers."""
    if isinstance(source, Arrays):
        return source, {}
    count = len(source)
    reasons = for_each_image(why_unreadable, source, workers, "check images")
    found = {index: reason for index, reason in enumerate(reasons) if reason}
    if not found:
        return source, {}
    kept = torch.tensor([index for index in range(count) if index not in found], dtype=torch.int64)
    return source.subset(kept), found


def why_unreadable(item: Any) -> str:
    """Reason why an image cannot be read; empty where it can.

    A JPEG is decoded at an eighth of its size, which reads the whole file, and fast; others as a training decodes them.
    """
    item = item.image if isinstance(item, Pair) else item
    try:
        if isinstance(item, Sound):
            item.clip()
            return ""
        data = read_bytes(item)
        with open_image(io.BytesIO(data), item) as image:
            if image.format != "JPEG":
                upright(image)
            elif not isinstance(item, Record):  # a packed image has a checksum
                image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
                image.load()
    except UserError as error:
        return str(error)
    return ""
