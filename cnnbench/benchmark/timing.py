"""Timing of a net on this machine: the parts of its training step, inference, memory, and the machine's peak speed.

The timed step is the step of `train` with a learning rate of zero, so that nothing is learned and nothing diverges.
Every time is the median over repeated steps after a warm-up; the spread is half the interquartile range.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import OptimConfig
from cnnbench.data import Batch, Loader
from cnnbench.models.layers import Net
from cnnbench.runtime.compiled import set_compiler_cache
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.runtime.memory import peak_memory, reset_peak_memory
from cnnbench.runtime.stopwatch import Stopwatch
from cnnbench.tasks.classification.task import Classification
from cnnbench.training import optim
from cnnbench.training.freezing import train_mode
from cnnbench.training.loop import train_step
from cnnbench.training.state import TrainState

PARTS = ("data", "forward", "backward", "optimizer")  # the optimizer's with clipping, checks and metrics
LEAST, MOST = 3, 1000  # repeats of a step
SEGMENTS = 5  # repeats for the loader: parts of its time


@dataclass(frozen=True)
class Timing:
    """Seconds, or images per second: the median of the repeats and half their interquartile range."""

    median: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> "Timing":
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(float(middle), float(high - low) / 2, len(values))

    def rate(self, images: int) -> "Timing":
        """Images per second, for `images` images in this time."""
        return Timing(images / self.median, images * self.spread / self.median**2, self.repeats)


@dataclass(frozen=True)
class StepTimes:
    """Training steps: seconds of each part, of the whole and of the first step; peak memory in bytes."""

    parts: dict[str, Timing]
    whole: Timing
    first: float
    memory: int

    @property
    def net(self) -> float:
        """Seconds of a step without waiting for data."""
        return sum(timing.median for part, timing in self.parts.items() if part != "data")


@dataclass(frozen=True)
class MarkingRuntime(Runtime):
    """Runtime that marks the beginning and the end of the backward pass."""

    stopwatch: Stopwatch | None = field(default=None, repr=False)

    def backward(self, loss: Tensor) -> None:
        if self.stopwatch:
            self.stopwatch.mark()
        super().backward(loss)
        if self.stopwatch:
            self.stopwatch.mark()


@dataclass(frozen=True)
class TimedNet:
    """Net to be timed, in one precision."""

    model: Net
    optim: OptimConfig
    device: Runtime
    mean: list[float]
    std: list[float]
    compile: bool = False

    @property
    def normalize(self) -> Normalize:
        return Normalize(self.device, self.mean, self.std)

    def state(self, runtime: Runtime, net: Callable[..., object], batch_size: int) -> TrainState:
        """A training at its first step; its learning rate is zero."""
        return TrainState(
            model=self.model,
            net=net,
            task=Classification(aux_weight=getattr(self.model, "aux_weight", 0.0)),
            optimizer=optim.build_optimizer(self.model, self.optim, batch_size, self.device.fused),
            schedule=lambda step: 0.0,
            runtime=runtime,
            normalize=self.normalize,
            clip=self.optim.clip,
        )


def endless_batches(loader: Loader) -> Iterator[Batch]:
    """Endless iterator over full batches, epoch after epoch."""
    epoch, size = 0, loader.order.batch_size
    while True:
        for batch in loader.epoch(epoch):
            if len(batch["target"]) == size:
                yield batch
        epoch += 1


def time_training(setting: TimedNet, net: Callable[..., object], batches: Iterator[Batch], *, warmup: int,
             seconds: float) -> StepTimes:  # fmt: skip
    """Time training steps for about `seconds` seconds, after `warmup` steps (at least two)."""
    stopwatch = Stopwatch(setting.device)
    device = setting.device
    marking = MarkingRuntime(device.device, device.dtype, device.scaler, device.group, stopwatch=stopwatch)
    reset_peak_memory(marking.device)
    state = setting.state(marking, net, len(next(batches)["target"]))
    train_mode(setting.model)

    def step() -> None:
        """Five marks: begin, batch ready, forward done, backward done, end."""
        stopwatch.mark()
        batch = next(batches)
        state.runtime.search_kernels(True)
        images, targets = state.normalize(batch["image"]), marking.to_device(batch["target"])
        stopwatch.mark()
        train_step(state, images, targets)
        stopwatch.mark()
        if state.accumulate > 1:  # training would continue with microbatches; a benchmark reports the failure
            raise torch.OutOfMemoryError

    first, pace = _warmed(step, marking, warmup)
    stopwatch.marks.clear()
    for _ in range(_repeats(seconds, pace)):
        step()
    marked = np.array([*stopwatch.seconds(), 0.0]).reshape(-1, len(PARTS) + 1)[:, : len(PARTS)]
    parts = {name: Timing.of(marked[:, index].tolist()) for index, name in enumerate(PARTS)}
    return StepTimes(parts, Timing.of(marked.sum(1).tolist()), first, peak_memory(marking.device))


def time_inference(
    setting: TimedNet, net: Callable[..., object], images: Tensor, *, warmup: int, seconds: float
) -> Timing:
    """Seconds of inference on the images (uint8), normalisation included."""
    normalize, stopwatch = setting.normalize, Stopwatch(setting.device)
    images = setting.device.to_device(images)
    setting.device.search_kernels(True)
    setting.model.eval()

    @torch.no_grad()
    def step() -> None:
        stopwatch.mark()
        with setting.device.autocast():
            net(normalize(images))
        stopwatch.mark()

    _, pace = _warmed(step, setting.device, warmup)
    stopwatch.marks.clear()
    for _ in range(_repeats(seconds, pace)):
        step()
    return Timing.of(stopwatch.seconds()[::2])


def time_loader(batches: Iterator[Batch], seconds: float) -> Timing:
    """Images per second of the loader alone, without a net that it waits for."""
    next(batches)
    rates = []
    for _ in range(SEGMENTS):
        begin, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < seconds / SEGMENTS or not images:
            images += len(next(batches)["target"])
        rates.append(images / elapsed)
    return Timing.of(rates)


def peak_macs(device: Runtime, seconds: float) -> float:
    """Multiply-adds per second of a large matrix product in this precision, the fastest of many."""
    side = device.matrix_side
    left, right = (torch.randn(side, side, device=device.device).to(device.dtype) for _ in range(2))
    stopwatch = Stopwatch(device)

    def step() -> None:
        stopwatch.mark()
        left @ right
        stopwatch.mark()

    _, pace = _warmed(step, device, 2)
    stopwatch.marks.clear()
    for _ in range(_repeats(seconds, pace)):
        step()
    return side**3 / min(stopwatch.seconds()[::2])


@contextmanager
def cold_compiler() -> Iterator[None]:
    """Compile with an empty cache inside this block, so that the compile time is that of a first run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        before = set_compiler_cache(folder)
        try:
            yield
        finally:
            set_compiler_cache(before)


def _warmed(step: Callable[[], None], device: Runtime, warmup: int) -> tuple[float, float]:
    """Seconds of the first step and of the last one of the warm-up."""
    first = pace = 0.0
    for number in range(max(2, warmup)):
        begin = time.perf_counter()
        step()
        device.synchronize()
        pace = time.perf_counter() - begin
        first = first if number else pace
    return first, pace


def _repeats(seconds: float, pace: float) -> int:
    return int(min(MOST, max(LEAST, seconds / max(pace, 1e-6))))
