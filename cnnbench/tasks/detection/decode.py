"""From a net's outputs to detections: offsets applied, the likeliest boxes of each class, non-maximum suppression."""

import torch
from torch import Tensor

from cnnbench.data.boxes import BOTTOM, RIGHT
from cnnbench.tasks.detection.matching import decoded, parts
from cnnbench.utils.fast_start import import_torchvision

LEAST = 0.001  # score from which on a validation keeps a box: a higher one would cut the curves short
CANDIDATES = 400  # of each class before the suppression, as torchvision's SSD
KEPT = 200  # detections of an image at most, as in the paper
OVERLAP = 0.45  # IoU with a likelier box of its class from which on a box is suppressed, as in the paper
DECIDED = 6  # rows of the outputs of a net that finds its boxes itself (`models/torchvision_rcnn.py`); others have more
LABEL, SCORE = 0, 1  # columns of a detection; the other four are its corners


def detections(outputs: Tensor, side: int, least: float = LEAST, overlap: float = OVERLAP) -> Tensor:
    """Detections (N, KEPT, 6) of a net's outputs, the likeliest first: class, score, corners in pixels of the net's
    input, whose side is given. Rows that are not used have the class -1 and the score 0.

    Of a net that finds its boxes itself (N, 6, rows) they are those with at least this score.
    """
    if outputs.shape[1] == DECIDED:
        return of_found(outputs, least)
    scores, offsets, boxes = parts(outputs)
    found = torch.zeros(len(scores), KEPT, 6, device=outputs.device)
    found[:, :, LABEL] = -1
    for rows, one, corners in zip(
        found, scores.softmax(2)[:, :, :-1], decoded(offsets, boxes).clamp(0, side), strict=True
    ):
        own = of_image(one, corners, least, overlap)
        rows[: len(own)] = own
    return found


def of_found(outputs: Tensor, least: float) -> Tensor:
    """Detections (N, KEPT, 6) of boxes (N, 6, rows), the likeliest first."""
    rows = outputs.float().transpose(1, 2)[:, :KEPT]
    counts = (rows[:, :, SCORE] > least)[:, :, None]
    nothing = torch.zeros(6, device=rows.device)
    nothing[LABEL] = -1
    found = nothing.repeat(len(rows), KEPT, 1)
    found[:, : rows.shape[1]] = torch.where(counts, rows, nothing)
    return found


def of_image(scores: Tensor, corners: Tensor, least: float, overlap: float) -> Tensor:
    """Detections (n, 6) of one image. scores (boxes, classes), corners (boxes, 4)."""
    import_torchvision()
    from torchvision.ops import batched_nms

    best, place = scores.T.topk(min(CANDIDATES, len(scores)))
    label, rank = (best > least).nonzero(as_tuple=True)
    score, corner = best[label, rank], corners[place[label, rank]]
    keep = batched_nms(corner, score, label, overlap)[:KEPT]
    return torch.cat([label[keep, None].float(), score[keep, None], corner[keep]], dim=1)


def in_file(found: Tensor, sizes: Tensor, side: int) -> Tensor:
    """Detections with corners in pixels of the images' files. sizes (N, 2): width and height."""
    return torch.cat([found[:, :, :2], found[:, :, 2:] * (sizes / side).repeat(1, 2)[:, None]], dim=2)


def sizes_of(tables: Tensor) -> Tensor:
    """Width and height (N, 2) of the images' files."""
    return tables[:, 0, [RIGHT, BOTTOM]]
