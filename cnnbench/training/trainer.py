"""One training from its first step, or from a checkpoint, to its result: limits, validation, saving, what remains."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from cnnbench import data
from cnnbench.config.commands import TrainConfig
from cnnbench.config.parsing import parse_duration, to_plain
from cnnbench.config.sections import Decoder
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.runs import run_directory
from cnnbench.runs.run_directory import RunDirectory
from cnnbench.runs.stop_requests import Stopped, StopRequests
from cnnbench.runs.tracker import Tracker, epoch_text, errors, row
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.classification.metrics import Metrics, Sums
from cnnbench.training import compile_cost, freezing, health, optim, resume, setup
from cnnbench.training import result as findings
from cnnbench.training.loop import Batch, evaluate, train_epoch
from cnnbench.transfer.features import Cached
from cnnbench.utils import exit_codes
from cnnbench.utils.console import say, warn
from cnnbench.utils.errors import RunError
from cnnbench.utils.files import write_json
from cnnbench.visual.watch import Watch
from cnnbench.weights.checkpoint_manager import Keeper, size_of

REDRAW = 60.0  # seconds between two drawings of the curves


@dataclass
class Progress:
    """How far a training is. With the trainer's own state it is all that a checkpoint needs to go on exactly: shuffle,
    augmentation and dropout follow from the seed, the epoch and the step."""

    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the epoch under way
    seconds: float = 0.0  # of training, validation included, over all starts
    best_top1_error: float = math.inf
    best_epoch: int = 0
    pruned: str = ""  # why somebody outside, who compares it with others, has ended it


class Training:
    """A net in training on a data set, in a run directory that it has claimed."""

    def __init__(
        self,
        cfg: TrainConfig,
        device: Runtime,
        dataset: data.Dataset,
        model: Net,
        spec: ModelSpec,
        directory: RunDirectory,
        *,
        cached: Cached | None = None,
        about: dict[str, Any] | None = None,
        spent: float = 0.0,
        prune: Callable[[dict[str, Any]], str] | None = None,
    ) -> None:
        """prune: takes the line of metrics of each epoch but the last, and says why to stop there, if it is to."""
        self.cfg, self.device, self.dataset, self.spec, self.directory = cfg, device, dataset, spec, directory
        self.cached, self.about, self.prune = cached, about or {}, prune
        self.thaw_plan = freezing.thaw_plan(model, cfg.unfreeze_at)
        self.keeper = Keeper(directory.path / "checkpoints", cfg.checkpoint, writes=device.group.main)
        saved, self.notes = self.keeper.load()
        if saved and not directory.config_known:
            run_directory.refuse_other_config(directory.path, saved["config"], cfg)
        self.progress = Progress(**saved["progress"]) if saved else Progress(seconds=spent)
        self.views = setup.views(cfg, model, spec)
        self.time_limit = parse_duration(cfg.max_time) if cfg.max_time else math.inf
        device.place(model)
        kept = int(saved["batch_size"]) if saved else None
        self.batch_size = setup.batch_size(cfg, model, spec, device, len(dataset.train), kept)
        self.loaded = setup.images(cached.dataset if cached else dataset, cfg.data.cache, device)
        if not saved and cfg.weights is None:
            setup.fit_to_images(model, self.loaded, spec, device)
        self.loading: dict[str, Any] = {
            "image_size": self.loaded.image_size if cached else spec.input.image_size,
            "batch_size": self.batch_size,
            "workers": cfg.data.workers,
            "rank": device.group.rank,
            "world_size": device.group.size,
        }
        if cfg.data.decode is Decoder.nvjpeg:
            device.check_decodes_jpeg()
        self.train_batches = data.train_loader(self.loaded, cfg.augment, seed=cfg.seed, decode=cfg.data.decode,
                                               device=device.device, **self.loading)  # fmt: skip
        self.val_batches = data.eval_loader(self.loaded.val, self.loaded, **self.loading)
        self.trainer = setup.trainer(cfg, model, spec, device, self.batch_size, self.train_batches, cached)
        if self.trainer.exchange:
            self.trainer.exchange.notes = self._notes
        self.overdue = False
        self.eval_model = self.trainer.ema.module if self.trainer.ema else model
        self.eval_net = cached.net if cached and not self.trainer.ema else self.eval_model
        self.compiling: compile_cost.Cost | None = None
        self.stop = StopRequests(group=device.group)
        self.sums = Sums(device.device, device.sum_dtype)
        self.speed = 0.0  # images per second of the epoch under way
        self.confusion: Tensor | None = None
        self.first_batch: Batch | None = None
        self.rows: list[dict[str, Any]] = []  # those of metrics.jsonl
        self.warned: dict[str, str] = {}  # what was found wrong, each once
        if saved:
            resume.restore(self, saved)
        self.space = self.keeper.check_space(size_of(model, self.trainer.ema, self.trainer.optimizer))

    def thaw(self, epoch: int) -> list[str]:
        """Let train what is to train once so many epochs are done; the stages that begin to."""
        trainer, begun = self.trainer, []
        for names in [names for after, names in self.thaw_plan.items() if after <= epoch]:
            if new := freezing.thaw(trainer.model, names):
                lr = optim.scaled_lr(self.cfg.optim, self.batch_size)
                trainer.add_parameters(optim.parameter_groups(trainer.model, self.cfg.optim, lr, new))
                begun += names
        if begun and trainer.exchange:
            trainer.net = setup.called(self.cfg, trainer.model, self.device, self.batch_size)
        return begun

    @cached_property
    def plain_config(self) -> dict[str, Any]:
        return to_plain(self.cfg)

    def save(self, *, must: bool = False) -> None:
        """must: the run ends here, so that a checkpoint which cannot be written is an error."""
        self.keeper.save(resume.state(self), must=must)

    # The training

    def stop_reason(self) -> str:
        """Why no further step is to be done; empty while there is one."""
        cfg, done = self.cfg, self.progress
        if cfg.epochs == 0:
            return "its head is fitted, not trained by steps" if self.rows else ""
        if done.epoch >= cfg.epochs:
            return f"all {cfg.epochs} epochs" if cfg.epochs > 1 else "its one epoch"
        if cfg.max_steps and self.trainer.step >= cfg.max_steps:
            return f"max_steps={cfg.max_steps}"
        if done.seconds >= self.time_limit:
            return f"max_time={cfg.max_time}"
        if done.pruned:
            return done.pruned
        if cfg.patience and done.batch == 0 and done.epoch - done.best_epoch >= cfg.patience:
            return f"no better top-1 error in {cfg.patience} epochs"
        return ""

    def run(self, tracker: Tracker) -> int:
        """Train until the end, a limit, or until the user or the scheduler wants to stop; the exit code."""
        self.directory.set_status("running")
        if self.device.group.main:
            (self.directory.path / "result.json").unlink(missing_ok=True)  # that of an earlier limit, if any
        drawn = time.monotonic()
        twice = "interrupted", "twice asked to stop"
        self.stop = StopRequests(lambda: self.directory.set_status(*twice), self.device.group)
        with self.stop as stop, Watch(self, tracker.writer) as watch:
            if self.cfg.epochs == 0 and not self.rows:
                with suppress(Stopped):
                    self._conclude_fitted(tracker, stop)
                if stop.agreed is not None and not self.rows:
                    return self._leave(tracker, stop.agreed)
            while not self.stop_reason() or self._is_ahead():
                if not self.stop_reason():
                    self._train_epoch(tracker, stop)
                if self._epoch_is_whole() or self.stop_reason():
                    with suppress(Stopped):
                        self._end_epoch(tracker, stop)
                        watch.after_epoch()
                if stop.agreed is not None and (self._is_ahead() or not self.stop_reason()):
                    return self._leave(tracker, stop.agreed)
                if time.monotonic() - drawn > REDRAW:
                    findings.draw_curves(self)
                    drawn = time.monotonic()
            return self._finish(tracker, watch)

    def _is_ahead(self) -> bool:
        """Whether there are steps that no row tells of yet."""
        return self.trainer.step > (self.rows[-1]["step"] if self.rows else 0)

    def _train_epoch(self, tracker: Tracker, stop: StopRequests) -> None:
        """Train to the end of the epoch, or to a limit or a request to stop."""
        progress, trainer = self.progress, self.trainer
        begin, seconds_before, images_before = time.perf_counter(), progress.seconds, self.sums.n
        parts = trainer.accumulate

        def after_step() -> bool:
            elapsed = time.perf_counter() - begin
            progress.batch += 1
            looks = trainer.step % self.device.sync_interval == 0 or self._epoch_is_whole()
            if not trainer.exchange:
                progress.seconds, self.overdue = seconds_before + elapsed, self.keeper.overdue()
            elif looks:
                self._hear(seconds_before)
            self.speed = (self.sums.n - images_before) / elapsed
            tracker.after_step(trainer.step, self.sums, self.speed, trainer.lr)
            if trainer.accumulate > parts:
                self.warn("memory", health.smaller_parts(trainer.accumulate, self.batch_size, trainer.model))
            if trainer.step % self.device.sync_interval == 0:
                self._check_steps()
            if self.keeper.due(trainer.step, self.overdue) and not trainer.guard.look().in_a_row:
                self.overdue = False
                self.save()
            return stop.agreed is None and not self.stop_reason()

        if begun := self.thaw(progress.epoch):
            say(f"epoch {progress.epoch + 1}: {', '.join(begun)} begin to train", tracker.stream)
        self.begun = begin
        tracker.begin_epoch(progress.epoch + 1, self.cfg.epochs, len(self.train_batches), progress.batch)
        batches = self._batches()
        if self.cfg.compile and self.compiling is None and not self.cached and not trainer.exchange:
            batches = compile_cost.watched(batches, trainer, partial(self._tell_cost, tracker))
        train_epoch(trainer, batches, self.sums, after_step)

    def _tell_cost(self, tracker: Tracker, cost: compile_cost.Cost) -> None:
        self.compiling = cost
        say(cost.text(), tracker.stream)

    def _notes(self) -> list[float]:
        """What this process has to say to the others in a step. What depends on the clock, rank 0 alone says."""
        main = self.device.group.main
        return [*self.stop.wishes(), main and self.keeper.overdue(), main * (time.perf_counter() - self.begun)]

    def _hear(self, seconds_before: float) -> None:
        """What all have said: the same everywhere, so that all stop and save after the same step."""
        assert self.trainer.exchange
        *wishes, overdue, elapsed = self.trainer.exchange.heard.tolist()
        self.stop.hear(*wishes)
        self.overdue, self.progress.seconds = overdue > 0, seconds_before + elapsed

    def _batches(self) -> Iterator[Batch]:
        """The batches of the epoch that are still to come."""
        for batch in self.train_batches.epoch(self.progress.epoch, start=self.progress.batch):
            self.first_batch = self.first_batch or (None if self.cached else batch)
            yield batch

    def _epoch_is_whole(self) -> bool:
        return self.progress.batch == len(self.train_batches)

    def _check_steps(self, bearable: int = health.IN_A_ROW - 1) -> None:
        """RunError where the training has been standing still for want of finite numbers; a warning for a dead net."""
        counts = self.trainer.guard.look()
        if counts.in_a_row > bearable:
            epoch, number = divmod(counts.first, len(self.train_batches))
            images = data.image_names(self.dataset.train, self.train_batches.order.batches(epoch)[number])
            raise RunError(
                health.stopped_by(counts, epoch + 1, number + 1, self.trainer.lr, images, self.directory.path)
            )
        if counts.still >= health.IN_A_ROW:
            self.warn("still", f"the gradient has been exactly zero for {counts.still} steps: the net is dead")

    def warn(self, kind: str, text: str) -> None:
        """Say once what is wrong, and keep it for the result."""
        if text and kind not in self.warned:
            self.warned[kind] = text
            warn(text)

    def _end_epoch(self, tracker: Tracker, stop: StopRequests) -> None:
        """Validate, write the epoch down, save. An epoch cut by a limit is written down, but does not count as done.

        Raises Stopped, with nothing changed, when somebody wants to stop: what was trained is to be saved first.
        """
        progress, trainer = self.progress, self.trainer
        train, number, whole = self.sums.compute(), progress.epoch + 1, self._epoch_is_whole()
        begin = time.perf_counter()
        val = self._validate(stop)
        progress.seconds += self.device.group.broadcast(lambda: time.perf_counter() - begin)
        if not math.isfinite(train.loss + val.loss):
            self._check_steps(bearable=0)
            raise RunError(
                f"the loss is not finite in epoch {number}: try a lower lr (it began at {trainer.base_lrs[0]:.3g}), "
                "optim.clip=1 or precision=fp32; the last checkpoint is as it was"
            )
        better = whole and val.top1_error < progress.best_top1_error
        if better:
            progress.best_top1_error, progress.best_epoch = val.top1_error, number
        if whole:
            progress.epoch, progress.batch = number, 0
            self.sums = Sums(self.device.device, self.device.sum_dtype)
        line = row(
            number, trainer.step, train, val, lr=trainer.lr, images_per_second=self.speed, seconds=progress.seconds
        )
        self.rows.append(line)
        if self.prune and not self.stop_reason():
            progress.pruned = self.device.group.broadcast(partial(self.prune, line))
        losses = [row["loss/train"] for row in self.rows]
        self.warn("divergence", health.divergence(losses, len(self.dataset.classes)))
        if skipped := trainer.guard.look().skipped:
            self.warn("skipped", f"epoch {number}: {skipped} steps skipped, as their loss or gradient was not finite")
        self.save(must=bool(self.stop_reason()))
        if better:
            self.keeper.keep_best()
        tracker.end_epoch(line, epoch_text(number, self.cfg.epochs, train, val, self.speed, self._seconds_left()))
        findings.draw_batch(self)

    def _conclude_fitted(self, tracker: Tracker, stop: StopRequests) -> None:
        """A head that was fitted needs no steps: measure it and leave behind what a training does."""
        begin = time.perf_counter()
        train = self._measure(self.eval_net, data.eval_loader(self.loaded.train, self.loaded, **self.loading), stop)[0]
        val = self._validate(stop)
        elapsed = time.perf_counter() - begin
        self.progress.seconds += elapsed
        self.progress.best_top1_error = val.top1_error
        speed = (train.n + val.n) / elapsed
        self.rows = [row(0, 0, train, val, lr=0.0, images_per_second=speed, seconds=self.progress.seconds)]
        self.save(must=True)
        self.keeper.keep_best()
        tracker.end_epoch(self.rows[0], f"fitted  train {errors(train)}  val {errors(val)}")

    def _validate(self, stop: StopRequests) -> Metrics:
        watched = health.OutputRange(self.eval_net)
        metrics, self.confusion = self._measure(watched, self.val_batches, stop)
        watched.over(self.device.group, self.confusion[0].to(self.device.device, self.device.sum_dtype))
        self.warn("outputs", health.dead_outputs(watched.dead(), self.dataset.classes))
        return metrics

    def _measure(
        self, net: Callable[[Tensor], Any], batches: data.Loader, stop: StopRequests
    ) -> tuple[Metrics, Tensor]:
        self.eval_model.eval()
        images, normalize, task = stop.until_asked(batches.epoch(0)), self.trainer.normalize, self.trainer.task
        return evaluate(net, images, self.device, normalize, task, len(self.dataset.classes))

    def _seconds_left(self) -> float:
        """At the pace so far, until the last epoch or the first limit."""
        steps = len(self.train_batches) * self.cfg.epochs
        pace = self.progress.seconds / self.trainer.step
        steps_left = min(steps, self.cfg.max_steps or steps) - self.trainer.step
        return max(0.0, min(steps_left * pace, self.time_limit - self.progress.seconds))

    # The end

    def _leave(self, tracker: Tracker, code: int) -> int:
        """Save between two steps, so that the same command goes on from here."""
        self.save(must=True)
        findings.draw_curves(self)
        name = "preempted" if code == exit_codes.PREEMPTED else "interrupted"
        where = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
        if self.stop_reason() and not self._is_ahead():
            where = f"the validation by crop={self.cfg.crop.name}"
        self.directory.set_status(name, f"asked to stop in {where}")
        tracker.close_bar()
        say(f"{name} in {where}; saved. The same command goes on from there -> {self.directory.path}", tracker.stream)
        return code

    def _finish(self, tracker: Tracker, watch: Watch) -> int:
        reason = self.stop_reason()
        if self.progress.pruned:  # no result: it is not what these settings lead to
            findings.draw_curves(self)
            self.directory.set_status("pruned", reason)
            say(f"pruned: {reason} -> {self.directory.path}", tracker.stream)
            return 0
        if self.confusion is None:  # a run that was cut after its last checkpoint and before its result
            self._validate(StopRequests(group=self.device.group))
        try:
            by_views = findings.by_views(self)
        except Stopped:
            assert self.stop.agreed is not None
            return self._leave(tracker, self.stop.agreed)
        if not self.device.group.main:
            return 0
        result = findings.headline(self, reason) | by_views
        findings.draw(self)
        watch.end()
        tags = ("top1_error/val", "top5_error/val", "loss/val")
        tracker.hparams(findings.compared_settings(self), {tag: self.rows[-1][tag] for tag in tags})
        try:
            write_json(self.directory.path / "result.json", result)
        except OSError as error:
            raise RunError(f"cannot write result.json: {error.strerror}; the same command again does so") from None
        self.directory.set_status("done", reason)
        return 0
