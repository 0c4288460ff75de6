"""The loops: one epoch of training, one pass of predictions, one evaluation. Everything else serves these."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from cnnbench.models.layers import Net
from cnnbench.runtime.compiled import Compiled
from cnnbench.runtime.device import Runtime
from cnnbench.runtime.distributed import Exchange, no_sync
from cnnbench.runtime.memory import is_out_of_memory
from cnnbench.tasks.classification.metrics import Metrics, Sums, confusion_counts
from cnnbench.tasks.classification.task import Classification
from cnnbench.training.freezing import train_mode
from cnnbench.training.health import Guard
from cnnbench.training.optim import set_lr, start_momentum

Batch = tuple[Tensor, Tensor]  # images uint8 (N, C, H, W), targets int64 (N,)


@dataclass
class Trainer:
    """What a training step needs and changes. `net` is how the model is called: compiled, or the model itself."""

    model: Net
    net: Callable[[Tensor], Any]
    task: Classification
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  # step -> factor on the learning rate
    runtime: Runtime
    normalize: Callable[[Tensor], Tensor]
    seed: int = 0
    ema: AveragedModel | None = None
    accumulate: int = 1
    clip: float | None = None
    step: int = 0  # optimizer steps done
    exchange: Exchange | None = None  # where several processes share each batch

    def __post_init__(self) -> None:
        self.guard = Guard(self.model, self.runtime.device)
        self.base_lrs: list[float] = [group["lr"] for group in self.optimizer.param_groups]

    def split(self, parts: int) -> None:
        """Take each batch in so many parts from now on."""
        self.accumulate = parts
        if isinstance(self.net, Compiled):
            self.net.parts = parts

    @property
    def lr(self) -> float:
        """That of the last step; groups may have multiples of it."""
        return float(self.optimizer.defaults["lr"]) * self.schedule(max(0, self.step - 1))

    def add_parameters(self, groups: list[dict[str, Any]]) -> None:
        """Parameters that begin to train."""
        for group in groups:
            self.optimizer.add_param_group(group)
            self.base_lrs.append(group["lr"])
        start_momentum(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """All that changes in training, by name, for a checkpoint."""
        return {
            "model": _plain(self.model.state_dict()),
            "ema": _plain(self.ema.state_dict()) if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.runtime.scaler.state_dict(),
            "step": self.step,
            "accumulate": self.accumulate,
            "skipped": self.guard.look().skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. The optimizer's settings stay those it was built with: a forced resume may change them."""
        settings = [{**group, "params": None} for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, asked in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(asked, params=group["params"])
        if state["scaler"]:  # empty where the run was begun without a scaler, in another precision
            self.runtime.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.split(max(self.accumulate, state.get("accumulate", 1)))  # more where memory was too small for fewer
        self.guard.restart(state.get("skipped", 0))
        set_lr(self.optimizer, self.base_lrs, self.schedule(max(0, self.step - 1)))  # an epoch may end without a step


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors in the usual memory format: channels last is how they lie here, not what they are."""
    return {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in state.items()}


def train_epoch(trainer: Trainer, batches: Iterable[Batch], sums: Sums, after_step: Callable[[], bool]) -> None:
    """Train on the batches, adding to sums, for as long as after_step() is true."""
    train_mode(trainer.model)
    for images, targets in batches:
        train_step(trainer, trainer.normalize(images), trainer.runtime.to_device(targets), sums)
        if not after_step():
            return


def train_step(trainer: Trainer, images: Tensor, targets: Tensor, sums: Sums) -> None:
    """One optimizer step on one batch, in `accumulate` parts whose gradients add up to the batch's own."""
    set_lr(trainer.optimizer, trainer.base_lrs, trainer.schedule(trainer.step))
    passes = _passes_that_fit(trainer, images, targets)
    together = trainer.exchange
    counted = Sums(trainer.runtime.device, trainer.runtime.sum_dtype) if together else sums
    for loss, logits, part_targets in passes:
        counted.add(loss, logits, part_targets, finite_only=True)
    total = torch.stack([loss for loss, _, _ in passes]).sum()
    if together:
        total = together(counted, sums, total, trainer.step)
    norm = trainer.runtime.step(trainer.optimizer, trainer.model.parameters(), trainer.clip, total)
    trainer.guard.after_step(norm, trainer.step)
    if trainer.ema is not None:
        trainer.ema.update_parameters(trainer.model)
    trainer.step += 1


Pass = tuple[Tensor, Tensor, Tensor]  # loss (), logits (N, classes), targets (N,), of a part of a batch


def _passes(trainer: Trainer, images: Tensor, targets: Tensor) -> list[Pass]:
    """Forward and backward, part by part: afterwards the gradient is the batch's."""
    trainer.runtime.seed_step(trainer.seed, trainer.step)
    parts, done = min(trainer.accumulate, len(targets)), []
    share = trainer.exchange.share(len(targets), trainer.step) if trainer.exchange else 1.0
    chunks = list(zip(images.chunk(parts), targets.chunk(parts), strict=True))
    for number, (part_images, part_targets) in enumerate(chunks, start=1):
        with no_sync(trainer.net, number < len(chunks)):
            with trainer.runtime.autocast():
                outputs = trainer.net(part_images)
            loss = trainer.task.training_loss(outputs, part_targets)
            trainer.runtime.backward(loss * (share * len(part_targets) / len(targets)))
        done.append((loss.detach(), trainer.task.logits(outputs).detach(), part_targets))
    return done


def _passes_that_fit(trainer: Trainer, images: Tensor, targets: Tensor) -> list[Pass]:
    """Where memory is too small, the batch is taken in twice as many parts, and so on: the step stays the same but for
    BatchNorm, which sees a part at a time."""
    while True:
        try:
            return _passes(trainer, images, targets)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or trainer.accumulate >= len(targets) or trainer.exchange:
                raise  # of several processes one cannot go back alone
        trainer.optimizer.zero_grad(set_to_none=True)  # of the parts that did fit
        trainer.guard.take_back()
        trainer.runtime.empty_cache()
        trainer.split(2 * trainer.accumulate)


@torch.no_grad()
def predictions(
    net: Callable[[Tensor], Any], batches: Iterable[Batch], runtime: Runtime, normalize: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images as they came, and on the device their targets and logits, batch by batch. The net is in eval mode."""
    for images, targets in batches:
        with runtime.autocast():
            logits = net(normalize(images))
        yield images, runtime.to_device(targets), logits


@torch.no_grad()
def evaluate(
    net: Callable[[Tensor], Any],
    batches: Iterable[Batch],
    runtime: Runtime,
    normalize: Callable[[Tensor], Tensor],
    task: Classification,
    num_classes: int,
) -> tuple[Metrics, Tensor]:
    """Exact metrics over the batches, and the confusion counts (classes, classes) with the true classes in rows."""
    sums = Sums(runtime.device, runtime.sum_dtype)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=runtime.device)
    with runtime.cached_weight_casts():
        for _, targets, logits in predictions(net, batches, runtime, normalize):
            sums.add(task.loss(logits, targets), logits, targets)
            confusion += confusion_counts(logits, targets)
    sums.over(runtime.group)
    runtime.group.all_reduce_sum(confusion)
    return sums.compute(), confusion.cpu()
