"""One training from its first step, or from a checkpoint, to its result: limits, validation, saving, what remains."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cnnbench import checkpoint, data, freezing, optim, plots, results, runs, runtime
from cnnbench.checkpoint import Inference
from cnnbench.config import TrainConfig, flatten, seconds, to_plain
from cnnbench.engine import Batch, Trainer, evaluate, predictions, train_epoch
from cnnbench.errors import RunError, UserError
from cnnbench.features import Cached
from cnnbench.metrics import Metrics, Sums
from cnnbench.models.layers import Net
from cnnbench.runs import RunDirectory
from cnnbench.signals import StopRequests
from cnnbench.tasks.classification import Classification
from cnnbench.tracking import Tracker, epoch_text, errors, row, say
from cnnbench.visual.watch import Watch

SHOWN = 32  # images in a picture of images
COMPARED = {"model.name", "data.name", "batch_size", "epochs", "optim.lr", "optim.weight_decay", "seed"}
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


class Training:
    """A net in training on a data set, in a run directory that it has claimed."""

    def __init__(
        self,
        cfg: TrainConfig,
        device: runtime.Runtime,
        dataset: data.Dataset,
        model: Net,
        inference: Inference,
        directory: RunDirectory,
        *,
        cached: Cached | None = None,
        about: dict[str, Any] | None = None,
        spent: float = 0.0,
    ) -> None:
        self.cfg, self.device, self.dataset, self.inference, self.directory = cfg, device, dataset, inference, directory
        self.cached, self.about = cached, about or {}
        self.thaw_plan = freezing.thaw_plan(model, cfg.unfreeze_at)
        saved = checkpoint.load(directory.last) if directory.last.exists() else None
        self.progress = Progress(**saved["progress"]) if saved else Progress(seconds=spent)
        self.time_limit = seconds(cfg.max_time) if cfg.max_time else math.inf
        device.place(model)
        self.batch_size = self._batch_size(model, saved)
        self.loaded = cached.dataset if cached else dataset
        self.loading: dict[str, Any] = {
            "image_size": self.loaded.image_size if cached else inference.image_size,
            "batch_size": self.batch_size,
            "workers": cfg.data.workers,
        }
        self.train_batches = data.train_loader(self.loaded, cfg.augment, seed=cfg.seed, **self.loading)
        self.val_batches = data.eval_loader(self.loaded.val, self.loaded, **self.loading)
        self.trainer = self._trainer(model)
        self.eval_model = self.trainer.ema.module if self.trainer.ema else model
        self.eval_net = runtime.compiled(self.eval_model, cfg.compile) if self.trainer.ema else self.trainer.net
        self.sums = Sums(device.device, device.sum_dtype)
        self.speed = 0.0  # images per second of the epoch under way
        self.confusion: Tensor | None = None
        self.first_batch: Batch | None = None
        self.rows: list[dict[str, Any]] = []  # those of metrics.jsonl
        if saved:
            self._restore(saved)

    def _restore(self, saved: dict[str, Any]) -> None:
        ours, theirs = (
            self._identity(),
            {
                "inference": asdict(Inference(**saved["inference"])),
                "images": saved["images"],
            },
        )
        if ours != theirs:
            what = "images" if ours["images"] != theirs["images"] else "classes, sizes or normalisation"
            raise UserError(
                f"{self.directory.path} was trained on other data (its {what} differ): give another run.dir"
            )
        self._thaw(self.progress.epoch)
        try:
            self.trainer.load_state_dict(saved)
        except (RuntimeError, KeyError, ValueError):
            raise UserError("resume=force cannot change the net, the optimizer or what is frozen") from None
        self.sums.load_state_dict(saved["sums"])
        progress, self.rows = self.progress, saved["rows"]
        if saved["batch_size"] != self.batch_size:  # a forced change: the epoch under way begins again
            progress.batch, self.trainer.step = 0, progress.epoch * len(self.train_batches)
            self.sums = Sums(self.device.device, self.device.sum_dtype)
        if not self.stop_reason():  # an epoch that a limit had cut is finished now, and written down then
            self.rows = [row for row in self.rows if row["epoch"] <= progress.epoch]
        if progress.batch == 0 and progress.best_epoch == progress.epoch > 0:  # a crash may have come between the two
            checkpoint.keep_as(self.directory.last, self.directory.best)

    def _identity(self) -> dict[str, Any]:
        """What must not change under a run, whatever its configuration says: the same name may mean other data."""
        images = [len(self.dataset.train), len(self.dataset.val)]
        return {"inference": asdict(self.inference), "images": images}

    def _batch_size(self, model: Net, saved: dict[str, Any] | None) -> int:
        if isinstance(self.cfg.batch_size, int):
            return self.cfg.batch_size
        if saved:
            return int(saved["batch_size"])
        # Beyond a thousand images, or with few steps in an epoch, a larger batch makes the net worse, not faster.
        limit = max(1, min(1024, len(self.dataset.train) // 10))
        size = self.inference.image_size
        images = torch.zeros(2, self.inference.in_channels, size, size, device=self.device.device)
        return runtime.largest_batch(model, images, self.device, limit)

    def _trainer(self, model: Net) -> Trainer:
        cfg, batches = self.cfg, len(self.train_batches)
        average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema), use_buffers=True) if cfg.ema else None
        )
        total_steps = min(cfg.epochs * batches, cfg.max_steps or sys.maxsize)
        return Trainer(
            model=model,
            net=self.cached.net if self.cached else runtime.compiled(model, cfg.compile),
            task=Classification(cfg.label_smoothing, getattr(model, "aux_weight", 0.0)),
            optimizer=optim.build_optimizer(model, cfg.optim, self.batch_size),
            schedule=optim.build_schedule(cfg.schedule, total_steps, batches),
            runtime=self.device,
            normalize=self.device.to_device if self.cached else self.normalize(),
            seed=cfg.seed,
            ema=average,
            accumulate=cfg.accumulate,
            clip=cfg.optim.clip,
        )

    def normalize(self) -> runtime.Normalize:
        return runtime.Normalize(self.device, self.inference.mean, self.inference.std)

    def _thaw(self, epoch: int) -> list[str]:
        """Let train what is to train once so many epochs are done; the stages that begin to."""
        trainer, begun = self.trainer, []
        for names in [names for after, names in self.thaw_plan.items() if after <= epoch]:
            if new := freezing.thaw(trainer.model, names):
                lr = optim.scaled_lr(self.cfg.optim, self.batch_size)
                trainer.add_parameters(optim.parameter_groups(trainer.model, self.cfg.optim, lr, new))
                begun += names
        return begun

    def save(self) -> None:
        state = {
            "config": to_plain(self.cfg),
            **self._identity(),
            "progress": asdict(self.progress),
            "rows": self.rows,
            "sums": self.sums.state_dict(),
            "batch_size": self.batch_size,
        }
        checkpoint.save(self.directory.last, state | self.trainer.state_dict())

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
        if cfg.patience and done.batch == 0 and done.epoch - done.best_epoch >= cfg.patience:
            return f"no better top-1 error in {cfg.patience} epochs"
        return ""

    def run(self, tracker: Tracker) -> int:
        """Train until the end, a limit, or until the user or the scheduler wants to stop; the exit code."""
        self.directory.set_status("running")
        (self.directory.path / "result.json").unlink(missing_ok=True)  # that of an earlier limit, if any
        drawn = time.monotonic()
        with StopRequests() as stop, Watch(self, tracker.writer) as watch:
            if self.cfg.epochs == 0 and not self.rows:
                self._conclude_fitted(tracker)
            while not self.stop_reason():
                self._train_epoch(tracker, stop)
                if self._epoch_is_whole() or stop.code is None or self.stop_reason():
                    self._end_epoch(tracker)
                    watch.after_epoch()
                if time.monotonic() - drawn > REDRAW:
                    self._draw_curves(self.rows)
                    drawn = time.monotonic()
                if stop.code is not None and not self.stop_reason():
                    return self._leave(tracker, stop.code)
        return self._finish(tracker, watch)

    def _train_epoch(self, tracker: Tracker, stop: StopRequests) -> None:
        """Train to the end of the epoch, or to a limit or a request to stop."""
        progress, trainer = self.progress, self.trainer
        begin, seconds_before, images_before = time.perf_counter(), progress.seconds, self.sums.n

        def after_step() -> bool:
            elapsed = time.perf_counter() - begin
            progress.batch += 1
            progress.seconds = seconds_before + elapsed
            self.speed = (self.sums.n - images_before) / elapsed
            tracker.after_step(trainer.step, self.sums, self.speed, trainer.lr)
            return stop.code is None and not self.stop_reason()

        if begun := self._thaw(progress.epoch):
            say(f"epoch {progress.epoch + 1}: {', '.join(begun)} begin to train", tracker.stream)
        tracker.begin_epoch(progress.epoch + 1, self.cfg.epochs, len(self.train_batches), progress.batch)
        train_epoch(trainer, self._batches(), self.sums, after_step)

    def _batches(self) -> Iterator[Batch]:
        """The batches of the epoch that are still to come."""
        for batch in self.train_batches.epoch(self.progress.epoch, start=self.progress.batch):
            self.first_batch = self.first_batch or (None if self.cached else batch)
            yield batch

    def _epoch_is_whole(self) -> bool:
        return self.progress.batch == len(self.train_batches)

    def _end_epoch(self, tracker: Tracker) -> None:
        """Validate, write the epoch down, save. An epoch cut by a limit is written down, but does not count as done."""
        progress, trainer = self.progress, self.trainer
        train, number, whole = self.sums.compute(), progress.epoch + 1, self._epoch_is_whole()
        begin = time.perf_counter()
        val = self._validate()
        progress.seconds += time.perf_counter() - begin
        if not math.isfinite(train.loss + val.loss):
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
        self.save()
        if better:
            checkpoint.keep_as(self.directory.last, self.directory.best)
        tracker.end_epoch(line, epoch_text(number, self.cfg.epochs, train, val, self.speed, self._seconds_left()))
        picture = self.directory.path / "train_batch.png"
        if self.first_batch is not None and not picture.exists():
            plots.train_batch(*self.first_batch, self.dataset.classes, picture)

    def _conclude_fitted(self, tracker: Tracker) -> None:
        """A head that was fitted needs no steps: measure it and leave behind what a training does."""
        self.eval_model.eval()
        batches = data.eval_loader(self.loaded.train, self.loaded, **self.loading)
        begin = time.perf_counter()
        train, _ = evaluate(self.eval_net, batches.epoch(0), self.device, self.trainer.normalize,
                            self.trainer.task, len(self.dataset.classes))  # fmt: skip
        val = self._validate()
        elapsed = time.perf_counter() - begin
        self.progress.seconds += elapsed
        self.progress.best_top1_error = val.top1_error
        speed = (train.n + val.n) / elapsed
        self.rows = [row(0, 0, train, val, lr=0.0, images_per_second=speed, seconds=self.progress.seconds)]
        self.save()
        checkpoint.keep_as(self.directory.last, self.directory.best)
        tracker.end_epoch(self.rows[0], f"fitted  train {errors(train)}  val {errors(val)}")

    def _validate(self) -> Metrics:
        self.eval_model.eval()
        metrics, self.confusion = evaluate(
            self.eval_net,
            self.val_batches.epoch(0),
            self.device,
            self.trainer.normalize,
            self.trainer.task,
            len(self.dataset.classes),
        )
        return metrics

    def _seconds_left(self) -> float:
        """At the pace so far, until the last epoch or the first limit."""
        steps = len(self.train_batches) * self.cfg.epochs
        pace = self.progress.seconds / self.trainer.step
        steps_left = min(steps, self.cfg.max_steps or steps) - self.trainer.step
        return max(0.0, min(steps_left * pace, self.time_limit - self.progress.seconds))

    # The end

    def _leave(self, tracker: Tracker, code: int) -> int:
        """Save between two steps, so that the same command goes on from here."""
        self.save()
        self._draw_curves(self.rows)
        name = "preempted" if code == runs.PREEMPTED else "interrupted"
        where = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
        self.directory.set_status(name, f"asked to stop in {where}")
        say(f"{name} in {where}; saved. The same command goes on from there -> {self.directory.path}", tracker.stream)
        return code

    def _finish(self, tracker: Tracker, watch: Watch) -> int:
        reason = self.stop_reason()
        if self.confusion is None:  # a run that was cut after its last checkpoint and before its result
            self._validate()
        result = self._result(self.rows, reason)
        self._draw(self.rows)
        watch.end()
        tags = ("top1_error/val", "top5_error/val", "loss/val")
        tracker.hparams(self._compared_settings(), {tag: self.rows[-1][tag] for tag in tags})
        runs.write_json(self.directory.path / "result.json", result)
        self.directory.set_status("done", reason)
        return 0

    def _compared_settings(self) -> dict[str, Any]:
        """What one looks at to tell runs apart: the usual keys, and those given on the command line."""
        given = {override.partition("=")[0] for override in self.cfg.run.overrides}
        settings = flatten(to_plain(self.cfg))
        return {key: value for key, value in settings.items() if key in COMPARED or key in given}

    def _result(self, rows: list[dict[str, Any]], reason: str) -> dict[str, Any]:
        """The headline is the last epoch's, not the best one's: choosing by the validation images would flatter it."""
        last = rows[-1]
        return {
            "top1_error": last["top1_error/val"],
            "top5_error": last["top5_error/val"],
            "loss": last["loss/val"],
            "n": len(self.dataset.val),
            "train_n": len(self.dataset.train),
            "split": self.dataset.split,
            "crop": results.crop(self.inference.image_size, self.dataset.crop_ratio),
            "select_on": "last epoch",
            "best_top1_error": self.progress.best_top1_error,
            "best_epoch": self.progress.best_epoch,
            "train_top1_error": last["top1_error/train"],
            "train_loss": last["loss/train"],
            "model": self.cfg.model["name"],
            "data": self.dataset.name,
            "seed": self.cfg.seed,
            "epochs": last["epoch"],
            "steps": last["step"],
            "batch_size": self.batch_size,
            "stopped": reason,
            **results.complexity(self.trainer.model, self.inference),
            "images_per_second": last["images_per_second"],
            "wall_seconds": self.progress.seconds,
            **results.environment(self.device),
            "run_dir": str(self.directory.path),
            **self.about,
        }

    def _draw_curves(self, rows: list[dict[str, Any]]) -> None:
        if rows and self.cfg.epochs:
            plots.curves(rows, self.directory.path / "curves.png", self._title())

    def _draw(self, rows: list[dict[str, Any]]) -> None:
        path, classes = self.directory.path, self.dataset.classes
        self._draw_curves(rows)
        plots.confusion_matrix(
            self.confusion, classes, path / "confusion_matrix.png", f"{self._title()}, {self.dataset.split}"
        )
        images, targets, probabilities = self._some_predictions()
        plots.val_predictions(images, targets, probabilities, classes, path / "val_predictions.png")

    def _title(self) -> str:
        return f"{self.cfg.model['name']} on {self.dataset.name}"

    def _some_predictions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images from all over the validation set, their classes and the net's probabilities for each class."""
        n = len(self.dataset.val)
        spread = torch.linspace(0, n - 1, min(SHOWN, n)).long()
        batches = data.eval_loader(
            self.dataset.val.subset(spread),
            self.dataset,
            image_size=self.inference.image_size,
            batch_size=SHOWN,
            workers=0,
        )
        self.eval_model.eval()
        net = self.eval_model if self.cached else self.eval_net
        images, targets, logits = next(predictions(net, batches.epoch(0), self.device, self.normalize()))
        return images, targets.cpu(), logits.float().softmax(dim=1).cpu()
