"""Cost and gain of torch.compile in a training, measured in passing and said once."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnbench.data import Batch
from cnnbench.training.state import TrainState
from cnnbench.utils.format import plural

REPEATS = 3  # timed passes of each kind
WORTH = 0.02  # of a step: less is within what such a measurement varies by


@dataclass(frozen=True)
class Cost:
    """Seconds: of compiling, once, and of a forward and backward pass of a batch, plain and compiled."""

    compiling: float
    plain: float
    compiled: float

    @property
    def break_even(self) -> int | None:
        """Steps after which the time of compiling is won back; None where there is nothing to win."""
        gain = self.plain - self.compiled
        return round(self.compiling / gain) if gain > WORTH * self.plain else None

    def text(self) -> str:
        times = f"a pass takes {1000 * self.compiled:.3g} ms in place of {1000 * self.plain:.3g} ms"
        won = "no gain here" if self.break_even is None else f"won back after {plural(self.break_even, 'step')}"
        return f"compiled in {self.compiling:.0f} s (less once it is cached): {times}, {won}"

    def plain_dict(self) -> dict[str, Any]:
        return {"seconds": self.compiling, "plain_pass_seconds": self.plain, "compiled_pass_seconds": self.compiled,
                "break_even_steps": self.break_even}  # fmt: skip


def watched(batches: Iterable[Batch], state: TrainState, tell: Callable[[Cost], None]) -> Iterator[Batch]:
    """The same batches. The first one's step compiles; on the second one plain and compiled passes are compared."""
    begin = 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            state.runtime.synchronize()
            tell(compare(state, batch, time.perf_counter() - begin))
        elif number == 0:
            begin = time.perf_counter()
        yield batch


def compare(state: TrainState, batch: Batch, first_step: float) -> Cost:
    """Passes of both kinds in turn; the training stays as it was. first_step: seconds of the step that compiled."""
    buffers = list(state.model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    images, targets = state.normalize(batch["image"]), state.runtime.to_device(batch["target"])
    part = -(-len(targets) // state.accumulate)
    times: dict[str, list[float]] = {"plain": [], "compiled": []}
    for _ in range(1 + REPEATS):
        for kind, net in (("plain", state.model), ("compiled", state.net)):
            times[kind].append(_seconds(state, net, images[:part], targets[:part]) * len(targets) / part)
    state.optimizer.zero_grad(set_to_none=True)
    for buffer, value in zip(buffers, kept, strict=True):
        buffer.copy_(value)
    plain, compiled = (statistics.median(times[kind][1:]) for kind in ("plain", "compiled"))  # the first warms up
    return Cost(max(0.0, first_step - compiled), plain, compiled)


def _seconds(state: TrainState, net: Callable[[Tensor], Any], images: Tensor, targets: Tensor) -> float:
    begin = time.perf_counter()
    with state.runtime.autocast():
        outputs = net(images)
    state.task.training_loss(outputs, targets).backward()
    state.runtime.synchronize()
    return time.perf_counter() - begin
