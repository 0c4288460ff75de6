"""Review of a configuration before training: what is unusual, what to type instead, what it will cost.

The configuration is compared with its recipe: the settings of the same net and data when nothing else is typed. Each
finding is a sentence. Nothing is trained: the net lies on the meta device and has shapes only.
"""

import math
from collections.abc import Iterator

import torch

from cnnbench import models
from cnnbench.analysis.complexity import TRAINING_PASSES, count_complexity
from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import AugmentConfig, Crop, OptimConfig, Schedule
from cnnbench.doctor.dry_run import TrainingPlan, assumed_batch_size, image_counts, plan_training
from cnnbench.doctor.finding import OK, PROBLEM, WARNING, Finding
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.training import freezing, health, optim
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, si_words

USUAL = 2.0  # within this factor of the recipe a value counts as usual
LARGE_BATCH = 1024  # from here on SGD needs a warm-up (Goyal et al., 2017)
SMALL_PART = 8  # images: with fewer BatchNorm's statistics are noise
FEW_STEPS = 100


def review_config(cfg: TrainConfig, recipe: TrainConfig) -> Iterator[Finding]:
    """Findings, the cost last. A setting that cannot work ends the review: the other findings depend on it."""
    try:
        device = create_runtime(cfg.device, cfg.precision.value, None)
        images, missing = image_counts(cfg)
        plan = plan_training(cfg, recipe, images)
    except UserError as error:
        yield Finding("settings", PROBLEM, _line(str(error)))
        return
    if missing:
        advice = f"the other findings assume {images.train:,} training images"
        yield Finding("data", PROBLEM, _line(missing), advice)
    else:
        yield from _data(plan)
    yield from _net(plan)
    if not plan.fitted:
        yield from _lr(plan)
        yield from _batch(plan)
        yield from _length(plan)
        yield from _schedule(plan)
        yield from _regularisation(plan)
    yield from _augmentation(plan)
    yield from _frozen(plan)
    yield from _machine(plan, device)
    yield _cost(plan)


def _line(text: str) -> str:
    return " ".join(text.splitlines())


def _data(plan: TrainingPlan) -> Iterator[Finding]:
    images, cfg = plan.images, plan.cfg
    detail = (
        f"{images.name}: {images.train:,} training and {images.val:,} {images.split} images, {images.classes} classes"
    )
    if cfg.data.fraction < 1:
        detail += f"; data.fraction={cfg.data.fraction:g} leaves the other training images out"
    yield Finding("data", OK, detail)
    for note in images.notes:
        yield Finding("data", WARNING, note)
    if cfg.patience and images.split == "test":
        yield Finding("validation", WARNING, "patience looks at the test images, so the final error is too low",
                      "data.val_fraction=0.1 holds out training images for that")  # fmt: skip


def _net(plan: TrainingPlan) -> Iterator[Finding]:
    net, size = plan.net, plan.size
    cost = count_complexity(net, size, plan.images.channels)
    detail = f"{net.name}: {cost.params:,} parameters, {cost.macs:,} multiply-adds at {size} x {size} px"
    yield Finding("net", OK, detail)
    if size != net.image_size:
        part = cost.macs / count_complexity(net, net.image_size, plan.images.channels).macs
        smaller = size < net.image_size
        yield Finding("image size", WARNING if smaller else OK,
                      f"{size} px, but the net is made for {net.image_size} px: {part:.2g}x the multiply-adds"
                      f"{', coarser maps' if smaller else ''}",
                      f"data.image_size={net.image_size} is the net's own size" if smaller else "")  # fmt: skip
    for note in models.size_notes(net, size):
        yield Finding("auxiliary heads", WARNING, note, f"data.image_size={net.aux_image_size} or more")


