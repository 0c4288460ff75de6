"""Seeds of the random numbers that a step draws."""

from functools import lru_cache

import numpy as np

AT_ONCE = 64  # steps: between the operators of a step a single seed takes ten times as long


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step of one process. It is hashed, since a CPU's generator uses only 32 bits of a seed."""
    block, number = divmod(step, AT_ONCE)
    return _seeds_of_block(seed, block, rank)[number]


@lru_cache(maxsize=2)
def _seeds_of_block(seed: int, block: int, rank: int) -> list[int]:
    steps = range(block * AT_ONCE, (block + 1) * AT_ONCE)
    return [_hashed((seed, step, rank) if rank else (seed, step)) for step in steps]


def _hashed(entropy: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
