"""The largest batch that a net can be trained with. Two algorithms, since the two callers ask two questions.

`estimate_largest_batch()`, for `batch_size=auto`: which batch is safe? One forward pass of two images measures the
memory that autograd keeps for the backward pass. Nothing is tried until it breaks, since that would end the process on
a CPU. The answer takes a moment and leaves half of the memory free.

`search_largest_batch()`, for the benchmark: which batch is the largest? Real training steps of growing size measure
memory and speed. The answer is close to the limit, takes minutes, and changes with what else the process holds; a
training that chose its batch in this way could not be repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnbench.runtime.device import Runtime

SMALLEST, LARGEST = 2, 2**16
FINENESS = 8  # the search ends within 1/8 of the largest batch
CAUTION = 1.05  # factor on the predicted memory of a step
RISE = 100e6  # bytes: a smaller rise may be hidden by memory that the process already had


def estimate_largest_batch(model: nn.Module, images: Tensor, runtime: Runtime, limit: int) -> int:
    """The largest power of two (at most `limit`) whose training step is estimated to take half of the free memory.

    images: two of them, on the device. The net is left as it was.
    """
    state = {name: value.clone() for name, value in model.state_dict().items()}
    activations = _saved_for_backward(model, images, runtime)
    model.load_state_dict(state)  # the forward pass has changed BatchNorm's statistics
    fits = max(1, int(0.5 * runtime.free_memory() / (2 * activations / len(images))))  # as much again for gradients
    return int(2 ** ((min(fits, limit)).bit_length() - 1))


def _saved_for_backward(model: nn.Module, images: Tensor, runtime: Runtime) -> int:
    """Bytes that autograd keeps of a forward pass, without the parameters."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), runtime.autocast():
        model(images)
    return sum(size for pointer, size in kept.items() if pointer not in parameters)


@dataclass(frozen=True)
class Trial:
    """A measured training step: its images, its peak memory in bytes, its speed."""

    batch_size: int
    memory: int
    images_per_second: float


def search_largest_batch(attempt: Callable[[int], Trial], limit: float, base: int, most: int = LARGEST) -> list[Trial]:
    """The trials that fit into `limit` bytes, by size; the last is the largest. Empty where not even the smallest fits.

    attempt: runs training steps with so many images. base: bytes taken without any. A step is begun only where the
    steps before it say that it fits: memory grows linearly with the batch. A GPU may still run out of memory, which
    does no harm there.
    """
    search = _Search(attempt, limit, most, [Trial(0, base, 0.0)])
    too_large = search.double()
    search.close_in(too_large)
    return search.trials[1:]


@dataclass
class _Search:
    attempt: Callable[[int], Trial]
    limit: float
    most: int
    trials: list[Trial]  # that fit, by size

    def fits(self, size: int) -> bool:
        if size > self.most or predict_memory(self.trials, size) > self.limit:
            return False
        try:
            trial = self.attempt(size)
        except torch.OutOfMemoryError:
            return False
        if trial.memory <= self.limit:
            self.trials.append(trial)
        return trial.memory <= self.limit

    def double(self) -> int:
        """Double the batch while it fits; the first size that does not."""
        size = min(SMALLEST, self.most)
        while self.fits(size):
            size *= 2
        return min(size, self.most + 1)

    def close_in(self, too_large: int) -> None:
        """Search between the largest size that fits and one that does not, from above: the largest that is predicted
        to fit is tried first."""
        step = max(1, self.trials[-1].batch_size // FINENESS)
        while len(self.trials) > 1 and too_large - self.trials[-1].batch_size > step:
            candidates = [*range(self.trials[-1].batch_size + step, too_large, step), too_large - 1]
            predicted = [size for size in candidates if predict_memory(self.trials, size) <= self.limit]
            if not predicted:
                break
            if not self.fits(predicted[-1]):
                too_large = predicted[-1]


def predict_memory(trials: list[Trial], size: int) -> float:
    """Bytes that a step with so many images will take, extrapolated from the two largest trials."""
    last, before = trials[-1], trials[-2] if len(trials) > 1 else None
    if before is None:
        return last.memory
    slope = max(0.0, (last.memory - before.memory) / (last.batch_size - before.batch_size))
    return CAUTION * (last.memory + slope * (size - last.batch_size))


def predict_from_small_steps(attempt: Callable[[int], Trial], size: int) -> float:
    """Bytes that a step with so many images will take, from small steps that grow until their memory does."""
    trials = [attempt(min(SMALLEST, size))]
    while trials[-1].memory - trials[0].memory < RISE and trials[-1].batch_size < size:
        trials.append(attempt(min(2 * trials[-1].batch_size, size)))
    return float(trials[-1].memory) if trials[-1].batch_size == size else predict_memory(trials, size)
