"""Metrics of a segmentation: one confusion matrix of all pixels of all images, in whole numbers, divided once.

Pixels whose mask is IGNORE are in none of them. A class that does not occur in any mask has no IoU and no accuracy, and
the means are over the others.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cnnbench.data.sources import IGNORE
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.meter import Meter, occurrences
from cnnbench.tasks.segmentation import CLASSES, MIOU, PIXELS


class MaskMeter(Meter):
    """Mean IoU and accuracies in percent. outputs: scores (N, classes, H, W); targets: masks uint8 (N, H, W)."""

    def __init__(self, runtime: Runtime, classes: int) -> None:
        super().__init__(runtime)
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=runtime.device)

    def own(self) -> dict[str, Tensor]:
        return {"confusion": self.confusion}

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.confusion += counts(best(outputs), targets, len(self.confusion)).sum(0)

    def metrics(self) -> dict[str, float]:
        return scores(self.confusion).means


class ImagesMeter(MaskMeter):
    """The same, and how each single image was judged."""

    def __init__(self, runtime: Runtime, classes: int) -> None:
        super().__init__(runtime, classes)
        self.kept = [torch.zeros(0, 3, device=runtime.device)]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        each = counts(best(outputs), targets, len(self.confusion))
        self.confusion += each.sum(0)
        self.kept.append(judged_alone(each))

    def answers(self) -> Tensor:
        """Of each image its mean IoU and pixel accuracy, in percent, and the number of its pixels that count."""
        return torch.cat(self.kept)


def best(scores: Tensor) -> Tensor:
    """Class of the largest score of each pixel: int64 (N, H, W). `max` is four times as fast as `argmax` on a CPU."""
    return scores.max(dim=1).indices


def counts(answers: Tensor, masks: Tensor, classes: int) -> Tensor:
    """int64 (N, classes, classes): how many pixels of class i (row) were taken for class j (column), image by image.

    answers: classes (N, H, W).
    """
    bins = classes * classes + 1  # the last is for pixels that do not count
    places = torch.where(masks < classes, masks.long() * classes + answers, bins - 1).flatten(1)
    places += bins * torch.arange(len(places), device=places.device)[:, None]
    found = occurrences(places.flatten(), len(places) * bins)
    return found.view(len(places), bins)[:, :-1].unflatten(1, (classes, classes))


def judged_alone(each: Tensor) -> Tensor:
    """float32 (N, 3): mean IoU and pixel accuracy of each image, in percent, and its pixels; 0 where none counts."""
    right, truth, answer = each.diagonal(dim1=1, dim2=2).float(), each.sum(2), each.sum(1)
    iou = torch.where(truth > 0, right / (truth + answer - right).clamp(min=1), 0.0)
    occur, pixels = (truth > 0).sum(1).clamp(min=1), truth.sum(1)
    return torch.stack([100 * iou.sum(1) / occur, 100 * right.sum(1) / pixels.clamp(min=1), pixels.float()], dim=1)


class Scores(NamedTuple):
    """Scores of a confusion matrix. iou and accuracy are in percent, by class; NaN for a class that does not occur."""

    iou: list[float]
    accuracy: list[float]
    pixels: list[int]  # of each class, in the masks
    means: dict[str, float]  # metrics by name


def scores(confusion: Tensor) -> Scores:
    """Scores of a confusion matrix int64 (classes, classes), the true classes in rows."""
    found = confusion.cpu().double()
    right, truth, answer = found.diag(), found.sum(1), found.sum(0)
    occurs = truth > 0
    iou = torch.where(occurs, 100 * right / (truth + answer - right), torch.nan)
    accuracy = torch.where(occurs, 100 * right / truth, torch.nan)
    means = {MIOU.name: iou[occurs].mean().item(), PIXELS.name: (100 * right.sum() / truth.sum()).item(),
             CLASSES.name: accuracy[occurs].mean().item()}  # fmt: skip
    if not occurs.any():
        means = dict.fromkeys(means, 0.0)
    return Scores(iou.tolist(), accuracy.tolist(), confusion.sum(1).tolist(), means)


def pixels_counted(masks: Tensor) -> Tensor:
    """Pixels that count in each mask, int64 (N,)."""
    return (masks != IGNORE).flatten(1).sum(1)
