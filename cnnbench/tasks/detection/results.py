"""Detections as files hold them: COCO's result format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def as_coco_results(boxes: Sequence[Sequence[float]], image: str, ids: Sequence[int] | None) -> list[dict[str, Any]]:
    """Detections (class, score, left, top, right, bottom) of an image as COCO's evaluation reads them.

    The image's id is the number that its name is, as in COCO, else its name. ids: of the categories; None: 1, 2, ….
    """
    stem = Path(image).stem
    key = int(stem) if stem.isdecimal() else Path(image).name
    return [
        {
            "image_id": key,
            "category_id": ids[int(label)] if ids else int(label) + 1,
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "score": round(score, 5),
        }
        for label, score, left, top, right, bottom in boxes
    ]
