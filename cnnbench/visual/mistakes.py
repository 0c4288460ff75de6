"""`what=mistakes`: the wrong answers with the highest confidence."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnbench.data import Batch
from cnnbench.output.figure import percent
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.output.rgb import to_rgb
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.classification.metrics import answers, worst_mistakes
from cnnbench.tasks.measure import progress
from cnnbench.tasks.passes import predictions
from cnnbench.utils.errors import UserError
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture

TASK = "classification"
SHOWN = 24
LEGEND = "Above, what the image is; below, what the net says and how sure it is: the surest wrong answers."


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Number of images, number of wrong answers, and the wrong answers with the highest confidence, highest first."""

    n: int
    wrong: int
    indices: Tensor  # int64 (K,): of the images
    answers: list[int]  # the classes that the net gave
    probabilities: list[float]  # of these classes


def draw_mistakes(context: VisualizeContext) -> Iterator[Picture]:
    context.check_channels()
    if list(context.dataset.classes) != list(context.classes):
        raise UserError(
            f"what=mistakes needs data of the net's own classes: {context.source} was trained for others than "
            f"those of {context.data_name}"
        )
    source = context.searched
    with progress(len(source), "mistakes") as advance:
        found = find_mistakes(
            context.model, context.batches(source), source.targets, context.runtime, context.normalize, advance
        )
    pixels = context.pixels(source, found.indices.tolist())
    title = mistakes_title(context.title, found, f"{context.split} images of {context.data_name}")
    picture = context.new_picture("mistakes", "mistakes", title, LEGEND)
    tiles = mistake_tiles(found, list(pixels), source.targets, context.classes)
    draw_grid(in_rows(tiles), picture.path, title, side=1.5, footer=LEGEND)
    yield picture


def find_mistakes(
    net: Callable[[Tensor], Any], batches: Iterable[Batch], targets: Tensor, runtime: Runtime,
    normalize: Callable[[Tensor], Tensor], advance: Callable[[int], object] = lambda count: None, count: int = SHOWN,
) -> Mistakes:  # fmt: skip
    """Mistakes of a net in eval mode. targets: int64 (N,), of all images of the batches."""
    parts = []
    with runtime.cached_weight_casts():
        for _, some, logits in predictions(net, batches, runtime, normalize):
            parts.append(logits.float().cpu())
            advance(len(some))
    logits = torch.cat(parts)
    wrong, indices = answers(logits)[:, 0] != targets.cpu(), worst_mistakes(logits, targets.cpu(), count)
    best = logits[indices].double().softmax(1).max(1)
    return Mistakes(len(logits), int(wrong.sum()), indices, best.indices.tolist(), best.values.tolist())


def mistakes_title(net: str, found: Mistakes, images: str) -> str:
    """Title of the picture. images: which ones, as in `test images of cifar10`."""
    share = f"{100 * found.wrong / found.n:.2f} % wrong"
    return f"{net}: its worst mistakes, of {found.wrong:,} among {found.n:,} {images} ({share})"


def mistake_tiles(found: Mistakes, pixels: Sequence[Tensor], targets: Tensor, classes: Sequence[str]) -> list[Tile]:
    """Tiles with the true class above and the answer below; one blank tile where there are no mistakes."""
    if not found.answers:
        return [Tile(to_rgb(torch.full((3, 8, 8), 255, dtype=torch.uint8)), "no mistakes")]
    rows = zip(pixels, found.indices.tolist(), found.answers, found.probabilities, strict=True)
    return [
        Tile(to_rgb(image), classes[int(targets[index])], f"“{classes[answer]}” {percent(probability)}")
        for image, index, answer, probability in rows
    ]