def _lr(plan: TrainingPlan) -> Iterator[Finding]:
    """Compares the lr of a step with the recipe's at the same batch size, and warns of known failures."""
    mine, theirs = plan.cfg.optim, plan.recipe.optim
    text = f"lr {plan.lr:.3g} at batch {plan.batch}"
    if mine.name is not theirs.name:
        yield Finding("learning rate", OK, f"{text} with {mine.name.value}; the recipe has {theirs.name.value}, "
                      "whose lr cannot be compared", "lr_find=true searches for one")  # fmt: skip
        if mine.name.value == "adamw" and plan.lr > 0.01:
            yield Finding("learning rate", WARNING, f"{text} is large for adamw; 0.001 is usual", "optim.lr=0.001")
    else:
        # Muon's step length depends on lr alone, not on the gradient, so not on the batch size.
        grown = 1 if mine.name.value == "muon" else plan.batch / (theirs.lr_batch or assumed_batch_size(plan.recipe))
        usual = theirs.lr * grown
        ratio = plan.lr / usual
        source = f"({theirs.lr:g} at {theirs.lr_batch or assumed_batch_size(plan.recipe)})"
        if 1 / USUAL <= ratio <= USUAL:
            yield Finding("learning rate", OK, f"{text}{_scaled(mine, plan.lr)}: {_times(ratio)} the recipe's {source}")
        else:
            yield Finding("learning rate", WARNING, f"{text} is {_times(ratio)} the recipe's {source}",
                          f"optim.lr={_typed(mine, plan, usual):g}, or lr_find=true to search for one")  # fmt: skip
    own = health.risky_settings(theirs, plan.net, optim.scaled_lr(theirs, plan.batch))  # the recipe's own
    for text in health.risky_settings(mine, plan.net, plan.lr):
        if text not in own:
            yield Finding("settings", WARNING, text)


def _scaled(cfg: OptimConfig, lr: float) -> str:
    return f", scaled from {cfg.lr:g} at {cfg.lr_batch}" if lr != cfg.lr else ""


def _times(ratio: float) -> str:
    return "the same as" if math.isclose(ratio, 1, rel_tol=1e-6) else f"{ratio:.2g}x"


def _typed(cfg: OptimConfig, plan: TrainingPlan, lr: float) -> float:
    """The `optim.lr` that gives this lr of a step."""
    return float(f"{cfg.lr * lr / plan.lr:.3g}")


def _batch(plan: TrainingPlan) -> Iterator[Finding]:
    cfg, images = plan.cfg, plan.images.train
    part = math.ceil(plan.batch / cfg.accumulate)
    if cfg.batch_size == "auto":
        yield Finding("batch", OK, "auto: the largest that fits; this review assumes 128")
    elif plan.batch > images:
        yield Finding("batch", WARNING, f"{plan.batch} is more than the {images:,} training images: one step per epoch",
                      f"batch_size={max(1, min(128, images // 10))}")  # fmt: skip
    elif plan.steps_per_epoch < 5:
        yield Finding("batch", WARNING, f"{plan.batch} of {images:,} images: {plural(plan.steps_per_epoch, 'step')} "
                      "per epoch, too few for a net to learn from", f"batch_size={max(1, images // 10)}")  # fmt: skip
    else:
        yield Finding("batch", OK, f"{plan.batch} images, {plural(plan.steps_per_epoch, 'step')} per epoch")
    if cfg.accumulate > 1:
        yield Finding("accumulate", OK, f"{cfg.accumulate} microbatches of {part} images per step: less memory, the "
                      "same gradient except for BatchNorm", "accumulate=1 is faster if it fits")  # fmt: skip
    if _normed(plan.net) and part < SMALL_PART:
        yield Finding("BatchNorm", WARNING, f"its statistics come from {plural(part, 'image')} at a time: noise",
                      f"batch_size={SMALL_PART * cfg.accumulate} or more, or accumulate=1")  # fmt: skip


def _normed(net: Net) -> bool:
    return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in net.modules())


