"""What a detector answers, read; and SSD's loss: default boxes matched to objects, hard negatives (Liu et al. 2016).

A net's outputs are (N, classes + 1 + 8, boxes): scores of each class and of none; four offsets; the corners of the box
that they are from, in pixels of the net's input (`models/ssd.py`).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.data.boxes import CLASS, CORNERS, CROWD, KIND

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the offsets, as the authors' "variances" 0.1 and 0.2
LARGEST = 4.135166556742356  # log(1000 / 16): of an offset that scales, as torchvision's
MATCHED = 0.5  # IoU from which on a default box stands for an object
NEGATIVES = 3  # default boxes without an object that count, for each that has one


class Answer(NamedTuple):
    """Outputs of a net in parts: scores (N, boxes, classes + 1), offsets and boxes (N, boxes, 4)."""

    scores: Tensor
    offsets: Tensor
    boxes: Tensor


def parts(outputs: Tensor) -> Answer:
    """Outputs (N, classes + 1 + 8, boxes) in parts, float32."""
    found = outputs.float().transpose(1, 2)
    return Answer(*found.split([found.shape[2] - 8, 4, 4], dim=2))


def encoded(corners: Tensor, boxes: Tensor) -> Tensor:
    """Offsets (..., 4) from default boxes to these corners."""
    (x, y, width, height), (x0, y0, width0, height0) = (centred(one).unbind(-1) for one in (corners, boxes))
    moved = (x - x0) / width0, (y - y0) / height0, (width / width0).log(), (height / height0).log()
    return torch.stack([weight * one for weight, one in zip(WEIGHTS, moved, strict=True)], dim=-1)


def decoded(offsets: Tensor, boxes: Tensor) -> Tensor:
    """Corners (..., 4) of the boxes that are so far from the default ones."""
    x, y, across, down = (one / weight for one, weight in zip(offsets.unbind(-1), WEIGHTS, strict=True))
    x0, y0, width0, height0 = centred(boxes).unbind(-1)
    middle = torch.stack([x0 + x * width0, y0 + y * height0], dim=-1)
    half = torch.stack([width0 * across.clamp(max=LARGEST).exp(), height0 * down.clamp(max=LARGEST).exp()], dim=-1) / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def centred(corners: Tensor) -> Tensor:
    """Centre x and y, width and height (..., 4) of boxes."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def overlaps(ours: Tensor, theirs: Tensor) -> Tensor:
    """IoU (..., n, m) of each box (..., n, 4) with each of (..., m, 4)."""
    low = torch.maximum(ours[..., :, None, :2], theirs[..., None, :, :2])
    high = torch.minimum(ours[..., :, None, 2:], theirs[..., None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    area, other = ((one[..., 2:] - one[..., :2]).prod(-1) for one in (ours, theirs))
    return inside / (area[..., :, None] + other[..., None, :] - inside).clamp(min=1e-9)


def matches(tables: Tensor, boxes: Tensor) -> Tensor:
    """Row of the table (N, rows, 7) that each default box (N, boxes, 4) stands for, int64 (N, boxes); 0 for none.

    A box stands for the object that it overlaps most, by MATCHED at least; and each object has the box that overlaps it
    most, whatever that is.
    """
    is_object = (tables[:, :, CLASS] >= 0) & (tables[:, :, KIND] != CROWD)
    overlap = overlaps(tables[:, :, CORNERS], boxes).masked_fill(~is_object[:, :, None], -1)
    best, row = overlap.max(dim=1)
    row = torch.where(best >= MATCHED, row, 0)
    rows = torch.arange(tables.shape[1], device=tables.device).expand(len(tables), -1)
    own = overlap.argmax(dim=2).masked_fill(~is_object, boxes.shape[1])  # rows that are no objects get a box too many
    return F.pad(row, (0, 1)).scatter(1, own, rows)[:, :-1]


def as_objects(table: Tensor) -> dict[str, Tensor]:
    """Objects of a table (rows, 7) as torchvision's nets take them: `boxes` (n, 4), `labels` (n,) from 1 on."""
    own = table[(table[:, CLASS] >= 0) & (table[:, KIND] != CROWD)]
    return {"boxes": own[:, CORNERS], "labels": own[:, CLASS].long() + 1}


def losses(outputs: Tensor, tables: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss of each image (N,): of the classes and offsets, over the number of matched boxes.

    The paper divides by the matched boxes of the whole batch; as each image is divided by its own, what an image adds
    does not depend on its batch. An image without objects has NEGATIVES negatives, and is divided by 1.
    """
    scores, offsets, boxes = parts(outputs)
    row = matches(tables, boxes)
    matched = row > 0
    own = tables.gather(1, row[:, :, None].expand(-1, -1, tables.shape[2]))
    truth = torch.where(matched, own[:, :, CLASS].long(), scores.shape[2] - 1)
    corners = torch.where(matched[:, :, None], own[:, :, CORNERS], boxes)
    place = F.smooth_l1_loss(offsets, encoded(corners, boxes), reduction="none").sum(2)
    each = F.cross_entropy(scores.transpose(1, 2), truth, reduction="none", label_smoothing=smoothing)
    count = matched.sum(1).clamp(min=1)
    hardest = each.detach().masked_fill(matched, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.zeros_like(hardest).scatter(
        1, hardest, torch.arange(hardest.shape[1], device=hardest.device).expand_as(hardest)
    )
    counted = matched | (rank < NEGATIVES * count[:, None])
    return ((place * matched).sum(1) + (each * counted).sum(1)) / count
