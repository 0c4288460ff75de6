"""Result of a training: the headline and the pictures."""

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from cnnbench import data
from cnnbench.analysis.complexity import TRAINING_PASSES
from cnnbench.config.arguments import typed_keys
from cnnbench.config.data_names import data_name
from cnnbench.config.parsing import flatten
from cnnbench.models.layers import Net
from cnnbench.output import plots
from cnnbench.output.figure import pictures_of
from cnnbench.runs.result import complexity, described, environment, select_on
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.runtime.device import Normalize
from cnnbench.tasks import ANSWERS
from cnnbench.tasks.measurement import Reading, crop_text, progress
from cnnbench.tasks.passes import answers, predictions
from cnnbench.training import freezing
from cnnbench.training.setup import Parts
from cnnbench.training.state import TrainState

SHOWN = 32  # images in a picture of images
WHOLE_SHOWN = 6  # batches in it, where whole images in files are batches of one
COMPARED = {"model.name", "data.name", "batch_size", "epochs", "optim.lr", "optim.weight_decay", "seed"}


def compared_settings(parts: Parts) -> dict[str, Any]:
    """Settings by which one tells runs apart: the usual keys, and those given on the command line."""
    given = typed_keys(parts.cfg)
    settings = flatten(parts.plain_config)
    return {key: value for key, value in settings.items() if key in COMPARED or key in given}


def headline(parts: Parts, state: TrainState, measured: dict[str, float], reason: str) -> dict[str, Any]:
    """Headline: the last epoch's metrics, not the best one's, since choosing by the validation images flatters.

    measured: metrics of the last validation.
    """
    last, cfg, dataset, task = state.rows[-1], parts.cfg, parts.dataset, parts.task
    sizes, primary = complexity(state.model, parts.spec), task.primary.name
    return {
        **{name: value for name, value in measured.items() if name != "loss"},
        "loss": measured["loss"],
        "n": len(dataset.val),
        "train_n": len(dataset.train),
        "skipped_images": len(dataset.unreadable),
        "left_out": dataset.left_out,
        "split": dataset.split,
        "crop": crop_text(dataset, parts.spec.input.image_size, dataset.crop_ratio),
        "select_on": select_on(cfg, dataset.split),
        f"best_{task.aim.name}": state.progress.best,
        "best_epoch": state.progress.best_epoch,
        f"train_{primary}": last.get(f"{primary}/train"),
        "train_loss": last["loss/train"],
        "model": cfg.model["name"],
        "data": data_name(dataset.name, cfg.data.root, cfg.data.file),
        "seed": cfg.seed,
        "epochs": state.progress.epoch,
        "steps": last["step"],
        "skipped_steps": state.guard.look().skipped,
        "warnings": list(state.warnings.values()),
        "batch_size": parts.batch_size,
        "devices": parts.runtime.group.size,
        "stopped": reason,
        **sizes,
        "training_flops": training_flops(parts, state, sizes["macs"]),
        "images_per_second": last["images_per_second"],
        "wall_seconds": state.progress.seconds,
        **described(task, measured),
        **environment(parts.measuring),
        "training_precision": parts.runtime.precision,
        "run_dir": str(parts.directory.path),
        **parts.about,
    }


def by_views(
    parts: Parts, state: TrainState, stop: StopRequests, measured: dict[str, float]
) -> tuple[dict[str, Any], Tensor | None]:
    """Metrics by the views that crop= asks for, in place of those measured by the centre; and what is kept of each
    answer, by these views or by the centre. All processes take part. Stopped where somebody wants to stop."""
    if parts.views is None:
        assert state.evaluation is not None
        return {}, answers(state.evaluation, parts.runtime)
    net, source, primary = state.eval_model, parts.dataset.val, parts.task.primary.name
    assert isinstance(net, Net)
    net.eval()
    reading = Reading(
        source=source, batch_size=parts.batch_size, workers=parts.cfg.data.workers, until=stop.until_asked
    )
    with progress(len(source), what=f"crop={parts.views.name}") as advance:
        found, kept = parts.task.judge_views(parts.views, net, parts.spec, parts.measuring, reading, advance)
    return {**found, "crop": parts.views.text, f"center_{primary}": measured[primary]}, kept