def _length(plan: TrainingPlan) -> Iterator[Finding]:
    cfg, recipe = plan.cfg, plan.recipe
    if cfg.debug:
        yield Finding("length", OK, f"debug={cfg.debug.value}: a short run that only shows whether everything works")
        return
    if cfg.epochs == 0:  # finetune
        yield Finding("length", OK, "the strategy and the number of images set the epochs")
        return
    text = f"{plural(cfg.epochs, 'epoch')}, {plural(plan.steps, 'step')}"
    if recipe.epochs and cfg.epochs * USUAL < recipe.epochs:
        yield Finding("length", WARNING, f"{text}; the recipe has {recipe.epochs} epochs, and its error needs them",
                      f"epochs={recipe.epochs}; the schedule stretches and shrinks with it")  # fmt: skip
    elif plan.steps < FEW_STEPS:
        yield Finding("length", WARNING, f"{text}: too few for any net", "more epochs=, or a smaller batch_size=")
    else:
        yield Finding("length", OK, f"{text}, as the recipe" if cfg.epochs == recipe.epochs else text)
    if cfg.max_steps and cfg.max_steps < plan.steps_per_epoch * cfg.epochs:
        yield Finding("length", OK, f"max_steps={cfg.max_steps} ends it in epoch "
                      f"{math.ceil(cfg.max_steps / plan.steps_per_epoch)} of {cfg.epochs}")  # fmt: skip


def _schedule(plan: TrainingPlan) -> Iterator[Finding]:
    cfg, schedule = plan.cfg, plan.cfg.schedule
    epochs = "epoch" if schedule.warmup_epochs == 1 else "epochs"
    warmup = f"{schedule.warmup_epochs:g} {epochs} of warm-up" if schedule.warmup_epochs else "no warm-up"
    usual = plan.recipe.schedule.warmup_epochs
    if cfg.epochs and schedule.warmup_epochs >= cfg.epochs:
        yield Finding("schedule", WARNING, f"the warm-up lasts all {plural(cfg.epochs, 'epoch')}: lr never "
                      "reaches its value", f"schedule.warmup_epochs={cfg.epochs / 10:g}")  # fmt: skip
    elif plan.batch >= LARGE_BATCH and not schedule.warmup_epochs and cfg.optim.name.value == "sgd":
        yield Finding("schedule", WARNING, f"no warm-up with batches of {plan.batch:,}: the first steps are too large",
                      "schedule.warmup_epochs=5")  # fmt: skip
    elif schedule.warmup_epochs < usual:
        yield Finding("schedule", WARNING, f"{warmup}, but this net's recipe has {usual:g} epochs",
                      f"schedule.warmup_epochs={usual:g}")  # fmt: skip
    elif schedule.name is Schedule.constant and not cfg.debug:
        yield Finding("schedule", WARNING, "lr is constant to the end: the last steps jump around the minimum",
                      "schedule=cosine, or multistep")  # fmt: skip
    else:
        yield Finding("schedule", OK, f"{schedule.name.value}, {warmup}")


def _regularisation(plan: TrainingPlan) -> Iterator[Finding]:
    cfg, usual = plan.cfg, plan.recipe.optim.weight_decay
    decay = cfg.optim.weight_decay
    if decay == 0:
        yield Finding("weight decay", WARNING, f"none, but the recipe has {usual:g}", f"optim.weight_decay={usual:g}")
    elif cfg.optim.name is plan.recipe.optim.name and usual and not 1 / USUAL <= decay / usual <= USUAL:
        yield Finding("weight decay", WARNING, f"{decay:g} is {decay / usual:.2g}x the recipe's ({usual:g})",
                      f"optim.weight_decay={usual:g}")  # fmt: skip
    else:
        yield Finding("weight decay", OK, f"{decay:g}")
    if cfg.ema and cfg.epochs and 1 / (1 - cfg.ema) > plan.steps:
        yield Finding("ema", WARNING, f"ema={cfg.ema:g} averages over {1 / (1 - cfg.ema):,.0f} steps, but there are "
                      f"only {plan.steps:,}: the average stays near the initial weights",
                      f"ema={float(f'{1 - 10 / max(plan.steps, 11):.2g}'):g}")  # fmt: skip


