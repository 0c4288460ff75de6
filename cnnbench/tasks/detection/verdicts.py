"""What becomes of each detection, and of each object; and Pascal VOC's average precision, which follows from it.

A detection is compared with the object of its class that it overlaps most (VOC's development kit); the likeliest
detection of an object finds it.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cnnbench.data.boxes import CLASS, CORNERS, CROWD, KIND, PLAIN
from cnnbench.tasks.detection.decode import LABEL, SCORE
from cnnbench.tasks.detection.matching import overlaps

ENOUGH, SOME = 0.5, 0.1  # IoU from which on an object is found; and at which a box is at least near one
FOUND, TWICE, PLACED, CLASSED, BACKGROUND, IGNORED = range(6)
MISTAKES = {  # of detections, by what they are called in pictures
    "missed": "objects that no box finds", "background": "boxes where no object is", "badly placed": "boxes near an "
    "object of their class", "wrong class": "boxes around an object of another class", "twice": "second boxes of an "
    "object",
}  # fmt: skip
NAMES = {TWICE: "twice", PLACED: "badly placed", CLASSED: "wrong class", BACKGROUND: "background"}


@dataclass(frozen=True)
class Verdicts:
    """Detections of all images, a row each, the likeliest first; and the objects that count.

    boxes: (n, 6); image: of each; verdict: what became of it; object: its row in the image's table, 0 where there is
    none. missed: image and row of the objects that no detection finds.
    """

    boxes: np.ndarray
    image: np.ndarray
    verdict: np.ndarray
    object: np.ndarray
    objects: np.ndarray  # of each class, those that count
    missed: list[tuple[int, int]]


def judge(found: Tensor, truth: Tensor, classes: int, least: float = 0.0, enough: float = ENOUGH) -> Verdicts:
    """Verdicts on detections (N, KEPT, 6) with at least this score; tables (N, rows, 7) in the same pixels."""
    parts = [_judge_image(boxes[boxes[:, SCORE] > least], table, enough)
             for boxes, table in zip(found.cpu(), truth.cpu(), strict=True)]  # fmt: skip
    image = np.concatenate([np.full(len(boxes), number) for number, (boxes, *_) in enumerate(parts)])
    boxes = np.concatenate([part[0] for part in parts])
    verdict = np.concatenate([part[1] for part in parts])
    row = np.concatenate([part[2] for part in parts])
    order = np.argsort(-boxes[:, SCORE], kind="stable")
    counted = (truth[:, :, CLASS] >= 0) & (truth[:, :, KIND] == PLAIN)
    objects = np.bincount(truth[:, :, CLASS][counted].long().cpu().numpy(), minlength=classes)
    missed = [(number, at) for number, part in enumerate(parts) for at in part[3]]
    return Verdicts(boxes[order], image[order], verdict[order], row[order], objects, missed)


def _judge_image(boxes: Tensor, table: Tensor, enough: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Boxes of one image, the likeliest first, what became of each, its object's row, and rows of missed objects."""
    overlap = overlaps(boxes[:, 2:], table[:, CORNERS]).numpy()
    known = table.numpy()
    overlap[:, known[:, CLASS] < 0] = -1
    verdict, row = np.full(len(boxes), BACKGROUND), np.zeros(len(boxes), dtype=int)
    taken = set[int]()
    for number, (label, own) in enumerate(zip(boxes[:, LABEL].numpy(), overlap, strict=True)):
        same = np.where(known[:, CLASS] == label, own, -1)
        best, other = int(same.argmax()), int(own.argmax())
        if same[best] >= enough:
            kinds = IGNORED if known[best, KIND] != PLAIN else TWICE if best in taken else FOUND
            verdict[number], row[number] = kinds, best
            taken.add(best)
        elif own[other] >= enough:
            verdict[number], row[number] = IGNORED if known[other, KIND] == CROWD else CLASSED, other
        elif same[best] >= SOME:
            verdict[number], row[number] = PLACED, best
    plain = np.flatnonzero((known[:, CLASS] >= 0) & (known[:, KIND] == PLAIN))
    return boxes.numpy(), verdict, row, [int(at) for at in plain if at not in taken]


def curve(judged: Verdicts, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and score after each detection of a class, the likeliest first. Recall is NaN for a class
    without objects."""
    own = (judged.boxes[:, LABEL] == label) & (judged.verdict != IGNORED)
    right = judged.verdict[own] == FOUND
    hits = right.cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / judged.objects[label] if judged.objects[label] else np.full(len(hits), np.nan)
    return recall, hits / np.arange(1, len(hits) + 1), judged.boxes[own, SCORE]


def average_precision(recall: np.ndarray, precision: np.ndarray, *, eleven: bool) -> float:
    """Area under the best precision at each recall or a higher one, in percent: VOC's of 2010 and later; with `eleven`
    the mean of it at the recalls 0, 0.1, …, 1, VOC's until 2009."""
    if eleven:
        highest = [precision[recall >= at - 1e-12].max(initial=0) for at in np.linspace(0, 1, 11)]
        return 100 * float(np.mean(highest))
    ends = np.concatenate([[0.0], recall, [1.0]])
    best: np.ndarray = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return 100 * float((np.diff(ends) * best[1:]).sum())


def voc(judged: Verdicts, *, eleven: bool) -> list[float]:
    """Average precision of each class, in percent; NaN for one without objects."""
    found = []
    for label, count in enumerate(judged.objects):
        recall, precision, _ = curve(judged, label)
        found.append(average_precision(recall, precision, eleven=eleven) if count else np.nan)
    return found
