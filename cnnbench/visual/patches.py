"""The patches of images that excite a unit most, cut out by its receptive field: what the unit is for.

As in Girshick et al. (2014), figure 4, and Zeiler and Fergus (2014), figure 2: each image of a data set gives its one
strongest place for each unit, and the strongest of all images are kept. Memory is bounded: of each batch only (units,
kept) numbers stay.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnbench.data import Batch
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.visual.places import HEAD, Place, look
from cnnbench.visual.sheet import as_picture

OUTSIDE = 160  # gray of what a patch shows of the padding, outside the image


@dataclass(eq=False)
class Best:
    """The strongest images of each unit of a place, best first: (units, kept) each. `index` is -1 where there are fewer
    images than are kept."""

    place: Place
    value: Tensor
    index: Tensor  # of the image
    where: Tensor  # row * columns + column of the strongest place
    total: Tensor  # (units,): sum over all images of their strongest answer
    seen: int = 0

    @property
    def mean(self) -> Tensor:
        return self.total / max(self.seen, 1)

    def add(self, maps: Tensor) -> None:
        """The maps (N, units, rows, columns) of the next N images."""
        values, where = maps.float().flatten(2).max(2)
        values, where = values.T.cpu(), where.T.cpu()
        index = torch.arange(self.seen, self.seen + len(maps)).expand(len(values), -1)
        self.total += values.sum(1, dtype=self.total.dtype)
        self.seen += len(maps)
        merged = [torch.cat(pair, 1) for pair in ((self.value, values), (self.index, index), (self.where, where))]
        kept = merged[0].topk(self.value.shape[1], dim=1).indices
        self.value, self.index, self.where = (part.gather(1, kept) for part in merged)


def empty(place: Place, kept: int) -> Best:
    nothing = torch.full((place.units, kept), -1)
    return Best(place, torch.full((place.units, kept), -torch.inf), nothing, nothing.clone(),
                torch.zeros(place.units, dtype=torch.float64))  # fmt: skip


@torch.no_grad()
def search(
    model: Net, batches: Iterable[Batch], places: Sequence[Place], kept: int, runtime: Runtime, normalize: Normalize,
    progress: Callable[[int], object],
) -> list[Best]:  # fmt: skip
    """One pass over the images, however many places are asked for."""
    best = [empty(place, kept) for place in places]
    for batch in batches:
        images = batch["image"]
        with runtime.autocast():
            found = look(model, normalize(images), places)
        for one in best:
            one.add(found[one.place.name])
        progress(len(images))
    return best


def telling(best: Best, count: int) -> list[int]:
    """The units worth looking at: of the head, the classes with the strongest answers; of a layer, the units whose
    strongest answers stand out most from what they answer to an image on average."""
    score = strongest = best.value.mean(1).double()
    if best.place.name != HEAD:
        # A unit that never answers has nothing to show.
        score = torch.where(strongest > 1e-6, strongest / best.mean.abs().clamp_min(1e-6), 0.0)
    return sorted(score.topk(min(count, len(score))).indices.tolist())


def crop(image: Tensor, window: tuple[int, int, int, int]) -> np.ndarray:
    """What of the image, uint8 (C, H, W), lies in the window (top, left, bottom, right), as a picture of the window's
    size but never larger than the image: what lies wholly outside on all sides is cut away."""
    height, width = image.shape[1:]
    (top, bottom), (left, right) = _kept(window[0], window[2], height), _kept(window[1], window[3], width)
    whole = np.full((bottom - top, right - left, 3), OUTSIDE, np.uint8)
    inside = as_picture(image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)])
    y, x = max(-top, 0), max(-left, 0)
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return whole


def _kept(low: int, high: int, length: int) -> tuple[int, int]:
    """The window along one side; one that is longer than the image becomes the image."""
    return (0, length) if high - low >= length else (low, high)
