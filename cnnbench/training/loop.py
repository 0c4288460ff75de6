"""Training loop: one epoch, one step.

The loop does not know which task it trains: losses and meters are the task's.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from cnnbench.data import Batch
from cnnbench.runtime.distributed import no_sync
from cnnbench.runtime.memory import is_out_of_memory
from cnnbench.training.freezing import train_mode
from cnnbench.training.optim import set_lr
from cnnbench.training.state import TrainState


def train_epoch(state: TrainState, batches: Iterable[Batch], after_step: Callable[[], bool]) -> None:
    """Train on the batches for as long as after_step() is true."""
    train_mode(state.model)
    for batch in batches:
        train_step(state, state.normalize(batch["image"]), state.runtime.to_device(batch["target"]))
        if not after_step():
            return


def train_step(state: TrainState, images: Tensor, targets: Any) -> None:
    """One optimizer step on one batch, in `accumulate` microbatches whose gradients add up to the batch's own."""
    set_lr(state.optimizer, state.base_lrs, state.schedule(state.step))
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
    state.guard.after_step(norm, state.step)
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    state.step += 1


Pass = tuple[Tensor, Tensor, Any]  # loss (), answers (N, …), targets, of a microbatch


def _passes(state: TrainState, images: Tensor, targets: Any) -> list[Pass]:
    """Forward and backward of each microbatch: afterwards the gradient is the batch's."""
    state.runtime.seed_step(state.seed, state.step)
    parts, done = min(state.accumulate, len(targets)), []
    share = state.exchange.share(len(targets), state.step) if state.exchange else 1.0
    microbatches = (
        [(images, targets)] if parts == 1 else list(zip(images.chunk(parts), targets.chunk(parts), strict=True))
    )
    for number, (part_images, part_targets) in enumerate(microbatches, start=1):
        with no_sync(state.net, number < len(microbatches)):
            # 1. forward
            with state.runtime.autocast():
                outputs = state.net(part_images)
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
            if not is_out_of_memory(error) or state.accumulate >= len(targets) or state.exchange:
                raise  # of several processes one cannot go back alone
        state.optimizer.zero_grad(set_to_none=True)  # of the microbatches that did fit
        state.guard.take_back()
        state.runtime.empty_cache()
        state.set_accumulate(2 * state.accumulate)