def write_answers(parts: Parts, state: TrainState, kept: Tensor | None) -> None:
    """Write what the net answered to each image in its last validation, where its task keeps that."""
    if kept is not None:
        with state.warn_if_undrawn(ANSWERS):
            path = parts.directory.path / ANSWERS
            parts.task.write_answers(kept, parts.dataset.val, parts.dataset.classes, path)


def training_flops(parts: Parts, state: TrainState, macs: int) -> int | None:
    """Floating-point operations of the training: two for each multiply-add of an image, the backward pass counted as
    two forward ones. None where parts of the net were frozen: it would be less."""
    if parts.features or not freezing.trains_wholly(state.model):
        return None
    images = state.step * len(parts.dataset.train) / len(parts.train_batches)
    return round(2 * TRAINING_PASSES * macs * images)


def draw_curves(parts: Parts, state: TrainState) -> None:
    """Draw curves.png: loss and metrics over the epochs."""
    if state.rows and parts.cfg.epochs:
        with state.warn_if_undrawn("curves.png"):
            plots.plot_curves(state.rows, parts.directory.path / "curves.png", title(parts), quantities(parts))


def quantities(parts: Parts) -> dict[str, plots.Quantity]:
    """Each metric by name, as the curves show it."""
    lines = {metric.beside: (metric.label, f"{metric.name}/val") for metric in parts.task.metrics}
    return {
        metric.name: plots.Quantity(
            metric.axis,
            metric.lower_is_better,
            f".{metric.decimals}f",
            metric.unit == "%" or metric.lower_is_better,
            lines.get(metric.name),
        )
        for metric in parts.task.metrics
        if not metric.beside
    }


def draw_validation(parts: Parts, state: TrainState) -> None:
    """Draw what the last validation found, and some images with the net's answers."""
    dataset, spec = parts.dataset, parts.spec
    with state.warn_if_undrawn("the pictures of the validation"):
        some = dataset.val.subset(data.evenly_spaced(dataset.val, SHOWN))
        batches = data.eval_loader(some, dataset, image_size=spec.input.image_size, batch_size=SHOWN, workers=0)
        state.eval_model.eval()
        normalize = Normalize(parts.runtime, spec.input.mean, spec.input.std)
        assert state.evaluation is not None
        answered = predictions(state.eval_model, batches.epoch(0), parts.measuring, normalize)
        batch, logits = shown_together([(batch, parts.task.answer(outputs)) for batch, _, outputs in
                                        islice(answered, WHOLE_SHOWN)])  # fmt: skip
        heading, folder = f"{title(parts)}, {dataset.split}", parts.directory.path
        with pictures_of(title(parts)):
            parts.task.draw_validation(state.evaluation, batch, logits, dataset.classes, folder, heading)


def shown_together(answered: list[tuple[data.Batch, Tensor]]) -> tuple[data.Batch, Tensor]:
    """One batch and its answers of several, targets on the CPU: whole images in files come one by one. Those of another
    size than the first are left out."""
    size = answered[0][0]["image"].shape[1:]
    alike = [(batch, answers) for batch, answers in answered if batch["image"].shape[1:] == size]
    joined = {key: torch.cat([batch[key] for batch, _ in alike]) for key in ("image", "target", "index")}
    return {**joined, "target": joined["target"].cpu()}, torch.cat([answers for _, answers in alike])


def title(parts: Parts) -> str:
    """`resnet20 on cifar10`."""
    data = data_name(parts.dataset.name, parts.cfg.data.root, parts.cfg.data.file)
    return f"{parts.cfg.model['name']} on {data}"
