"""The wrong answers that a net is surest of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnbench.output.figure import percent
from cnnbench.runtime.device import Runtime
from cnnbench.training.loop import Batch, predictions
from cnnbench.visual.sheet import Tile, as_picture

SHOWN = 24
LEGEND = "Above, what the image is; below, what the net says and how sure it is: the surest wrong answers."


@dataclass(frozen=True, eq=False)
class Mistakes:
    """How many of the images are answered wrongly, and of the surest wrong answers, surest first: the image's number,
    the answer, and its probability."""

    n: int
    wrong: int
    worst: list[tuple[int, int, float]]


def find(
    net: Callable[[Tensor], Any], batches: Iterable[Batch], runtime: Runtime, normalize: Callable[[Tensor], Tensor],
    progress: Callable[[int], object] = lambda count: None, count: int = SHOWN,
) -> Mistakes:  # fmt: skip
    """The net is in eval mode."""
    sure, answers, wrong = [], [], []
    for _, targets, logits in predictions(net, batches, runtime, normalize):
        probability, answer = logits.float().softmax(1).max(1)
        sure.append(probability.cpu())
        answers.append(answer.cpu())
        wrong.append((answer != targets).cpu())
        progress(len(targets))
    probabilities, said, are_wrong = torch.cat(sure), torch.cat(answers), torch.cat(wrong)
    total = int(are_wrong.sum())
    order = torch.where(are_wrong, probabilities, -1.0).topk(min(count, total)).indices.tolist()
    return Mistakes(len(said), total, [(index, int(said[index]), float(probabilities[index])) for index in order])


def title(net: str, found: Mistakes, images: str) -> str:
    """Above a sheet of them: `images` says which those are, as `test images of cifar10`."""
    share = f"{100 * found.wrong / found.n:.2f} % wrong"
    return f"{net}: its worst mistakes, of {found.wrong:,} among {found.n:,} {images} ({share})"


def tiles(found: Mistakes, pixels: Sequence[Tensor], targets: Tensor, classes: Sequence[str]) -> list[Tile]:
    """Above each image what it is, below what the net says; one blank tile where there are no mistakes."""
    if not found.worst:
        return [Tile(as_picture(torch.full((3, 8, 8), 255, dtype=torch.uint8)), "no mistakes")]
    return [
        Tile(as_picture(image), classes[int(targets[index])], f"“{classes[answer]}” {percent(probability)}")
        for image, (index, answer, probability) in zip(pixels, found.worst, strict=True)
    ]
