"""A training from its first step, or from a checkpoint, to its last validation."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from cnnbench import data
from cnnbench.output.tensorboard import Events
from cnnbench.runs.stop_requests import Stopped, StopRequests
from cnnbench.runs.tracker import row
from cnnbench.runtime.device import Normalize
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.passes import check_loss, evaluate
from cnnbench.training import health, setup
from cnnbench.training.callbacks import Callback, EpochResult, View, check_steps
from cnnbench.training.limits import StopRule
from cnnbench.training.loop import train_epoch
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.training.swa import reestimate
from cnnbench.utils.console import say
from cnnbench.utils.errors import RunError


def fit(
    parts: Parts,
    state: TrainState,
    rule: StopRule,
    callbacks: Sequence[Callback],
    stop: StopRequests,
    events: Events | None = None,
) -> View:
    """Train and validate, epoch by epoch, until a limit, or until somebody asks to stop: `stop.agreed` is then set."""
    view = View(parts, state, rule, stop, events)
    for callback in callbacks:
        callback.on_start(view)
    if parts.cfg.epochs == 0 and not state.rows:
        with suppress(Stopped):
            measure_fitted_head(view, callbacks)
    while not view.stop_reason() or state.is_ahead:
        if not view.stop_reason():
            _train_epoch(view, callbacks)
        if view.epoch_is_whole or view.stop_reason():
            with suppress(Stopped):
                _end_epoch(view, callbacks)
        if stop.agreed is not None and (state.is_ahead or not view.stop_reason()):
            break
    return view


def _train_epoch(view: View, callbacks: Sequence[Callback]) -> None:
    """Train to the end of the epoch, or to a limit or a request to stop."""
    parts, state, stop = view.parts, view.state, view.stop
    progress, begin, images_before = state.progress, time.perf_counter(), state.meter.n
    clock = _Clock(view)

    def after_step() -> bool:
        progress.batch += 1
        clock.after_step()
        state.images_per_second = (state.meter.n - images_before) / (time.perf_counter() - begin)
        for callback in callbacks:
            callback.on_step(view)
        return stop.agreed is None and not view.stop_reason()

    if begun := setup.thaw(parts, state, progress.epoch):
        say(f"epoch {progress.epoch + 1}: {', '.join(begun)} begin to train", parts.stream)
    batches: Iterable[data.Batch] = parts.train_batches.epoch(progress.epoch, start=progress.batch)
    for callback in callbacks:
        batches = callback.on_batches(view, batches)
    train_epoch(state, batches, after_step)


class _Clock:
    """Seconds of training, and requests to stop. Of several processes all go by rank 0's clock, and stop together:
    what each has to say is all-reduced with the step."""

    def __init__(self, view: View) -> None:
        self.view, self.begin, self.before = view, time.perf_counter(), view.state.progress.seconds
        if exchange := view.state.exchange:
            exchange.flags = lambda: [*view.stop.stop_flags(), view.parts.runtime.group.main * self.elapsed]

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.begin

    def after_step(self) -> None:
        view, exchange = self.view, self.view.state.exchange
        if exchange is None:
            view.state.progress.seconds = self.before + self.elapsed
        elif view.state.step % view.parts.runtime.sync_interval == 0 or view.epoch_is_whole:
            *flags, elapsed = exchange.flags_sum.tolist()
            view.stop.set_stop_flags(*flags)
            view.state.progress.seconds = self.before + elapsed


def _end_epoch(view: View, callbacks: Sequence[Callback]) -> None:
    """Validate and write the epoch down. An epoch cut by a limit is written down, but does not count as done.

    Raises Stopped, with nothing changed, when somebody wants to stop: what was trained is to be saved first.
    """
    parts, state = view.parts, view.state
    progress, aim = state.progress, parts.task.aim
    train, number, whole, begin = state.meter.compute(), progress.epoch + 1, view.epoch_is_whole, time.perf_counter()
    if whole:
        _average(view, number)
    val = validate(view).compute()
    progress.seconds += parts.runtime.group.broadcast(lambda: time.perf_counter() - begin)
    if not math.isfinite(train["loss"] + val["loss"]):
        check_steps(view, bearable=0)
        raise RunError(
            f"the loss is not finite in epoch {number}: try a lower lr (it began at {state.base_lrs[0]:.3g}), "
            "optim.clip=1 or precision=fp32; the last checkpoint is as it was"
        )
    is_best = whole and aim.better(val[aim.name], progress.best)
    if is_best:
        progress.best, progress.best_epoch = val[aim.name], number
    if whole:
        progress.epoch, progress.batch = number, 0
        state.restart_meter()
    _tell(view, callbacks, number, train, val, is_best)


def _average(view: View, epoch: int) -> None:
    """Add the weights to the average of the ends of epochs, and give it statistics of the epoch's images."""
    parts, state = view.parts, view.state
    if state.swa is None or epoch < state.swa.first:
        return
    state.swa.add(state.model, epoch)
    batches = view.stop.until_asked(parts.train_batches.epoch(epoch - 1))
    reestimate(state.swa, state.model, batches, state.normalize, parts.runtime)


