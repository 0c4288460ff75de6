"""CUDA graphs: a function's launches, recorded once and replayed, so that the host launches one thing in place of
hundreds."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # calls before the recording: libraries choose their kernels in them

Inputs = tuple[Tensor, ...]
Replay = Callable[[], Any]


class Recorded:
    """Function of tensors that is recorded as a CUDA graph, and from then on replayed over tensors that never move.

    It changes in place what it works on, and may return tensors, which the caller gets as copies. Only calls whose
    tensors have `size` rows are recorded; others, and the first ones, run as they are. So does all after a recording
    that failed: `tell` is then given the reason, once.

    A replay runs what was recorded: Python is not asked again. What changes from call to call (a learning rate, a
    seed's draws) must lie in tensors or in the device's random generator.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, size: int, tell: Callable[[str], None]):
        self.function, self.device, self.size, self.tell = function, device, size, tell
        self.calls, self.broken = 0, False
        self.static: Inputs = ()
        self.replay: Replay | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        if self.broken or not self._fits(inputs):
            return self.function(*inputs)
        if self.calls < WARM_UP:
            self.calls += 1
            return self.function(*inputs)
        if self.replay is None:
            self._record(inputs)
            if self.broken:
                return self.function(*inputs)
        assert self.replay is not None
        for static, value in zip(self.static, inputs, strict=True):
            static.copy_(_pinned(value, self.device), non_blocking=True)
        return _copied(self.replay())

    def _fits(self, inputs: Inputs) -> bool:
        """Whether these are the tensors that are recorded, or may be."""
        if self.replay is None:
            return all(len(value) == self.size for value in inputs)
        return all(
            one.shape == value.shape and one.dtype == value.dtype
            for one, value in zip(self.static, inputs, strict=True)
        )

    def forget(self) -> None:
        """Record anew: what the function works on has changed."""
        self.replay, self.static, self.calls = None, (), 0

    @property
    def is_replayed(self) -> bool:
        """Whether there is a recording, which holds memory."""
        return self.replay is not None

    def give_up(self, reason: str) -> None:
        """Run all as it is from now on; the recording's memory is free again."""
        self.forget()
        self.broken = True
        self.tell(reason)

    def _record(self, inputs: Inputs) -> None:
        self.static = tuple(torch.empty_like(value, device=self.device) for value in inputs)
        try:
            self.replay = capture(lambda: self.function(*self.static))
        except RuntimeError as error:  # out of memory is one too
            self.give_up(str(error).partition("\n")[0])


def capture(function: Callable[[], Any]) -> Replay:
    """Replay of what the function launches. It is run here, but nothing that it launches is."""
    graph, found = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        found.append(function())

    def replay() -> Any:
        graph.replay()
        return found[0]

    return replay


def _pinned(value: Tensor, device: torch.device) -> Tensor:
    """Tensor from which a copy to the device does not wait."""
    return value.pin_memory() if device.type == "cuda" and value.device.type == "cpu" else value


def _copied(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.clone()
    if isinstance(found, tuple):
        return tuple(_copied(one) for one in found)
    return found
