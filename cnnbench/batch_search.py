"""The largest batch that a net can be trained with: found by training steps of growing size, none of which is begun
unless the memory that it will take, going by those before it, is there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

SMALLEST, LARGEST = 2, 2**16
FINENESS = 8  # the result is right to this part of it
CAUTION = 1.05  # on what a step is expected to take


@dataclass(frozen=True)
class Trial:
    """A training step with so many images: bytes of memory at most, and its speed."""

    batch_size: int
    memory: int
    images_per_second: float


def search(attempt: Callable[[int], Trial], limit: float, most: int = LARGEST) -> list[Trial]:
    """The trials that fit into `limit` bytes, by size; the last is the largest. Empty where not even the smallest fits.

    Doubles the batch while the next is expected to fit, then closes in on the largest from below. Memory grows
    linearly with the batch, so that two trials foretell a third; a GPU, where too much does no harm, may say no.
    """
    trials: list[Trial] = []

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
    if trials:
        step = max(1, trials[-1].batch_size // FINENESS)
        while size - trials[-1].batch_size > step:
            # A size that is foretold to fit is tried at once, the largest first; else half of what is left.
            candidates = range(trials[-1].batch_size + step, size, step)
            chosen = next((c for c in reversed(candidates) if expected(trials, c) <= limit), None)
            if chosen is None:
                break
            if not fits(chosen):
                size = chosen
    return trials


def expected(trials: list[Trial], size: int) -> float:
    """Bytes that a step with so many images will take, from the two largest trials; 0 where nothing is known."""
    if not trials:
        return 0.0
    last = trials[-1]
    slope = last.memory / last.batch_size  # more than the truth: part of the memory does not grow with the batch
    if len(trials) > 1:
        before = trials[-2]
        slope = max(0.0, (last.memory - before.memory) / (last.batch_size - before.batch_size))
    return CAUTION * (last.memory + slope * (size - last.batch_size))
