"""The wrong answers that a net is surest of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnbench.data import Batch
from cnnbench.output.figure import percent
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.classification.metrics import answers, worst_mistakes
from cnnbench.tasks.passes import predictions
from cnnbench.visual.sheet import Tile, as_picture

TASK = "classification"
SHOWN = 24
LEGEND = "Above, what the image is; below, what the net says and how sure it is: the surest wrong answers."


@dataclass(frozen=True, eq=False)
class Mistakes:
    """How many of n images are answered wrongly, and the surest wrong answers, surest first."""

    n: int
    wrong: int
    indices: Tensor  # int64 (K,): the images' numbers
    answers: list[int]  # classes that the net took them for
    probabilities: list[float]  # of these classes


def find(
    net: Callable[[Tensor], Any], batches: Iterable[Batch], targets: Tensor, runtime: Runtime,
    normalize: Callable[[Tensor], Tensor], progress: Callable[[int], object] = lambda count: None, count: int = SHOWN,
) -> Mistakes:  # fmt: skip
    """Mistakes of a net in eval mode. targets: int64 (N,), of all images of the batches."""
    parts = []
    with runtime.cached_weight_casts():
        for _, some, logits in predictions(net, batches, runtime, normalize):
            parts.append(logits.float().cpu())
            progress(len(some))
    logits = torch.cat(parts)
    wrong, indices = answers(logits)[:, 0] != targets.cpu(), worst_mistakes(logits, targets.cpu(), count)
    best = logits[indices].double().softmax(1).max(1)
    return Mistakes(len(logits), int(wrong.sum()), indices, best.indices.tolist(), best.values.tolist())


def title(net: str, found: Mistakes, images: str) -> str:
    """Title of a sheet of mistakes. images: which they are, as `test images of cifar10`."""
    share = f"{100 * found.wrong / found.n:.2f} % wrong"
    return f"{net}: its worst mistakes, of {found.wrong:,} among {found.n:,} {images} ({share})"


def tiles(found: Mistakes, pixels: Sequence[Tensor], targets: Tensor, classes: Sequence[str]) -> list[Tile]:
    """Above each image what it is, below what the net says; one blank tile where there are no mistakes."""
    if not found.answers:
        return [Tile(as_picture(torch.full((3, 8, 8), 255, dtype=torch.uint8)), "no mistakes")]
    rows = zip(pixels, found.indices.tolist(), found.answers, found.probabilities, strict=True)
    return [
        Tile(as_picture(image), classes[int(targets[index])], f"“{classes[answer]}” {percent(probability)}")
        for image, index, answer, probability in rows
    ]
