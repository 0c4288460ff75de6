"""Order of a data set's images in an epoch, by the seed and the epoch alone, and each rank's share of each batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural


@dataclass(frozen=True)
class Order:
    """Images of each batch. With a seed (training) they are shuffled anew in each epoch; without, they are in order.

    balance: class of each image. An epoch then has as many images as ever, equally many of each class. followed: this
    rank's images of a batch have one more behind them, the next in the epoch, for each to be mixed with its next.
    """

    count: int
    batch_size: int
    seed: int | None
    rank: int = 0
    world_size: int = 1
    balance: np.ndarray | None = None
    followed: bool = False

    def __post_init__(self) -> None:
        if self.seed is not None and self.batch_size % self.world_size:
            raise UserError(f"batch_size={self.batch_size} cannot be shared evenly by {self.world_size} processes.")
        if self.seed is not None and self.count < self.world_size:
            raise UserError(f"{self.world_size} processes are too many for {plural(self.count, 'training image')}.")

    def __len__(self) -> int:
        """Batches per epoch, the same in every epoch."""
        return len(range(self.count)[self._used()][:: self.batch_size])

    def batches(self, epoch: int) -> list[Tensor]:
        """Indices of this rank's images in each batch."""
        if self.seed is None:
            mine = torch.arange(self.count)[self._used()]
            return [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]
        rng = rng_of(self.seed, epoch, 0)
        return self._mine(rng.permutation(self.count) if self.balance is None else equal_shares(self.balance, rng))

    def rows(self, epoch: int) -> list[Tensor]:
        """Row of each of these images in a table of random numbers: its index; or, where it may come more than once in
        an epoch, its place."""
        return self.batches(epoch) if self.balance is None else self._mine(np.arange(self.count))

    def _mine(self, order: np.ndarray) -> list[Tensor]:
        images = torch.from_numpy(order)[self._used()]
        steps = torch.split(torch.arange(len(images)), self.batch_size)
        places = [step.tensor_split(self.world_size)[self.rank] for step in steps]
        if self.followed:
            places = [torch.cat([own, (own[-1:] + 1) % len(images)]) for own in places]
        return [images[own] for own in places]

    @property
    def part(self) -> range:
        """Images of this rank, where they are in order."""
        return range(self.count)[self._used()]

    def size(self, step: int) -> int:
        """Number of images of all ranks in a training step; steps are counted over all epochs."""
        return min(self.batch_size, self._used().stop - step % len(self) * self.batch_size)

    def _used(self) -> slice:
        """Range of the images used: in training, of all ranks in the epoch's order; else of this rank."""
        if self.seed is None:
            return slice(self.count * self.rank // self.world_size, self.count * (self.rank + 1) // self.world_size)
        full, rest = divmod(self.count, self.batch_size)
        if rest // self.world_size < 2 and full > 0:
            rest = 0
        return slice(0, full * self.batch_size + rest)


def equal_shares(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many indices as there are images, equally many of each class (but for a remainder), in random order.

    An image of a class comes a second time only when all of them have come.
    """
    present, which = np.unique(classes, return_inverse=True)
    shares = np.full(len(present), len(classes) // len(present))
    shares[rng.permutation(len(present))[: len(classes) % len(present)]] += 1
    members = np.split(np.argsort(which, kind="stable"), np.bincount(which).cumsum()[:-1])
    drawn = [np.resize(rng.permutation(one), share) for one, share in zip(members, shares, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def rng_of(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Independent generator for the order (stream 0), the augmentation (1) or the first flips (2)."""
    return np.random.default_rng((seed, epoch, stream))


def first_flips(seed: int, count: int) -> Tensor:
    """Flips of epoch 0, and so of every other epoch: int64 (count,) of 0 and 1."""
    return torch.from_numpy(rng_of(seed, 0, 2).integers(2, size=count))
