"""What a training found, as people look at it: the headline and the pictures."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from cnnbench import data
from cnnbench.analysis.complexity import TRAINING_PASSES
from cnnbench.config.parsing import flatten, to_plain
from cnnbench.models.layers import Net
from cnnbench.output.plots import curves
from cnnbench.runs import result
from cnnbench.runtime import device
from cnnbench.tasks.classification import evaluation, plots
from cnnbench.tasks.classification.metrics import judge
from cnnbench.training import freezing
from cnnbench.training.loop import predictions
from cnnbench.utils.console import warn_if_unwritable

if TYPE_CHECKING:
    from cnnbench.training.trainer import Training

SHOWN = 32  # images in a picture of images
COMPARED = {"model.name", "data.name", "batch_size", "epochs", "optim.lr", "optim.weight_decay", "seed"}


def compared_settings(training: "Training") -> dict[str, Any]:
    """What one looks at to tell runs apart: the usual keys, and those given on the command line."""
    given = {override.partition("=")[0] for override in training.cfg.run.overrides}
    settings = flatten(to_plain(training.cfg))
    return {key: value for key, value in settings.items() if key in COMPARED or key in given}


def headline(training: "Training", reason: str) -> dict[str, Any]:
    """The headline is the last epoch's, not the best one's: choosing by the validation images would flatter it."""
    last, cfg, dataset, size = training.rows[-1], training.cfg, training.dataset, training.spec.input.image_size
    complexity = result.complexity(training.trainer.model, training.spec)
    return {
        "top1_error": last["top1_error/val"],
        "top5_error": last["top5_error/val"],
        "loss": last["loss/val"],
        "n": len(dataset.val),
        "train_n": len(dataset.train),
        "skipped_images": len(dataset.unreadable),
        "split": dataset.split,
        "crop": result.crop(size, dataset.crop_ratio),
        "select_on": "last epoch",
        "best_top1_error": training.progress.best_top1_error,
        "best_epoch": training.progress.best_epoch,
        "train_top1_error": last["top1_error/train"],
        "train_loss": last["loss/train"],
        "model": cfg.model["name"],
        "data": dataset.name,
        "seed": cfg.seed,
        "epochs": last["epoch"],
        "steps": last["step"],
        "skipped_steps": training.trainer.guard.look().skipped,
        "warnings": list(training.warned.values()),
        "batch_size": training.batch_size,
        "devices": training.device.group.size,
        "stopped": reason,
        **complexity,
        "training_flops": training_flops(training, complexity["macs"]),
        "images_per_second": last["images_per_second"],
        "wall_seconds": training.progress.seconds,
        **result.environment(training.device),
        "run_dir": str(training.directory.path),
        **({"compile": training.compiling.plain_dict()} if training.compiling else {}),
        **training.about,
    }


def by_views(training: "Training") -> dict[str, Any]:
    """What of the headline crop= says otherwise than the last epoch's validation, by the centre. All processes take
    part; Stopped where somebody wants to stop."""
    if training.views is None:
        return {}
    net = training.eval_model
    assert isinstance(net, Net)
    net.eval()
    member = evaluation.member(net, training.views, training.spec, training.device)
    source = training.dataset.val
    reading = evaluation.Reading(source=source, batch_size=training.batch_size, workers=training.cfg.data.workers,
                                 until=training.stop.until_asked)  # fmt: skip
    with evaluation.progress(len(source), what=f"crop={training.views.name}") as advance:
        verdict = judge(evaluation.scores(member, training.views, reading, advance), source.targets)
    return {
        "top1_error": verdict.top1_error,
        "top5_error": verdict.top5_error,
        "loss": verdict.loss,
        "crop": training.views.text,
        "center_top1_error": training.rows[-1]["top1_error/val"],
    }


def training_flops(training: "Training", macs: int) -> int | None:
    """Two for each multiply-add of an image, the backward pass counted as two forward ones. None where parts of the net
    were frozen: it would be less."""
    if training.cached or not freezing.trains_wholly(training.trainer.model):
        return None
    images = training.trainer.step * len(training.dataset.train) / len(training.train_batches)
    return round(2 * TRAINING_PASSES * macs * images)


def draw_batch(training: "Training") -> None:
    picture = training.directory.path / "train_batch.png"
    if training.device.group.main and training.first_batch is not None and not picture.exists():
        with warn_if_unwritable(picture.name):
            images, targets = training.first_batch
            plots.train_batch(images.cpu(), targets.cpu(), training.dataset.classes, picture)


def draw_curves(training: "Training") -> None:
    if training.device.group.main and training.rows and training.cfg.epochs:
        with warn_if_unwritable("curves.png"):
            plots.curves(training.rows, training.directory.path / "curves.png", _title(training))


def draw(training: "Training") -> None:
    """All that can only be drawn at the end."""
    path, dataset = training.directory.path, training.dataset
    draw_curves(training)
    with warn_if_unwritable("confusion_matrix.png"):
        title = f"{_title(training)}, {dataset.split}"
        plots.confusion_matrix(training.confusion, dataset.classes, path / "confusion_matrix.png", title)
    with warn_if_unwritable("val_predictions.png"):
        plots.val_predictions(*_some_predictions(training), dataset.classes, path / "val_predictions.png")


def _title(training: "Training") -> str:
    return f"{training.cfg.model['name']} on {training.dataset.name}"


def _some_predictions(training: "Training") -> tuple[Tensor, Tensor, Tensor]:
    """Images from all over the validation set, their classes and the net's probabilities for each class."""
    dataset = training.dataset
    batches = data.eval_loader(
        dataset.val.subset(data.evenly_spaced(dataset.val, SHOWN)),
        dataset,
        image_size=training.spec.input.image_size,
        batch_size=SHOWN,
        workers=0,
    )
    training.eval_model.eval()
    net = training.eval_model if training.cached else training.eval_net
    normalize = device.Normalize(training.device, training.spec.input.mean, training.spec.input.std)
    images, targets, logits = next(predictions(net, batches.epoch(0), training.device, normalize))
    return images, targets.cpu(), logits.float().softmax(dim=1).cpu()
