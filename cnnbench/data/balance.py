"""How unequal classes are: counts, when that matters, in words, and the weights that make up for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnbench.data.sources import Source, has_spatial_targets
from cnnbench.utils.format import plural, shorten

UNEQUAL = 3  # a largest class of more than so many times the smallest is worth a word
LISTED = 10  # classes that are listed one by one
NAME = 24  # characters of a class name in a list


def class_counts(source: Source, classes: int) -> tuple[int, ...]:
    """Images of each class; empty where images have masks."""
    if has_spatial_targets(source) or not classes:
        return ()
    return tuple(torch.bincount(source.targets.cpu(), minlength=classes).tolist())


def unequal(counts: Sequence[int]) -> bool:
    """Whether the largest class is more than UNEQUAL times the smallest of those that have images."""
    present = [count for count in counts if count]
    return bool(present) and max(present) > UNEQUAL * min(present)


def counts_text(counts: Sequence[int], names: Sequence[str]) -> str:
    """`ants: 110, bees: 9`; of many classes the range alone: `732 to 1,300 in each of 1,000 classes`."""
    if len(counts) <= LISTED:
        return ", ".join(f"{shorten(name, NAME)}: {count:,}" for name, count in zip(names, counts, strict=True))
    fewest, most = min(counts), max(counts)
    return f"{fewest:,}{f' to {most:,}' if most > fewest else ''} in each of {plural(len(counts), 'class')}"


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """float32 (classes,): n / (k n_c) for each of the k classes that have images, as scikit-learn's "balanced"; else 0.

    Their mean over the images is 1, so that the loss, and with it the lr, keeps its scale.
    """
    counts = torch.bincount(targets.cpu(), minlength=classes).double()
    weights = len(targets) / (int((counts > 0).sum()) * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0).float()
