"""The largest batch that a net can be trained with: found by training steps of growing size, none of which is begun
unless the memory that it will take, going by those before it, is there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

SMALLEST, LARGEST = 2, 2**16
FINENESS = 8  # the result is right to this part of it
CAUTION = 1.05  # on what a step is expected to take
RISE = 100e6  # bytes: less than that may hide in memory that the process had before


@dataclass(frozen=True)
class Trial:
    """A training step with so many images: bytes of memory at most, and its speed."""

    batch_size: int
    memory: int
    images_per_second: float


def search(attempt: Callable[[int], Trial], limit: float, base: int, most: int = LARGEST) -> list[Trial]:
    """The trials that fit into `limit` bytes, by size; the last is the largest. Empty where not even the smallest fits.

    Doubles the batch while the next is expected to fit, then closes in on the largest from below. Memory grows
    linearly with the batch from `base`, what is taken without one, so that two trials foretell a third; a GPU, where
    too much does no harm, may say no.
    """
    trials = [Trial(0, base, 0.0)]

    def fits(size: int) -> bool:
        if size > most or expected(trials, size) > limit:
            return False
        try:
            trial = attempt(size)
        except torch.OutOfMemoryError:
            return False
        if trial.memory <= limit:
            trials.append(trial)
        return trial.memory <= limit

    size = min(SMALLEST, most)
    while fits(size):
        size *= 2
    size = min(size, most + 1)  # what does not fit
    step = max(1, trials[-1].batch_size // FINENESS)
    while len(trials) > 1 and size - trials[-1].batch_size > step:
        # The largest that is expected to fit is tried at once.
        candidates = [*range(trials[-1].batch_size + step, size, step), size - 1]
        chosen = next((candidate for candidate in reversed(candidates) if expected(trials, candidate) <= limit), None)
        if chosen is None:
            break
        if not fits(chosen):
            size = chosen
    return trials[1:]


def expected(trials: list[Trial], size: int) -> float:
    """Bytes that a step with so many images will take, from the two largest trials."""
    last, before = trials[-1], trials[-2] if len(trials) > 1 else None
    if before is None:
        return last.memory
    slope = max(0.0, (last.memory - before.memory) / (last.batch_size - before.batch_size))
    return CAUTION * (last.memory + slope * (size - last.batch_size))


def foreseen(attempt: Callable[[int], Trial], size: int) -> float:
    """The same from small steps that grow until the memory is seen to grow with them."""
    trials = [attempt(min(SMALLEST, size))]
    while trials[-1].memory - trials[0].memory < RISE and trials[-1].batch_size < size:
        trials.append(attempt(min(2 * trials[-1].batch_size, size)))
    return float(trials[-1].memory) if trials[-1].batch_size == size else expected(trials, size)
