"""Boxes of images, as tables of one height: so a batch of them is a tensor, whatever the images hold.

A table is float32 (rows, 7). Row 0 is the image itself: its size in RIGHT and BOTTOM, pixels of the file. Each further
row is a box, or unused; both row 0 and unused rows have the class NONE. Coordinates are pixels of the image that the
table goes with, from its upper left corner on: the left edge of the first pixel is 0, its right edge 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Policy
from cnnbench.data.geometry import as_tensor, height_and_width, resized
from cnnbench.data.operations import blurred, reach_of, sigmas
from cnnbench.utils.errors import UserError
from cnnbench.utils.fast_start import import_torchvision

CLASS, LEFT, TOP, RIGHT, BOTTOM, KIND, AREA = range(7)
CORNERS = slice(LEFT, BOTTOM + 1)
NONE = -1  # class of a row that is no box
PLAIN, DIFFICULT, CROWD = 0, 1, 2  # kinds: difficult ones are trained on, but no net need find them; crowds neither
LEAST = 1.0  # pixels of the net's input: a box that a crop leaves less of is gone
COLUMNS = 7


def tables(boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Tables (N, rows, COLUMNS) of the boxes (n, COLUMNS) of each image, whose width and height are in sizes."""
    found = torch.zeros(len(boxes), 1 + max((len(one) for one in boxes), default=0), COLUMNS)
    found[:, :, CLASS] = NONE
    for table, own, (width, height) in zip(found, boxes, sizes, strict=True):
        table[0, RIGHT], table[0, BOTTOM], table[0, AREA] = width, height, width * height
        table[1 : 1 + len(own)] = own
    return found


def present(table: Tensor) -> Tensor:
    """Boxes (n, COLUMNS) of a table."""
    return table[table[:, CLASS] >= 0]


def check_augment(augment: AugmentConfig) -> None:
    """UserError for what boxes cannot follow."""
    if augment.crop not in (Crop.none, Crop.iou):
        raise UserError(f"augment.crop={augment.crop.value} does not move boxes: use augment.crop=iou or none "
                        "(task=detection does)")  # fmt: skip
    if augment.alternate:
        raise UserError("augment.alternate=true does not move boxes: use augment.flip alone")
    if augment.rotate or augment.policy is not Policy.none:
        raise UserError("augment.rotate and policy do not move boxes: use augment.turn, color and blur")
    if len(augment.erase_scale) != 2 or len(augment.erase_ratio) != 2:
        raise UserError("augment.erase_scale and erase_ratio must be two numbers each")


@dataclass(frozen=True)
class BoxTransform:
    """Transform of an image and its table to the net's square input, uint8 (C, size, size), whatever the aspect was.

    augment: random changes before, drawn from torch's generator; None: as images are evaluated.
    """

    size: int
    interpolation: str
    augment: AugmentConfig | None = None
    fill: tuple[int, ...] = (0, 0, 0)  # value of the canvas around an image that is made smaller

    def __call__(self, picture: Any, table: Tensor) -> list[Tensor]:
        boxes = present(table).clone()
        if self.augment is not None:
            picture, boxes[:, CORNERS] = self._moved(picture, boxes[:, CORNERS], self.augment)
        height, width = height_and_width(picture)
        image = as_tensor(resized(picture, self.size, self.size, self.interpolation))
        boxes[:, CORNERS] *= self.size / torch.tensor([width, height, width, height])
        if self.augment is not None:
            image, boxes[:, CORNERS] = self._finished(image, boxes[:, CORNERS], self.augment)
        left, top, right, bottom = boxes[:, CORNERS].unbind(1)
        boxes = boxes[(right - left >= LEAST) & (bottom - top >= LEAST)]
        moved = torch.zeros_like(table)
        moved[:, CLASS] = NONE
        moved[0], moved[1 : 1 + len(boxes)] = table[0], boxes
        return [image, moved]

    def _moved(self, picture: Any, corners: Tensor, augment: AugmentConfig) -> tuple[Any, Tensor]:
        """On a larger canvas with probability 1/2, then a part chosen by its overlap with a box (Liu et al. 2016)."""
        import_torchvision()
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        steps: list[Any] = []
        if augment.zoom_out > 1:
            steps.append(v2.RandomZoomOut(list(self.fill), (1.0, augment.zoom_out)))
        if augment.crop is Crop.iou and len(corners):
            steps.append(v2.RandomIoUCrop())
        if not steps:
            return picture, corners
        boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=height_and_width(picture))
        picture, moved = v2.Compose(steps)(picture, boxes)
        return picture, moved.as_subclass(Tensor)

    def _finished(self, image: Tensor, corners: Tensor, augment: AugmentConfig) -> tuple[Tensor, Tensor]:
        """Mirrored, turned, with other colours and blurred: after the resizing, which leaves fewer pixels."""
        if augment.flip and torch.rand(()) < 0.5:
            image, corners = image.flip(2), mirrored(corners, self.size)
        if augment.flip_vertical and torch.rand(()) < 0.5:
            image, corners = image.flip(1), mirrored(corners[:, [1, 0, 3, 2]], self.size)[:, [1, 0, 3, 2]]
        for _ in range(int(torch.randint(4, ()))) if augment.turn else ():
            image, corners = image.rot90(1, (1, 2)), turned(corners, self.size)
        if augment.color > 0:
            from torchvision.transforms import v2

            image = v2.ColorJitter(*(augment.color,) * 3)(image)
        if augment.blur > 0:
            sigma = sigmas(torch.rand(1), augment.blur)
            image = blurred(image[None], sigma, reach_of(augment.blur))[0]
        return image.contiguous(), corners


def mirrored(corners: Tensor, width: float) -> Tensor:
    """Corners (n, 4) in an image that is mirrored left to right."""
    left, top, right, bottom = corners.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def turned(corners: Tensor, width: float) -> Tensor:
    """Corners (n, 4) in an image that is turned left by a quarter."""
    left, top, right, bottom = corners.unbind(1)
    return torch.stack([top, width - right, bottom, width - left], dim=1)
