"""Dry run of a configuration: the numbers of images and steps, the net and the lr, before anything trains."""

from dataclasses import dataclass, replace

import torch

from cnnbench import data, models, tasks
from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import DataConfig, Strategy
from cnnbench.models.meta_kernels import Shapes
from cnnbench.training import freezing, optim
from cnnbench.training.augmentation import suit_to_size
from cnnbench.training.image_counts import ImageCounts
from cnnbench.training.risks import TrainingPlan
from cnnbench.utils.errors import UserError
from cnnbench.weights import sources

USUAL_BATCH = 128  # assumed with batch_size=auto


KNOWN = {  # data sets that are the same everywhere, so that a review works without their files
    "mnist": ImageCounts("mnist", 60_000, 10_000, 10, 1, "test"),
    "fashion_mnist": ImageCounts("fashion_mnist", 60_000, 10_000, 10, 1, "test"),
    "svhn": ImageCounts("svhn", 73_257, 26_032, 10, 3, "test"),
    "stl10": ImageCounts("stl10", 5_000, 8_000, 10, 3, "test"),
    "cifar10": ImageCounts("cifar10", 50_000, 10_000, 10, 3, "test"),
    "cifar100": ImageCounts("cifar100", 50_000, 10_000, 100, 3, "test"),
    "imagenet": ImageCounts("imagenet", 1_281_167, 50_000, 1000, 3, "val"),
}


@dataclass(frozen=True, kw_only=True)
class ReviewPlan(TrainingPlan):
    """A training that is planned, beside what is usual for its net and data. The net lies on the meta device."""

    recipe: TrainConfig


def image_counts(cfg: TrainConfig) -> tuple[ImageCounts, str]:
    """Counts of the data set's images, and what is missing: "" or, for a known data set that is not here, the error.

    Raises UserError if the data set is neither here nor known.
    """
    try:
        loaded = data.load_dataset(cfg.data, tell=lambda note: None, test=True)  # a finding says it
        found = tasks.complete(cfg, loaded)
    except UserError as error:
        if cfg.data.name not in KNOWN:
            raise
        return with_parts(KNOWN[cfg.data.name], cfg.data), str(error)
    return ImageCounts.of(found), ""


def with_parts(known: ImageCounts, cfg: DataConfig) -> ImageCounts:
    """Counts of a known set once its training images are divided."""
    left = round(known.train * (1 - cfg.val_fraction - cfg.test_fraction) * cfg.fraction)
    found = replace(known, train=left)
    if cfg.val_fraction:
        found = replace(found, val=round(known.train * cfg.val_fraction), split="held-out")
        if known.split == "test":
            found = replace(found, test=known.val, kept="its test images")
    if cfg.test_fraction:
        found = replace(found, test=round(known.train * cfg.test_fraction), kept="test images")
    return found


def plan_training(cfg: TrainConfig, recipe: TrainConfig, images: ImageCounts) -> ReviewPlan:
    """Dry run with these images. Raises UserError if the net cannot be built or cannot take the images."""
    arguments = dict(cfg.model)
    if not arguments:  # finetune: the weights name the net
        loaded = sources.load(cfg.weights or sources.DEFAULT, None, cfg.weights_key)
        if loaded.spec is None:
            raise UserError(f"{loaded.source} holds tensors only: name their net, as in model=resnet34")
        arguments = dict(loaded.spec.model)
    channels = arguments.pop("in_channels", None) or images.channels
    with torch.device("meta"), Shapes():
        net = models.build_for(arguments, outputs=images.outputs or images.classes, in_channels=channels)
    size = cfg.data.image_size or models.usual_size(net, images.side or net.image_size)
    models.check_image_size(net, size)
    for one in (cfg, recipe):
        suit_to_size(one, size)
    freezing.freeze(net, cfg.freeze, cfg.weights_skip)
    batch = assumed_batch_size(cfg)
    strategy = getattr(cfg, "transfer", None)
    fitted = strategy is not None and strategy.name in (Strategy.auto, Strategy.svm, Strategy.deep_features)
    return ReviewPlan(
        cfg=cfg,
        recipe=recipe,
        images=images,
        net=net,
        size=size,
        batch=batch,
        lr=optim.scaled_lr(cfg.optim, batch),
        fitted=fitted,
    )


def assumed_batch_size(cfg: TrainConfig) -> int:
    """Batch size: the configured number, or USUAL_BATCH with batch_size=auto."""
    return cfg.batch_size if isinstance(cfg.batch_size, int) else USUAL_BATCH
