"""Risks of a training that its settings show before the first step: what often fails in silence, and what to type.

The one home of these: a training says them at its start and keeps them with its result, `cnnbench doctor config` reads
them out before anything runs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import ClassWeights, OptimConfig, Optimizer, Sampler, Schedule
from cnnbench.data.balance import counts_text, unequal
from cnnbench.models.layers import LocallyConnected2d, Net
from cnnbench.training.augmentation import idle
from cnnbench.training.image_counts import ImageCounts
from cnnbench.utils.format import plural

LARGEST_LR = 3.2  # of SGD, with 8192 images in a batch and a warm-up (Goyal et al., 2017)
LARGE_BATCH = 1024  # from here on SGD needs a warm-up (Goyal et al., 2017)
SMALL_PART = 8  # images: with fewer BatchNorm's statistics are noise
RESIZED, SMALL_NET = 4, 64  # times the side; pixels of images that a small net is for
LARGE_NET = 1000  # parameters for each training image
FEW_STEPS, FEW_IN_EPOCH = 100, 5


class Risk(NamedTuple):
    """What may go wrong, and what to type instead; a sentence each."""

    check: str  # the topic
    detail: str
    advice: str = ""

    @property
    def text(self) -> str:
        return f"{self.detail}; try {self.advice}" if self.advice else self.detail


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Net, images, batch size and lr of a training, which may lie on the meta device."""

    cfg: TrainConfig
    images: ImageCounts
    net: Net
    size: int  # of an image
    batch: int
    lr: float
    fitted: bool  # the head is fitted, not trained by steps

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.images.train / self.batch))

    @property
    def steps(self) -> int:
        return min(self.steps_per_epoch * self.cfg.epochs, self.cfg.max_steps or 10**18)

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of parameters that train, and of all."""
        parameters = list(self.net.parameters())
        training = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        return training, sum(parameter.numel() for parameter in parameters)

    @property
    def from_scratch(self) -> bool:
        return self.cfg.weights is None and not hasattr(self.cfg, "transfer")


def risks(plan: TrainingPlan) -> Iterator[Risk]:
    """All that a training says at its start."""
    yield from of_data(plan)
    yield from of_size(plan)
    yield from of_resolution(plan)
    yield from of_classes(plan)
    yield from of_augmentation(plan)
    yield from of_frozen(plan)
    if not plan.fitted:
        for found in (of_lr(plan), of_batch(plan), of_norm(plan), of_length(plan), of_schedule(plan), of_ema(plan)):
            yield from found


def of_data(plan: TrainingPlan) -> Iterator[Risk]:
    if plan.images.alike:
        yield Risk("data", plan.images.alike)
    if plan.images.val == 1:
        yield Risk("validation", f"there is one {plan.images.split} image: an error on it is 0 or 100 %",
                   "a larger data.val_fraction")  # fmt: skip
    ways = [way for way, is_used in (("patience", plan.cfg.patience), ("the search", plan.cfg.sweep.trial is not None))
            if is_used]  # fmt: skip
    if ways and plan.images.split == "test":
        looks = "look" if len(ways) > 1 else "looks"
        yield Risk("validation", f"{' and '.join(ways)} {looks} at the test images, so the final error is too low",
                   "data.val_fraction=0.1, which holds out training images for that")  # fmt: skip


def of_size(plan: TrainingPlan) -> Iterator[Risk]:
    """Nets whose filters are not shared between places: with few images, each of their weights has seen little."""
    _, total = plan.parameters
    unshared = sum(layer.weight.numel() for layer in plan.net.modules() if isinstance(layer, LocallyConnected2d))
    if unshared and plan.from_scratch and total > LARGE_NET * plan.images.train:
        yield Risk("net", f"{plan.net.name} is far too large for these data: {total:,} parameters for "
                   f"{plan.images.train:,} images, {total // plan.images.train:,} for each, and {unshared:,} of them "
                   "are shared by no two places of an image (the paper had 4.4 million images)",
                   "a net that shares its filters: model=resnet20, or model=sphereface4 model.width=0.5")  # fmt: skip


def of_resolution(plan: TrainingPlan) -> Iterator[Risk]:
    """Images much larger or smaller than the net's own, to which they are resized where nobody says a size."""
    seen, size, name = plan.images.seen, plan.size, plan.net.name
    if seen is None or plan.images.sounds or plan.cfg.data.image_size is not None:
        return
    if seen >= RESIZED * size and size <= SMALL_NET:
        yield Risk("resolution", f"images of {seen} px are shrunk to {size} px, the size of {name}: little is left of "
                   "what is on a photograph", "model=resnet18, which takes 224 px; with few images cnnbench finetune "
                   "model=resnet34")  # fmt: skip
    if size >= RESIZED * seen and size > SMALL_NET and plan.from_scratch:
        yield Risk("resolution", f"images of {seen} px are enlarged to {size} px, the size of {name}: "
                   f"{(size / seen) ** 2:.0f} times the arithmetic, and no more to be seen",
                   "model=resnet20, which takes 32 px")  # fmt: skip


