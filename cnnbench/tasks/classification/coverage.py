"""Error against coverage: how often the net is wrong where it answers only if it is sure enough.

El-Yaniv and Wiener (2010), On the foundations of noise-free selective classification; the area is that of Geifman et
al. (2019). An answer is as sure as the probability of its class.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LEAST = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # probabilities that `predict min_probability=` may ask for
SHOWN = 500  # points of the curve


@dataclass(frozen=True)
class Coverage:
    """Answers from the surest on. confidence (N,) in 0..1, descending; error (N,): percent wrong of the k surest.

    Among equally sure answers there is no order: each counts as wrong with the share of them that is. area: the mean of
    `error` over all k, in percent; least_area: where every right answer were surer than every wrong one.
    """

    confidence: Tensor
    error: Tensor
    area: float
    least_area: float

    @property
    def coverage(self) -> Tensor:
        """Percent of the images that the k surest are, float64 (N,)."""
        return 100 * _counts(len(self.error)) / len(self.error)

    def at(self, least: float) -> dict[str, Any]:
        """What is answered, and how much of that is wrong, where answers of a lower probability are held back."""
        answered = int((self.confidence >= least).sum())
        return {
            "min_probability": least,
            "answered": answered,
            "coverage": 100 * answered / len(self.error),
            "error": self.error[answered - 1].item() if answered else None,
        }

    def curve(self) -> tuple[Tensor, Tensor]:
        """Coverage and error, of at most SHOWN of the points, the last one among them."""
        kept = torch.linspace(0, len(self.error) - 1, min(SHOWN, len(self.error))).round().long()
        return self.coverage[kept], self.error[kept]


def coverage(confidence: Tensor, wrong: Tensor) -> Coverage:
    """Coverage of answers by their confidence float64 (N,), N > 0, and whether they are wrong, bool (N,)."""
    order = confidence.argsort(descending=True, stable=True)
    ranked, missed = confidence[order], wrong[order].double()
    _, group, sizes = ranked.unique_consecutive(return_inverse=True, return_counts=True)
    shares = torch.zeros(len(sizes), dtype=torch.float64).scatter_add_(0, group, missed) / sizes
    error = _errors(shares[group])
    return Coverage(ranked, error, error.mean().item(), _errors(missed.sort().values).mean().item())


def _errors(missed: Tensor) -> Tensor:
    return 100 * missed.cumsum(0) / _counts(len(missed))


def _counts(n: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float64)