def _augmentation(plan: TrainingPlan) -> Iterator[Finding]:
    mine, theirs = plan.cfg.augment, plan.recipe.augment
    for detail, advice in _idle(mine, plan.size):
        yield Finding("augmentation", WARNING, detail, advice)
    named = {"crop": mine.crop.value if mine.crop is not Crop.none else "", "flip": mine.flip, "color": mine.color,
             "cutout": mine.cutout}  # fmt: skip
    active = [key if value is True else f"{key}={value}" for key, value in named.items() if value]
    if active:
        yield Finding("augmentation", OK, ", ".join(active))
    elif mine != theirs:
        yield Finding("augmentation", WARNING, "none: the net sees the same pixels in every epoch",
                      "leave augment= out: the recipe has some")  # fmt: skip
    if mine.flip and plan.cfg.data.name == "digits":
        yield Finding("augmentation", WARNING, "a mirrored 2 is not a 2", "augment.flip=false")


def _idle(augment: AugmentConfig, size: int) -> Iterator[tuple[str, str]]:
    """Settings that have no effect, each with advice."""
    if augment.crop is Crop.pad and augment.padding == 0:
        yield "crop=pad with a padding of 0 shifts nothing", "augment.padding=4, or augment.crop=none"
    if augment.crop is not Crop.pad and augment.padding:
        yield f"padding={augment.padding} has no effect without crop=pad", "augment.crop=pad"
    if augment.crop is Crop.resized and augment.scale == [1.0, 1.0]:
        yield "crop=resized with scale=[1,1] keeps the whole area", "augment.scale=[0.08,1]"
    if augment.cutout >= size:
        yield f"cutout={augment.cutout} covers the whole image of {size} px", f"augment.cutout={size // 2}"


def _frozen(plan: TrainingPlan) -> Iterator[Finding]:
    parameters = list(plan.net.parameters())
    training = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    if training == total:
        return
    detail = f"{training:,} of {total:,} parameters train"
    if plan.cfg.weights is None and not hasattr(plan.cfg, "transfer"):
        yield Finding("frozen", WARNING, f"{detail}, the others stay random, as initialised",
                      "weights=imagenet (or a run), or freeze=none")  # fmt: skip
    else:
        yield Finding("frozen", OK, detail)


def _machine(plan: TrainingPlan, device: Runtime) -> Iterator[Finding]:
    cfg = plan.cfg
    auto = f" (precision={cfg.precision.value})" if cfg.precision.value != device.precision else ""
    yield Finding("device", OK, f"{device.name}, {device.precision}{auto}")
    if cfg.epochs and not plan.fitted and device.spoils_wide_filters:
        for text in health.wrong_gradients(plan.net, plan.size, plan.images.channels):
            yield Finding("gradients", WARNING, text, "precision=fp32")
    if cfg.compile and not plan.fitted and device.device.type == "cpu" and cfg.epochs:
        yield Finding("compile", WARNING, "on a CPU, compiling takes about half a minute and gained nothing for "
                      "ResNet-18 (docs/benchmarks.md); cnnbench benchmark measures it for your net",
                      "compile=false")  # fmt: skip


def _cost(plan: TrainingPlan) -> Finding:
    """Last line: the work of these settings in multiply-adds."""
    macs = count_complexity(plan.net, plan.size, plan.images.channels).macs
    images = plan.images.train
    if plan.fitted or plan.cfg.epochs == 0:
        once = macs * (images + plan.images.val)
        return Finding("cost", OK, f"features of all images once: {si_words(once)} multiply-adds"
                       f"{'' if plan.fitted else ', plus the epochs of training'}")  # fmt: skip
    seen = min(images * plan.cfg.epochs, plan.steps * plan.batch)
    work = TRAINING_PASSES * macs * seen
    less = "" if freezing.trains_wholly(plan.net) else "at most "
    return Finding("cost", OK, f"{plural(plan.steps, 'step')}, {seen:,} images: {less}{si_words(work)} multiply-adds, "
                   f"{TRAINING_PASSES} x {macs:,} per image")  # fmt: skip
