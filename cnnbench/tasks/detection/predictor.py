"""Boxes around the objects in images of a user's own, drawn, and as COCO's result format."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnbench.config.sections import Format
from cnnbench.data.boxes import BoxTransform, tables
from cnnbench.output.tables import csv_text
from cnnbench.tasks.detection.decode import SCORE, detections, in_file
from cnnbench.tasks.detection.results import as_coco_results
from cnnbench.tasks.picture_predictor import PicturePredictor
from cnnbench.tasks.predictor import ImagePrediction, as_sequence
from cnnbench.utils.files import json_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from cnnbench.tasks.detection.task import Detection
    from cnnbench.tasks.predictor import ImageLike

SURE = 0.5  # score from which on a box is told of, unless the user says otherwise


@dataclass(frozen=True)
class DetectedBox:
    """Box around an object: its class, the score in 0..1, and its corners in pixels of the image."""

    name: str
    label: int  # number of the class, from 0 on
    score: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class BoxPrediction(ImagePrediction):
    """Objects in one image, the likeliest first, or why its file could not be read."""

    boxes: tuple[DetectedBox, ...] = ()


class Detector(PicturePredictor):
    """A trained detector, ready to be asked."""

    task: "Detection"

    def predict(self, images: "ImageLike | Iterable[ImageLike]", *, score: float = SURE, batch_size: int = 1
                ) -> list[BoxPrediction]:  # fmt: skip
        """The objects in each image, in the order of the images. images: see `Predictor.predict`. score: that a box has
        at least."""
        return list(self.predictions(as_sequence(images), score=score, batch_size=batch_size))

    def predictions(self, images: Any, *, score: float | None = None, **more: Any) -> Iterator[Any]:
        self.least = SURE if score is None else score
        return super().predictions(images, **more)

    def empty(self, file: str | None, **known: Any) -> BoxPrediction:
        return BoxPrediction(file, **known)

    def _answered(self, batch: Sequence[tuple[ImagePrediction, Any]], top: int) -> Iterator[Any]:
        for found in super()._answered(batch, top):
            if found.thumbnail is None or found.picture is None:
                yield found
                continue
            from cnnbench.data.pictures import thumbnail

            yield replace(found, thumbnail=thumbnail(found.picture, max(found.thumbnail.shape[:2])))

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        height, width = pixels.shape[1:]
        side = self.spec.input.image_size
        nothing = tables([torch.zeros(0, 7)], [(width, height)])[0]
        given, _ = BoxTransform(side, self.spec.input.interpolation)(pixels, nothing)
        found = detections(self.ask_net(given), side, self.least, self.task.overlap)
        rows = in_file(found, torch.tensor([[float(width), float(height)]], device=found.device), side)[0]
        boxes = tuple(self._box(row) for row in rows[rows[:, SCORE] > 0].tolist())
        said = ", ".join(f"{count} {name}" for name, count in Counter(box.name for box in boxes).items())
        return {"boxes": boxes, "answer": {"objects": len(boxes), "classes": said}, "picture": drawn(pixels, boxes)}

    def _box(self, row: list[float]) -> DetectedBox:
        label, score, left, top, right, bottom = row
        return DetectedBox(self.classes[int(label)], int(label), score, left, top, right, bottom)

    def text(self, found: Sequence[BoxPrediction], format: Format, width: int | None) -> str:
        """A row for each image; as JSON, COCO's result format; as CSV a row for each box."""
        if format is Format.json:
            ids = self.spec.extra.get("category_ids")
            rows = [{**as_coco_results([row_of(box)], one.file or "", ids)[0], "category": box.name, "file": one.file}
                    for one in found for box in one.boxes]  # fmt: skip
            return json_text(rows, ascii=False)
        if format is Format.csv:
            head = ["file", "class", "score", "left", "top", "right", "bottom"]
            lines = [[one.file or "", box.name, f"{box.score:.5f}", *(f"{side:.2f}" for side in row_of(box)[2:])]
                     for one in found for box in one.boxes]  # fmt: skip
            return csv_text([head, *lines])
        return super().text(found, format, width)

    def closing(self, found: Sequence[BoxPrediction]) -> str:
        counts = Counter(box.name for one in found for box in one.boxes)
        total = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
        return f"{sum(counts.values()):,} objects of a score from {self.least:g} on" + (f": {total}" if total else "")

    def bars(self, prediction: BoxPrediction) -> tuple[str, list[tuple[str, float, bool]]]:
        return str(prediction.answer["classes"] or "no objects"), []


def row_of(box: DetectedBox) -> list[float]:
    return [box.label, box.score, box.left, box.top, box.right, box.bottom]


def drawn(pixels: Tensor, boxes: Sequence[DetectedBox]) -> Tensor:
    """Image uint8 (3, H, W) with the boxes on it, each with its class and score; the likeliest on top."""
    from cnnbench.tasks.picture_predictor import as_image

    image = as_image(pixels).convert("RGB")
    for draw in (_draw_box, _draw_name):  # no line crosses a name
        for box in reversed(boxes):
            draw(image, box)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3
                                                                                ).permute(2, 0, 1)  # fmt: skip


def _color(box: DetectedBox) -> tuple[int, ...]:
    from cnnbench.tasks.segmentation.palette import voc_colors

    return tuple(int(value) for value in voc_colors()[1 + box.label % 254] * 0.85 + 38)


def _draw_box(image: "Image", box: DetectedBox) -> None:
    from PIL import ImageDraw

    width = max(1, round(min(image.size) / 200))
    ImageDraw.Draw(image).rectangle((box.left, box.top, box.right, box.bottom), outline=_color(box), width=width)


def _draw_name(image: "Image", box: DetectedBox) -> None:
    from PIL import ImageDraw, ImageFont

    draw, color = ImageDraw.Draw(image), _color(box)
    font = ImageFont.load_default(size=max(9, round(min(image.size) / 32)))
    text = f"{box.name} {box.score:.2f}"
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 4, bottom - top + 4
    x, y = max(0.0, min(box.left, image.width - wide)), max(0.0, box.top - high)
    draw.rectangle((x, y, x + wide, y + high), fill=color)
    draw.text((x + 2 - left, y + 2 - top), text, fill="black" if sum(color) > 330 else "white", font=font)
