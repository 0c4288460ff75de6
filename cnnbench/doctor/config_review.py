"""Review of a configuration before training: what is unusual, what to type instead, what it will cost.

The configuration is compared with its recipe: the settings of the same net and data when nothing else is typed. Each
finding is a sentence. Nothing is trained: the net lies on the meta device and has shapes only.
"""

import math
from collections.abc import Iterable, Iterator

from cnnbench import models
from cnnbench.analysis.complexity import TRAINING_PASSES, count_complexity
from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import OptimConfig, Schedule
from cnnbench.data.balance import counts_text
from cnnbench.doctor.dry_run import ReviewPlan, assumed_batch_size, image_counts, plan_training
from cnnbench.doctor.finding import OK, PROBLEM, WARNING, Finding
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.training import freezing, health, optim, risks
from cnnbench.training.augmentation import active
from cnnbench.training.risks import Risk
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, si_words

USUAL = 2.0  # within this factor of the recipe a value counts as usual


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


def _warnings(found: Iterable[Risk]) -> list[Finding]:
    return [Finding(risk.check, WARNING, risk.detail, risk.advice) for risk in found]


def _data(plan: ReviewPlan) -> Iterator[Finding]:
    images, cfg = plan.images, plan.cfg
    detail = images.text
    if cfg.data.fraction < 1:
        detail += f"; data.fraction={cfg.data.fraction:g} leaves the other training images out"
    yield Finding("data", OK, detail)
    for note in images.notes:
        yield Finding("data", WARNING, note)
    yield from _warnings(risks.of_data(plan))
    if images.train_by_class:
        each = {"training": images.train_by_class, images.split: images.val_by_class, "test": images.test_by_class}
        listed = [f"{split} images {counts_text(counts, images.labels)}" for split, counts in each.items() if counts]
        yield Finding("classes", OK, "; ".join(listed))
    yield from _warnings(risks.of_classes(plan))


