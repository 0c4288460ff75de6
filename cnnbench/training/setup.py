"""From a configuration to what trains: the size of a batch, and the trainer with its optimizer and schedule."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cnnbench import data
from cnnbench.config.commands import TrainConfig
from cnnbench.config.sections import Cache, CropConfig
from cnnbench.models.layers import Net
from cnnbench.runtime.batch_size import estimate_largest_batch
from cnnbench.runtime.compiled import Compiled
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.runtime.distributed import Exchange
from cnnbench.tasks.classification import evaluation
from cnnbench.tasks.classification.task import Classification
from cnnbench.training import optim
from cnnbench.training.loop import Trainer
from cnnbench.transfer.features import Cached
from cnnbench.utils.errors import UserError
from cnnbench.weights.checkpoint import Inference

FIT_IMAGES, FIT_BATCH = 5000, 250  # as many as Jordan (2024) whitens patches of, and how many at a time


def images(dataset: data.Dataset, cache: Cache, device: Runtime) -> data.Dataset:
    """The data set with its images on the device, where they are in memory and leave room there for the training.

    Whole batches are then picked and augmented there, and nothing of them travels. UserError where that was asked for
    and cannot be.
    """
    parts = [part for part in (dataset.train, dataset.val) if isinstance(part, data.Arrays)]
    if cache is Cache.device and not parts:
        raise UserError(f"data.cache=device: the images of {dataset.name} are files, which are read anew each time")
    if all(part.images.device == device.device for part in parts):
        return dataset
    size = sum(part.images.nbytes for part in parts)
    fits = size <= device.free_memory() // 2
    if cache is Cache.device and not fits:
        raise UserError(
            f"data.cache=device: the images take {size / 2**30:.1f} GB, more than half of what is free on {device.name}"
        )
    return dataset if cache is Cache.host or not fits else data.map_images(dataset, device.to_device)


def fit_to_images(model: Net, dataset: data.Dataset, inference: Inference, device: Runtime) -> None:
    """Compute from some training images what of a new net follows from them; most nets have nothing of the kind."""
    if type(model).fit_to is Net.fit_to:
        return
    some = dataset.train.subset(data.evenly_spaced(dataset.train, FIT_IMAGES))
    batches = data.eval_loader(some, dataset, image_size=inference.image_size, batch_size=FIT_BATCH, workers=0)
    normalize = Normalize(device, inference.mean, inference.std)
    model.fit_to(normalize(images) for images, _ in batches.epoch())


def batch_size(
    cfg: TrainConfig, model: Net, inference: Inference, device: Runtime, images: int, kept: int | None
) -> int:
    """That of the configuration, where it is a number; else the one that a checkpoint kept, or the largest that fits
    the device."""
    if isinstance(cfg.batch_size, int):
        return cfg.batch_size
    if kept:
        return kept
    group = device.group
    # Beyond a thousand images, or with few steps in an epoch, a larger batch makes the net worse, not faster.
    limit = max(1, min(1024, images // 10))
    size = inference.image_size
    pair = torch.zeros(2, inference.in_channels, size, size, device=device.device)
    each = estimate_largest_batch(model, pair, device, max(1, limit // group.size))
    return group.broadcast(lambda: each * group.size)


def views(cfg: TrainConfig, model: Net, inference: Inference) -> data.Views | None:
    """By which views the images of the validation are judged at the end; None where that is by the centre, as after
    each epoch. UserError where the net or the images cannot be viewed so."""
    if cfg.crop == CropConfig():
        return None
    return evaluation.views(cfg.crop, model, inference)


def trainer(
    cfg: TrainConfig,
    model: Net,
    inference: Inference,
    device: Runtime,
    batch_size: int,
    batches: data.Loader,
    cached: Cached | None,
) -> Trainer:
    """A trainer at its first step. cached: features to train the head on, in place of images."""
    if cfg.ddp.sync_bn and not device.group.alone:
        if not device.syncs_batchnorm:
            raise UserError("ddp.sync_bn=true needs GPUs: on a CPU each process has BatchNorm of its own images")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema), use_buffers=True) if cfg.ema else None
    total_steps = min(cfg.epochs * len(batches), cfg.max_steps or sys.maxsize)
    return Trainer(
        model=model,
        net=cached.net if cached else called(cfg, model, device, batch_size),
        task=Classification(cfg.label_smoothing, getattr(model, "aux_weight", 0.0)),
        optimizer=optim.build_optimizer(model, cfg.optim, batch_size, device.fused),
        schedule=optim.build_schedule(cfg.schedule, total_steps, len(batches)),
        runtime=device,
        normalize=device.to_device if cached else Normalize(device, inference.mean, inference.std),
        seed=cfg.seed,
        ema=average,
        accumulate=cfg.accumulate,
        clip=cfg.optim.clip,
        exchange=None if device.group.alone else Exchange(device.group, model, batches.order.size),
    )


def called(cfg: TrainConfig, model: Net, device: Runtime, batch_size: int) -> Callable[..., Any]:
    """The net as it is called in training. Made anew when other parameters begin to train."""
    wrapped = device.group.wrap(model, device.device, cfg.ddp.bucket_mb, cfg.ddp.compress)
    return Compiled(wrapped, batch_size // device.group.size, cfg.accumulate) if cfg.compile else wrapped
