"""The 313 colours of Zhang, Isola & Efros (2016): bins of ab that sRGB reaches, on a grid of steps of 10.

Soft encoding spreads a colour over its 5 nearest bins; the annealed mean turns a distribution over the bins into a
colour again; rebalancing weighs a bin by how rare it is.
"""

from functools import cache

import torch
from torch import Tensor

STEP, NEAREST, SIGMA, TEMPERATURE, UNIFORM = 10, 5, 5.0, 0.38, 0.5
RANGES = {  # a: the first and the last b of its row
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
COLOURS = [(a, b) for a, (first, last) in RANGES.items() for b in range(first, last + 1, STEP)]
COUNT = len(COLOURS)
EDGE = 12  # cells of the grid on each side of 0: |a| and |b| of sRGB are below 10 * EDGE
SIDE = 2 * EDGE + 1


@cache
def centres(device: torch.device | str = "cpu") -> Tensor:
    """Colours ab float32 (313, 2) of the bins, row by row."""
    return torch.tensor(COLOURS, dtype=torch.float32, device=device)


def _cells() -> Tensor:
    """Centres float32 (SIDE * SIDE, 2) of the cells of the grid."""
    line = torch.arange(-EDGE, EDGE + 1, dtype=torch.float32) * STEP
    return torch.cartesian_prod(line, line)


@cache
def _nearest(device: torch.device) -> Tensor:
    """Bin int64 (SIDE * SIDE,) that is nearest to the centre of each cell: in most, the cell itself."""
    return torch.cdist(_cells(), centres()).argmin(1).to(device)


@cache
def _candidates(device: torch.device) -> tuple[Tensor, Tensor]:
    """For each cell, int64 (SIDE * SIDE, k): all bins that may be among the 5 nearest of a colour in it. And how much
    to add to their squared distances: infinity where there are fewer than k.

    A bin can be one of the 5 only if its least distance from the cell is within the greatest distances of 5 bins.
    """
    apart = (_cells()[:, None] - centres()[None]).abs()
    bound = (apart + STEP / 2).norm(dim=2).kthvalue(NEAREST, dim=1, keepdim=True).values
    possible = (apart - STEP / 2).clamp(min=0).norm(dim=2) <= bound + 1e-3
    order = torch.argsort((~possible).int(), dim=1, stable=True)[:, : int(possible.sum(1).max())]
    return order.to(device), torch.where(possible.gather(1, order), 0.0, torch.inf).to(device)


def _cell_of(ab: Tensor) -> Tensor:
    """Number int64 (N,) of the cell that each colour (N, 2) lies in."""
    row, column = ((ab / STEP).round().clamp(-EDGE, EDGE).long() + EDGE).unbind(1)
    return row * SIDE + column


def nearest_bin(ab: Tensor) -> Tensor:
    """Bin int64 (N,) of each colour (N, 2): the nearest; of the few colours that lie in no bin, the nearest to their
    cell's centre."""
    return _nearest(ab.device)[_cell_of(ab)]


def bins_of(ab: Tensor) -> Tensor:
    """Bin int64 (N * H * W,) of each pixel of colours (N, 2, H, W)."""
    return nearest_bin(ab.permute(0, 2, 3, 1).reshape(-1, 2))


def soft_encode(ab: Tensor) -> tuple[Tensor, Tensor]:
    """The 5 nearest bins int64 (N, 5) of each colour (N, 2), the nearest first, and their shares float32, which add up
    to 1 and fall with the distance as a Gaussian of sigma 5."""
    bins, far = (table[_cell_of(ab)] for table in _candidates(ab.device))
    squares = (ab[:, None] - centres(ab.device)[bins]).square().sum(2) + far
    near, at = squares.topk(NEAREST, dim=1, largest=False)
    return bins.gather(1, at), (-near / (2 * SIGMA**2)).softmax(1)


def annealed_mean(logits: Tensor, temperature: float) -> Tensor:
    """Colours ab float32 (N, 2, H, W) of logits (N, 313, H, W): the mean of the sharpened distribution. Temperature 1
    gives the mean itself; towards 0 the likeliest bin."""
    shares = (logits.permute(0, 2, 3, 1).float() / temperature).softmax(3)
    return (shares @ centres(logits.device)).permute(0, 3, 1, 2)


def smoothed(counts: Tensor) -> Tensor:
    """Distribution float64 (313,) of counts int64 of the bins, smoothed by a Gaussian of sigma 5 between them."""
    kernel = torch.exp(-torch.cdist(centres().double(), centres().double()).square() / (2 * SIGMA**2))
    return (kernel / kernel.sum(0)) @ (counts.double() / counts.sum())


def rarity(prior: Tensor) -> Tensor:
    """Weight (313,) of each bin: inverse to the prior, half of which is made uniform. Its mean over the prior is 1."""
    inverse = 1 / ((1 - UNIFORM) * prior + UNIFORM / COUNT)
    return inverse / (inverse * prior).sum()