def of_classes(plan: TrainingPlan) -> Iterator[Risk]:
    counts, weighs = plan.images.train_by_class, plan.cfg.loss.class_weights is not ClassWeights.none
    samples = plan.cfg.data.sampler is Sampler.balanced
    if unequal(counts):
        advice = "" if weighs or samples else "loss.class_weights=balanced" if plan.fitted else (
            "loss.class_weights=balanced, or data.sampler=balanced")  # fmt: skip
        text = f"classes are unequal, in training images {counts_text(counts, plan.images.labels)}"
        yield Risk("classes", f"{text}{_always(plan.images)}", advice)
    if weighs and samples and not plan.fitted:
        yield Risk("classes", "loss.class_weights=balanced and data.sampler=balanced both make up for unequal classes: "
                   "together twice", "one of them")  # fmt: skip
    if samples and plan.fitted:
        yield Risk("classes", "data.sampler=balanced has no effect on a head that is fitted, not trained by steps",
                   "" if weighs else "loss.class_weights=balanced")  # fmt: skip


def _always(images: ImageCounts) -> str:
    """What the commonest answer alone achieves on the images that judge."""
    counts, seen = images.val_by_class, images.train_by_class
    if not unequal(counts):
        return ""
    most = max(range(len(seen)), key=lambda index: seen[index])
    wrong = 100 * (1 - counts[most] / sum(counts))
    return (
        f"; a net that always says {images.labels[most]} errs on only {wrong:.1f} % of the {images.split} images: look "
        "at the balanced error"
    )


def of_lr(plan: TrainingPlan) -> Iterator[Risk]:
    cfg, lr = plan.cfg.optim, plan.lr
    scaled = f", scaled from {cfg.lr:g} at {cfg.lr_batch}" if lr != cfg.lr else ""
    if cfg.name is Optimizer.adamw and lr > 0.01:
        yield Risk("learning rate", f"lr {lr:.3g} at batch {plan.batch}{scaled} is large for adamw", "optim.lr=0.001")
    if cfg.name is Optimizer.sgd and lr > LARGEST_LR:
        yield Risk("learning rate", f"lr {lr:.3g} at batch {plan.batch}{scaled} is more than SGD is known to bear, "
                   f"{LARGEST_LR:g}", "a smaller batch_size" if cfg.lr <= LARGEST_LR else "optim.lr=0.1")  # fmt: skip
    yield from settings(cfg, plan.net, lr)


def settings(cfg: OptimConfig, model: nn.Module, lr: float) -> Iterator[Risk]:
    """Settings of SGD with which a training of this net is known to fail in silence."""
    normalised = any(isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) for module in model.modules())
    if cfg.name is Optimizer.sgd and lr >= 0.05 and not normalised:
        yield Risk("settings", f"lr {lr:g} on a net without normalisation layers often diverges; 0.01 is usual")
    if cfg.name is Optimizer.sgd and cfg.weight_decay >= 0.01:
        yield Risk("settings", f"weight decay {cfg.weight_decay:g} is strong for SGD; 0.0001 to 0.0005 is usual")


def of_batch(plan: TrainingPlan) -> Iterator[Risk]:
    images, steps = plan.images.train, plan.steps_per_epoch
    if plan.batch > images:
        yield Risk("batch", f"a batch of {plan.batch:,} is more than the {plural(images, 'training image')}: one step "
                   "per epoch", f"batch_size={max(1, min(128, images // 10))}")  # fmt: skip
    elif plan.from_scratch and steps < FEW_IN_EPOCH and plan.steps < FEW_STEPS and not plan.cfg.debug:
        yield Risk("batch", f"a batch of {plan.batch:,} of {images:,} images: {plural(steps, 'step')} per epoch, "
                   "too few for a net to learn from", f"batch_size={max(1, images // 10)}")  # fmt: skip


