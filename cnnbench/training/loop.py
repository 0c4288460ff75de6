"""Training loop: one epoch, one step.

The loop does not know which task it trains: losses and meters are the task's.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from cnnbench.data import Batch
from cnnbench.runtime.distributed import no_sync
from cnnbench.runtime.graphs import Recorded
from cnnbench.runtime.memory import is_out_of_memory
from cnnbench.training.freezing import train_mode
from cnnbench.training.optim import set_lr
from cnnbench.training.state import TrainState


def train_epoch(state: TrainState, batches: Iterable[Batch], after_step: Callable[[], bool]) -> None:
    """Train on the batches for as long as after_step() is true."""
    train_mode(state.model)
    for batch in state.runtime.by_shape(batches):
        if state.recorded is None or not isinstance(batch["target"], Tensor):
            train_step(state, state.normalize(batch["image"]), state.runtime.to_device(batch["target"]))
        else:
            replay_step(state, state.recorded, batch["image"], batch["target"])
        if not after_step():
            return


def train_step(state: TrainState, images: Tensor, targets: Any) -> None:
    """One optimizer step on one batch of normalised images."""
    _begin_step(state)
    update(state, images, targets)
    _end_step(state)


def replay_step(state: TrainState, recorded: Recorded, images: Tensor, targets: Tensor) -> None:
    """The same step on images as they are loaded, replayed where it was recorded. Python's counts are kept here."""
    _begin_step(state)
    seen = state.meter.n
    recorded(images, targets)
    state.meter.n = seen + len(targets)
    _end_step(state)


def recordable_step(state: TrainState) -> Callable[[Tensor, Tensor], None]:
    """The part of a step that a CUDA graph can hold, as a function of images and targets as they are loaded."""

    def step(images: Tensor, targets: Tensor) -> None:
        update(state, state.normalize(images), state.runtime.to_device(targets))

    return step


def _begin_step(state: TrainState) -> None:
    set_lr(state.optimizer, state.base_lrs, state.factor(state.step))
    state.runtime.seed_step(state.seed, state.step)


def _end_step(state: TrainState) -> None:
    if state.ema is not None:
        state.ema.n_averaged += 1
    state.step += 1


def update(state: TrainState, images: Tensor, targets: Any) -> None:
    """What a step changes on the device, from `accumulate` microbatches whose gradients add up to the batch's own.

    It looks at no number on a GPU, so that a CUDA graph can hold all of it.
    """
    microbatches = _passes_that_fit(state, images, targets)
    losses = [loss for loss, _, _ in microbatches]
    loss = sum(losses[1:], losses[0])
    # 4. metrics: added up on the device; of several processes in one all-reduce, with the loss
    meter = state.task.meter(state.runtime) if state.exchange else state.meter
    for part_loss, answers, part_targets in microbatches:
        meter.add(part_loss, answers, part_targets, finite_only=True)
    if state.exchange:
        loss = state.exchange(meter, state.meter, loss, state.step)
    # 5. optimizer step: skipped where the loss or the gradient is not finite
    norm = state.runtime.step(state.optimizer, state.parameters, state.clip, loss)
    state.guard.after_step(norm)
    if state.ema is not None:
        state.ema.update(state.model)


Pass = tuple[Tensor, Tensor, Any]  # loss (), answers (N, …), targets, of a microbatch


def _passes(state: TrainState, images: Tensor, targets: Any) -> list[Pass]:
    """Forward and backward of each microbatch: afterwards the gradient is the batch's."""
    parts, done = min(state.accumulate, len(targets)), []
    share = state.exchange.share(len(targets), state.step) if state.exchange else 1.0
    microbatches = (
        [(images, targets)] if parts == 1 else list(zip(images.chunk(parts), targets.chunk(parts), strict=True))
    )
    for number, (part_images, part_targets) in enumerate(microbatches, start=1):
        with no_sync(state.net, number < len(microbatches)):
            # 1. forward
            with state.runtime.autocast():
                outputs = state.net(*state.task.inputs(part_images, part_targets))
            # 2. loss
            loss = state.task.training_loss(outputs, part_targets)
            # 3. backward: each microbatch weighs as many images as it has
            weight = share * len(part_targets) / len(targets)
            state.runtime.backward(loss if weight == 1 else loss * weight)
        done.append((loss.detach(), state.task.answer(outputs), part_targets))
    return done


def _passes_that_fit(state: TrainState, images: Tensor, targets: Any) -> list[Pass]:
    """Passes over the batch in as many microbatches as memory makes necessary: twice as many after each failure.

    The step stays the same but for BatchNorm, which sees a microbatch at a time.
    """
    while True:
        try:
            return _passes(state, images, targets)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or state.accumulate >= len(targets):
                raise
            if state.exchange or state.runtime.is_recording:
                raise  # of several processes one cannot go back alone; what is recorded has not been run
        state.optimizer.zero_grad(set_to_none=True)  # of the microbatches that did fit
        state.guard.take_back()
        if state.recorded is not None and state.recorded.is_replayed:
            state.recorded.give_up("its memory is needed for a batch of another size")  # it comes before smaller parts
        else:
            state.set_accumulate(2 * state.accumulate)
        state.runtime.empty_cache()
        state.runtime.seed_step(state.seed, state.step)
