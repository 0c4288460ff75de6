"""Copies among the images of a data set: exact ones by their content, near ones by the cosine of their features."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 1024  # of the matrix of cosines that are held at a time
MOST = 100_000  # images that are compared with each other: with more, all pairs take too long


@dataclass(frozen=True)
class Copy:
    """Image and its copy, by index, with the cosine of their features; exact: with the same content."""

    first: int
    other: int
    cosine: float
    exact: bool = False


def exact_copies(digests: Sequence[bytes]) -> list[Copy]:
    """The first image of each content with every other of the same."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest].append(index)
    return [Copy(first, other, 1.0, exact=True) for first, *others in groups.values() for other in others]


def near_copies(features: Tensor, parts: Iterable[np.ndarray], labels: np.ndarray, threshold: float) -> list[Copy]:
    """Pairs whose cosine reaches the threshold, the most similar first: of each image the nearest in each part (split)
    and the nearest with another label.

    features (N, D) are centred first: all activations behind a ReLU point in about the same direction. parts: indices
    of the images of each split.
    """
    unit = F.normalize(features.float() - features.float().mean(0), dim=1)
    columns = [torch.from_numpy(part) for part in parts]
    targets = torch.from_numpy(labels)
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(unit), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(unit)))
        cosines = unit[rows] @ unit.T
        cosines[torch.arange(len(rows)), rows] = -1
        for first, other, cosine in _nearest(cosines, rows, columns, targets):
            if cosine >= threshold:
                found[min(first, other), max(first, other)] = cosine
    return sorted((Copy(*pair, cosine) for pair, cosine in found.items()), key=lambda pair: -pair.cosine)


def _nearest(cosines: Tensor, rows: Tensor, columns: list[Tensor], targets: Tensor) -> Iterator[tuple[int, int, float]]:
    for part in columns:
        value, at = cosines[:, part].max(1)
        yield from zip(rows.tolist(), part[at].tolist(), value.tolist(), strict=True)
    value, at = cosines.masked_fill(targets[rows][:, None] == targets, -1).max(1)
    yield from zip(rows.tolist(), at.tolist(), value.tolist(), strict=True)


def groups(count: int, pairs: Iterable[Copy], known: np.ndarray | None = None) -> np.ndarray:
    """Number of the group of each image, int64 (count,): copies of each other share one, and those of a known group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.array([(pair.first, pair.other) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    if known is not None:
        order = np.argsort(known, kind="stable")
        chain = np.stack([order[:-1], order[1:]], axis=1)
        edges = np.concatenate([edges, chain[known[chain[:, 0]] == known[chain[:, 1]]]])
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