def _tell(view: View, callbacks: Sequence[Callback], number: int, train: dict[str, float], val: dict[str, float],
          is_best: bool) -> None:  # fmt: skip
    """Add the epoch's row, and tell the callbacks."""
    state = view.state
    lr, speed = state.lr if number else 0.0, state.images_per_second
    state.rows.append(
        row(number, state.step, train, val, lr=lr, images_per_second=speed, seconds=state.progress.seconds)
    )
    for callback in callbacks:
        callback.on_epoch(view, EpochResult(number, state.rows[-1], train, val, is_best))


def measure_fitted_head(view: View, callbacks: Sequence[Callback]) -> None:
    """Measure a head that was fitted, and so needs no steps: what is left behind is what a training leaves."""
    parts, state, begin = view.parts, view.state, time.perf_counter()
    batches = data.eval_loader(parts.loaded.train, parts.loaded, **parts.loading)
    meters = _measure(view, setup.eval_net(parts, state), batches), validate(view)
    elapsed = time.perf_counter() - begin
    train, val = (meter.compute() for meter in meters)
    state.progress.seconds += elapsed
    state.progress.best = val[parts.task.aim.name]
    state.images_per_second = sum(meter.n for meter in meters) / elapsed
    _tell(view, callbacks, 0, train, val, is_best=True)


def validate(view: View) -> Meter:
    """Evaluation of the validation images, kept in the state too. Stopped where somebody wants to stop."""
    parts, state = view.parts, view.state
    watched = health.OutputRange(setup.eval_net(parts, state), parts.spec.answers)
    state.evaluation = _measure(view, watched, parts.val_batches)
    watched.all_reduce(parts.runtime)
    state.warn("outputs", health.dead_outputs(watched.dead(), parts.spec))
    return state.evaluation


def measure_last(view: View) -> dict[str, float]:
    """Metrics of the run, `loss` first, as `cnnbench evaluate` finds them. Stopped where somebody wants to stop.

    They are those of the last epoch, unless it was validated in another precision than that of measurements: then all
    validation images are measured once more, from their pixels.
    """
    parts, state, given = view.parts, view.state, view.parts.spec.input
    if parts.measuring.precision == parts.runtime.precision:
        if state.evaluation is None:  # a run that was cut after its last checkpoint and before its result
            validate(view)
        return {key.removesuffix("/val"): value for key, value in state.rows[-1].items() if key.endswith("/val")}
    batches = parts.val_batches
    if parts.features:
        loading = {**parts.loading, "image_size": given.image_size}
        batches = data.eval_loader(parts.dataset.val, parts.dataset, **loading)
    images, normalize = view.stop.until_asked(batches.epoch(0)), Normalize(parts.runtime, given.mean, given.std)
    state.eval_model.eval()
    state.evaluation = evaluate(state.task, state.eval_model, images, parts.measuring, normalize, parts.spec)
    check_loss(state.evaluation, "the last validation")
    return state.evaluation.compute()


def _measure(view: View, net: Callable[[Tensor], Any], batches: data.Loader) -> Meter:
    state = view.state
    state.eval_model.eval()
    until_asked = view.stop.until_asked(batches.epoch(0))
    return evaluate(state.task, net, until_asked, view.parts.runtime, state.normalize, view.parts.spec)
