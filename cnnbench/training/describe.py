"""Description of a training before its first step, with warnings of likely mistakes."""

from cnnbench import data
from cnnbench.runs.result import complexity
from cnnbench.training import freezing, health, risks
from cnnbench.training.image_counts import ImageCounts
from cnnbench.training.risks import TrainingPlan
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState
from cnnbench.utils.console import say
from cnnbench.utils.format import plural


def describe(parts: Parts, state: TrainState, space: str) -> None:
    """Print net, data, device and limits. space: sentence on the size of the checkpoints."""
    cfg, runtime, dataset, lr = parts.cfg, parts.runtime, parts.dataset, parts.lr
    size, count = parts.spec.side, complexity(state.model, parts.spec)
    plan = planned(parts, state)
    lines = [
        f"{cfg.model['name']}: {count['params']:,} parameters, {count['macs']:,} multiply-adds at {size} x {size} px",
        plan.images.text,
    ]
    steps = (
        f"{plural(cfg.epochs, 'epoch')} of {plural(len(parts.train_batches), 'step')}, "
        f"batch {parts.batch_size}, {cfg.optim.name.value}, lr {lr:g}"
    )
    again = (
        f"; the result measured in {measured}" if (measured := parts.measuring.precision) != runtime.precision else ""
    )
    times = f"{runtime.group.size} x " if not runtime.group.alone else ""
    lines.append(f"{times}{runtime.name}, {runtime.precision}{': ' + steps if cfg.epochs else ''}{again}")
    if cfg.epochs and lr != cfg.optim.lr:
        lines.append(f"lr {cfg.optim.lr:g} is meant for a batch of {cfg.optim.lr_batch}: scaled to {lr:g}")
    if (cfg.augment.mixup or cfg.augment.cutmix) and not parts.features:
        lines.append("images are mixed: the train error is counted against the class of the larger share")
    if parts.thaw_plan or not freezing.trains_wholly(state.model):
        lines.append(freezing.table(state.model, parts.thaw_plan))
    if state.step:
        lines.append(f"going on from epoch {state.progress.epoch + 1}, batch {state.progress.batch}")
    lines.append(space)
    found = found_risks(parts, state, plan)
    state.warnings |= {text: text for text in (*dataset.notes, *found)}  # the notes were said when the data were read
    say("\n".join([*lines, *(f"warning: {text}" for text in found)]), parts.stream)


def found_risks(parts: Parts, state: TrainState, plan: TrainingPlan) -> list[str]:
    """Warnings of likely mistakes, before the first step."""
    cfg, dataset, given = parts.cfg, parts.dataset, parts.spec.input
    found = [risk.text for risk in risks.risks(plan)]
    shared = [] if cfg.debug else data.shared_files(dataset.train, dataset.val)
    if shared:
        found.append(
            f"{len(shared):,} of the {plural(len(dataset.val), f'{dataset.split} image')} "
            f"{'is a training image' if len(shared) == 1 else 'are training images'} too, as "
            f"{shared[0][1]} = {shared[0][0]}: the error measured on them is too low"
        )
    if cfg.epochs and parts.runtime.spoils_wide_filters:
        found += health.wrong_gradients(state.model, parts.spec.side, given.in_channels)
    return found


def planned(parts: Parts, state: TrainState) -> TrainingPlan:
    """The training as its risks are judged."""
    return TrainingPlan(
        cfg=parts.cfg,
        images=ImageCounts.of(parts.dataset),
        net=state.model,
        size=parts.spec.input.image_size,
        batch=parts.batch_size,
        lr=parts.lr,
        fitted=parts.cfg.epochs == 0,
    )