def _net(plan: ReviewPlan) -> Iterator[Finding]:
    net, size = plan.net, plan.size
    given = size // net.scale
    cost = count_complexity(net, given, plan.images.channels)
    detail = f"{net.name}: {cost.params:,} parameters, {cost.macs:,} multiply-adds at {given} x {given} px"
    yield Finding("net", OK, detail)
    if size != net.image_size and not net.any_size:
        part = cost.macs / count_complexity(net, net.image_size // net.scale, plan.images.channels).macs
        smaller = size < net.image_size
        yield Finding("image size", WARNING if smaller else OK,
                      f"{size} px, but the net is made for {net.image_size} px: {part:.2g}x the multiply-adds"
                      f"{', coarser maps' if smaller else ''}",
                      f"data.image_size={net.image_size} is the net's own size" if smaller else "")  # fmt: skip
    yield from _warnings(risks.of_size(plan))
    for note in models.size_notes(net, size):
        yield Finding("auxiliary heads", WARNING, note, f"data.image_size={net.aux_image_size} or more")


def _lr(plan: ReviewPlan) -> Iterator[Finding]:
    """Compares the lr of a step with the recipe's at the same batch size, and warns of known failures."""
    mine, theirs = plan.cfg.optim, plan.recipe.optim
    text = f"lr {plan.lr:.3g} at batch {plan.batch}"
    if mine.name is not theirs.name:
        yield Finding("learning rate", OK, f"{text} with {mine.name.value}; the recipe has {theirs.name.value}, "
                      "whose lr cannot be compared", "lr_find=true searches for one")  # fmt: skip
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
    own = {*risks.settings(theirs, plan.net, optim.scaled_lr(theirs, plan.batch))}  # the recipe's own
    yield from _warnings(risk for risk in risks.of_lr(plan) if risk not in own)


def _scaled(cfg: OptimConfig, lr: float) -> str:
    return f", scaled from {cfg.lr:g} at {cfg.lr_batch}" if lr != cfg.lr else ""


def _times(ratio: float) -> str:
    return "the same as" if math.isclose(ratio, 1, rel_tol=1e-6) else f"{ratio:.2g}x"


def _typed(cfg: OptimConfig, plan: ReviewPlan, lr: float) -> float:
    """The `optim.lr` that gives this lr of a step."""
    return float(f"{cfg.lr * lr / plan.lr:.3g}")


def _batch(plan: ReviewPlan) -> Iterator[Finding]:
    cfg = plan.cfg
    part = math.ceil(plan.batch / cfg.accumulate)
    if cfg.batch_size == "auto":
        yield Finding("batch", OK, "auto: the largest that fits; this review assumes 128")
    elif found := _warnings(risks.of_batch(plan)):
        yield from found
    else:
        yield Finding("batch", OK, f"{plan.batch} images, {plural(plan.steps_per_epoch, 'step')} per epoch")
    if cfg.accumulate > 1:
        yield Finding("accumulate", OK, f"{cfg.accumulate} microbatches of {plural(part, 'image')} per step: less "
                      "memory, the same gradient except for BatchNorm", "accumulate=1, faster if it fits")  # fmt: skip
    yield from _warnings(risks.of_norm(plan))


def _length(plan: ReviewPlan) -> Iterator[Finding]:
    cfg, recipe = plan.cfg, plan.recipe
    if cfg.debug:
        yield Finding("length", OK, f"debug={cfg.debug.value}: a short run that only shows whether everything works")
        return
    if cfg.epochs == 0:  # finetune
        yield Finding("length", OK, "the strategy and the number of images set the epochs")
        return
    text = f"{plural(cfg.epochs, 'epoch')}, {plural(plan.steps, 'step')}"
    if recipe.epochs and cfg.epochs * USUAL < recipe.epochs:
        yield Finding("length", WARNING, f"{text}; the recipe has {plural(recipe.epochs, 'epoch')} for its error",
                      f"epochs={recipe.epochs}; the schedule stretches and shrinks with it")  # fmt: skip
    elif found := _warnings(risks.of_length(plan)):
        yield from found
    else:
        yield Finding("length", OK, f"{text}, as the recipe" if cfg.epochs == recipe.epochs else text)
    if cfg.max_steps and cfg.max_steps < plan.steps_per_epoch * cfg.epochs:
        yield Finding("length", OK, f"max_steps={cfg.max_steps} ends it in epoch "
                      f"{math.ceil(cfg.max_steps / plan.steps_per_epoch)} of {cfg.epochs}")  # fmt: skip


def _schedule(plan: ReviewPlan) -> Iterator[Finding]:
    cfg, schedule = plan.cfg, plan.cfg.schedule
    warmup = f"{plural(schedule.warmup_epochs, 'epoch')} of warm-up" if schedule.warmup_epochs else "no warm-up"
    usual = plan.recipe.schedule.warmup_epochs
    if found := _warnings(risks.of_schedule(plan)):
        yield from found
    elif schedule.warmup_epochs < usual:
        yield Finding("schedule", WARNING, f"{warmup}, but this net's recipe has {plural(usual, 'epoch')}",
                      f"schedule.warmup_epochs={usual:g}")  # fmt: skip
    elif schedule.name is Schedule.constant and not cfg.debug:
        yield Finding("schedule", WARNING, "lr is constant to the end: the last steps jump around the minimum",
                      "schedule=cosine, or multistep")  # fmt: skip
    else:
        yield Finding("schedule", OK, f"{schedule.name.value}, {warmup}")


def _regularisation(plan: ReviewPlan) -> Iterator[Finding]:
    cfg, usual = plan.cfg, plan.recipe.optim.weight_decay
    decay = cfg.optim.weight_decay
    if decay == 0 and usual:
        yield Finding("weight decay", WARNING, f"none, but the recipe has {usual:g}", f"optim.weight_decay={usual:g}")
    elif cfg.optim.name is plan.recipe.optim.name and usual and not 1 / USUAL <= decay / usual <= USUAL:
        yield Finding("weight decay", WARNING, f"{decay:g} is {decay / usual:.2g}x the recipe's ({usual:g})",
                      f"optim.weight_decay={usual:g}")  # fmt: skip
    else:
        yield Finding("weight decay", OK, f"{decay:g}")
    yield from _warnings(risks.of_ema(plan))


def _augmentation(plan: ReviewPlan) -> Iterator[Finding]:
    mine, theirs = plan.cfg.augment, plan.recipe.augment
    yield from _warnings(risks.of_augmentation(plan))
    if done := active(mine):
        yield Finding("augmentation", OK, ", ".join(done))
    elif mine != theirs:
        yield Finding("augmentation", WARNING, "none: the net sees the same pixels in every epoch",
                      "leave augment= out: the recipe has some")  # fmt: skip


def _frozen(plan: ReviewPlan) -> Iterator[Finding]:
    training, total = plan.parameters
    if found := _warnings(risks.of_frozen(plan)):
        yield from found
    elif training < total:
        yield Finding("frozen", OK, f"{training:,} of {total:,} parameters train")


def _machine(plan: ReviewPlan, device: Runtime) -> Iterator[Finding]:
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


def _cost(plan: ReviewPlan) -> Finding:
    """Last line: the work of these settings in multiply-adds."""
    macs = count_complexity(plan.net, plan.size // plan.net.scale, plan.images.channels).macs
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