def of_norm(plan: TrainingPlan) -> Iterator[Risk]:
    part = math.ceil(min(plan.batch, plan.images.train) / plan.cfg.accumulate)
    if part < SMALL_PART and any(_learns_norm(module) for module in plan.net.modules()):
        yield Risk("BatchNorm", f"BatchNorm takes its statistics from {plural(part, 'image')} at a time: noise",
                   f"batch_size={SMALL_PART * plan.cfg.accumulate} or more, or accumulate=1")  # fmt: skip


def _learns_norm(module: nn.Module) -> bool:
    """Whether it is a BatchNorm that is not frozen: a frozen one keeps its statistics."""
    normed = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    return normed and all(parameter.requires_grad for parameter in module.parameters())


def of_length(plan: TrainingPlan) -> Iterator[Risk]:
    cfg = plan.cfg
    if plan.from_scratch and not cfg.debug and plan.steps < FEW_STEPS:
        yield Risk("length", f"{plural(cfg.epochs, 'epoch')}, {plural(plan.steps, 'step')}: too few for any net",
                   "more epochs=, or a smaller batch_size=")  # fmt: skip


def of_schedule(plan: TrainingPlan) -> Iterator[Risk]:
    cfg, schedule, warmup = plan.cfg, plan.cfg.schedule, plan.cfg.schedule.warmup_epochs
    if schedule.name is Schedule.onecycle:
        return  # it has a warm-up of its own
    if schedule.name is Schedule.plateau and schedule.patience >= cfg.epochs > 0:
        yield Risk("schedule", f"schedule=plateau waits for {plural(schedule.patience, 'epoch')} of {cfg.epochs}: "
                   "lr never drops", f"schedule.patience={max(1, cfg.epochs // 5)}")  # fmt: skip
    if cfg.epochs and warmup >= cfg.epochs:
        yield Risk("schedule", f"the warm-up lasts {_all(cfg.epochs)}: lr never reaches its value",
                   f"schedule.warmup_epochs={cfg.epochs / 10:g}")  # fmt: skip
    elif LARGE_BATCH <= plan.batch <= plan.images.train and not warmup and cfg.optim.name is Optimizer.sgd:
        yield Risk("schedule", f"no warm-up with batches of {plan.batch:,}: the first steps are too large",
                   "schedule.warmup_epochs=5")  # fmt: skip


def _all(epochs: int) -> str:
    return f"all {epochs} epochs" if epochs > 1 else "the one epoch"


def of_ema(plan: TrainingPlan) -> Iterator[Risk]:
    cfg = plan.cfg
    if cfg.swa is not None and cfg.schedule.name in (Schedule.cosine, Schedule.linear, Schedule.onecycle):
        name = cfg.schedule.name.value
        yield Risk("swa", f"swa={cfg.swa:g} averages weights that hardly move, since schedule={name} ends at 0",
                   "schedule=constant")  # fmt: skip
    if cfg.ema and cfg.epochs and 1 / (1 - cfg.ema) > plan.steps:
        yield Risk("ema", f"ema={cfg.ema:g} averages over {1 / (1 - cfg.ema):,.0f} steps, more than the "
                   f"{plural(plan.steps, 'step')} of the training: the average stays near the initial weights",
                   f"ema={float(f'{1 - 10 / max(plan.steps, 11):.2g}'):g}")  # fmt: skip


def of_augmentation(plan: TrainingPlan) -> Iterator[Risk]:
    for detail, advice in idle(plan.cfg.augment, plan.size):
        yield Risk("augmentation", detail, advice)
    if plan.cfg.augment.flip and plan.cfg.data.name in ("digits", "mnist", "svhn"):
        yield Risk("augmentation", "a mirrored 2 is not a 2", "augment.flip=false")
    if plan.cfg.augment.flip and plan.images.sounds:
        yield Risk("augmentation", "a mirrored spectrogram is a sound played backwards", "augment=spec")


def of_frozen(plan: TrainingPlan) -> Iterator[Risk]:
    """Layers of a new net that stay as they were drawn."""
    training, total = plan.parameters
    if training < total and plan.from_scratch:
        yield Risk("frozen", f"{training:,} of {total:,} parameters train, the others stay random, as initialised",
                   "weights=imagenet (or a run), or freeze=none")  # fmt: skip
