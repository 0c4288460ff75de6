"""Setup of a training from its configuration: the parts that stay as they are, and the state at the first step."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from cnnbench import data
from cnnbench.config.commands import TrainConfig
from cnnbench.config.parsing import to_plain
from cnnbench.config.sections import Cache, Decoder
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.models.stochastic_depth import leave_out
from cnnbench.runs.run_directory import RunDirectory
from cnnbench.runtime.batch_size import estimate_largest_batch
from cnnbench.runtime.compiled import Compiled
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.base import Task
from cnnbench.training import freezing, optim
from cnnbench.training.ema import MovingAverage
from cnnbench.training.exchange import Exchange
from cnnbench.training.graph_step import recorded_input, recorded_step, uses_graphs
from cnnbench.training.schedules import build_schedule, plateau_of
from cnnbench.training.state import Progress, TrainState
from cnnbench.training.swa import EpochAverage
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.utils.system import cores

FIT_IMAGES, FIT_BATCH = 5000, 250  # as many as Jordan (2024) whitens patches of, and how many at a time


@dataclass(frozen=True, eq=False)
class FeatureDataset:
    """Features in place of images: a data set of them, and the part of the net that is still to run on them."""

    dataset: data.Dataset
    net: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a training that it uses and does not change."""

    cfg: TrainConfig
    runtime: Runtime
    task: Task
    dataset: data.Dataset
    spec: ModelSpec
    directory: RunDirectory
    batch_size: int  # images of a step, over all processes
    lr: float  # learning rate that the schedule scales: that of the configuration, for this batch size
    loaded: data.Dataset  # what is loaded: the images, where they lie; or their features
    loading: dict[str, Any]  # arguments of every loader
    train_batches: data.Loader
    val_batches: data.Loader
    views: data.Views | None  # by which the last validation judges the images; None: by the centre, as each epoch's
    thaw_plan: dict[int, list[str]]  # epochs done -> stages that begin to train
    features: FeatureDataset | None = None  # on which the head alone is trained, in place of the images
    about: dict[str, Any] = field(default_factory=dict)  # more for result.json
    stream: TextIO = sys.stdout  # where people read

    @cached_property
    def measuring(self) -> Runtime:
        """Runtime of the last validation, whose numbers are the run's result: that of `cnnbench evaluate`."""
        return self.runtime.to_measure(self.cfg.precision.value)

    @cached_property
    def plain_config(self) -> dict[str, Any]:
        """Configuration as plain values, for checkpoints."""
        return to_plain(self.cfg)


def build(
    cfg: TrainConfig,
    runtime: Runtime,
    dataset: data.Dataset,
    model: Net,
    spec: ModelSpec,
    directory: RunDirectory,
    *,
    task: Task,
    saved: dict[str, Any] | None = None,
    features: FeatureDataset | None = None,
    about: dict[str, Any] | None = None,
    spent: float = 0.0,
    stream: TextIO = sys.stdout,
) -> tuple[Parts, TrainState]:
    """Parts and state of a training at its first step. saved: the checkpoint that it will go on from. spent: seconds
    of work before the first step. UserError where something does not fit."""
    views = task.views(cfg.crop, model, spec)
    if cfg.stochastic_depth and not leave_out(model, cfg.stochastic_depth):
        raise UserError(f"stochastic_depth is for resnet and preact_resnet, not for {spec.model['name']}: leave it out")
    runtime.place(model)
    batch_size = choose_batch_size(cfg, model, spec, runtime, len(dataset.train), saved)
    loaded = place_images(features.dataset if features else dataset, data.cache_of(cfg.data.cache), runtime)
    if not saved and cfg.weights is None:
        fit_to_images(model, loaded, spec, runtime)
    if cfg.data.decode is Decoder.nvjpeg:
        runtime.check_decodes_jpeg()
    graphs = uses_graphs(cfg, runtime, task)
    keep = keeping(cfg, runtime)
    loading: dict[str, Any] = {
        "image_size": loaded.image_size if features else spec.input.image_size,
        "batch_size": batch_size,
        "workers": cfg.data.workers,
        "rank": runtime.group.rank,
        "world_size": runtime.group.size,
    }
    parts = Parts(
        cfg=cfg,
        runtime=runtime,
        task=task,
        dataset=dataset,
        spec=spec,
        directory=directory,
        batch_size=batch_size,
        lr=optim.scaled_lr(cfg.optim, batch_size),
        loaded=loaded,
        loading=loading,
        train_batches=data.train_loader(
            loaded,
            cfg.augment,
            seed=cfg.seed,
            decode=cfg.data.decode,
            device=runtime.device,
            sampler=cfg.data.sampler,
            record=partial(recorded_input, runtime) if graphs else None,
            keep=keep,
            **loading,
        ),
        val_batches=data.eval_loader(loaded.val, loaded, keep=keep, **loading),
        views=views,
        thaw_plan=freezing.thaw_plan(model, cfg.unfreeze_at),
        features=features,
        about=about or {},
        stream=stream,
    )
    state = start(parts, model)
    if graphs:
        state.recorded = recorded_step(state, batch_size)
    state.progress = Progress(seconds=spent, best=task.aim.worst)
    return parts, state


def start(parts: Parts, model: Net) -> TrainState:
    """State of a training at its first step."""
    cfg, runtime, features, spec = parts.cfg, parts.runtime, parts.features, parts.spec
    if cfg.ddp.sync_bn and not runtime.group.alone:
        if not runtime.syncs_batchnorm:
            raise UserError("ddp.sync_bn=true needs GPUs: on a CPU each process has BatchNorm of its own images")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    steps = len(parts.train_batches)
    total_steps = min(cfg.epochs * steps, cfg.max_steps or sys.maxsize)
    sizes = parts.train_batches.order.size
    return TrainState(
        model=model,
        ema=MovingAverage(model, cfg.ema) if cfg.ema else None,
        swa=None if cfg.swa is None else EpochAverage.after(model, cfg.swa, cfg.epochs),
        net=features.net if features else callable_net(cfg, model, runtime, parts.batch_size),
        task=parts.task,
        optimizer=optim.build_optimizer(model, cfg.optim, parts.batch_size, runtime.fused),
        schedule=build_schedule(cfg.schedule, total_steps, steps),
        plateau=plateau_of(cfg.schedule, parts.task.aim),
        runtime=runtime.for_steps(total_steps),
        normalize=runtime.to_device if features else Normalize(runtime, spec.input.mean, spec.input.std),
        seed=cfg.seed,
        accumulate=cfg.accumulate,
        clip=cfg.optim.clip,
        exchange=None if runtime.group.alone else Exchange(runtime.group, model, sizes),
    )


def callable_net(cfg: TrainConfig, model: Net, runtime: Runtime, batch_size: int) -> Callable[..., Any]:
    """The net as it is called in training. Made anew when other parameters begin to train."""
    wrapped = runtime.group.wrap(model, runtime.device, cfg.ddp.bucket_mb, cfg.ddp.compress)
    return Compiled(wrapped, batch_size // runtime.group.size, cfg.accumulate) if cfg.compile else wrapped


def thaw(parts: Parts, state: TrainState, epoch: int) -> list[str]:
    """Stages that begin to train once so many epochs are done. They train from now on."""
    begun = []
    for names in [names for after, names in parts.thaw_plan.items() if after <= epoch]:
        if new := freezing.thaw(state.model, names):
            state.add_parameters(optim.parameter_groups(state.model, parts.cfg.optim, parts.lr, new))
            begun += names
    if begun and state.exchange:
        state.net = callable_net(parts.cfg, state.model, parts.runtime, parts.batch_size)
    if begun and state.recorded:
        state.recorded.forget()
    return begun


def eval_net(parts: Parts, state: TrainState) -> Callable[[Tensor], Any]:
    """The net as it is called in validation: on features the head alone, unless a moving average is judged."""
    return parts.features.net if parts.features and not state.ema else state.eval_model


def place_images(dataset: data.Dataset, cache: Cache, runtime: Runtime) -> data.Dataset:
    """Data set with its images on the device, where they are in memory and leave room there for the training.

    Whole batches are then picked and augmented there, and nothing of them travels. UserError where that was asked for
    and cannot be.
    """
    sources = [source for source in (dataset.train, dataset.val) if isinstance(source, data.Arrays)]
    if all(source.images.device == runtime.device for source in sources):
        return dataset
    fits = has_room(sum(source.images.nbytes for source in sources), cache, runtime)
    return data.place_images(dataset, runtime.move) if fits else dataset


def has_room(size: int, cache: Cache, runtime: Runtime) -> bool:
    """Whether so many bytes of images are to lie on the device. UserError where that was asked for and cannot be."""
    fits = size <= runtime.free_memory() // 2
    if cache is Cache.device and not fits:
        raise UserError(
            f"data.cache=device: the images take {size / 2**30:.1f} GB, more than half of the memory that is free on "
            f"{runtime.name}"
        )
    return fits and cache is not Cache.host


def keeping(cfg: TrainConfig, runtime: Runtime) -> data.Keep:
    """Whether and where decoded images of files are kept for every epoch."""
    cache, beside = data.cache_of(cfg.data.cache), not runtime.shares_cores

    def place(images: Tensor) -> Tensor:
        return runtime.move(images) if beside and has_room(images.nbytes, cache, runtime) else images

    each = max(1, cores() // runtime.group.local_size)
    threads = each if cfg.data.workers is None else max(1, cfg.data.workers)
    return data.Keep(cache=cache, threads=threads, ahead=beside, processes=runtime.group.local_size, place=place)


def keep_images(parts: Parts, state: TrainState) -> None:
    """Decode the images that are kept in memory, and say how that went."""
    begin = time.perf_counter()
    for loader in (parts.train_batches, parts.val_batches):
        loader.fill(lambda text: say(text, parts.stream))
    state.progress.seconds += parts.runtime.group.broadcast(lambda: time.perf_counter() - begin)


def fit_to_images(model: Net, dataset: data.Dataset, spec: ModelSpec, runtime: Runtime) -> None:
    """Compute from some training images what of a new net follows from them; most nets have nothing of the kind."""
    if type(model).fit_to is Net.fit_to:
        return
    some = dataset.train.subset(data.evenly_spaced(dataset.train, FIT_IMAGES))
    batches = data.eval_loader(some, dataset, image_size=spec.input.image_size, batch_size=FIT_BATCH, workers=0)
    normalize = Normalize(runtime, spec.input.mean, spec.input.std)
    model.fit_to(normalize(batch["image"]) for batch in batches.epoch())


def choose_batch_size(
    cfg: TrainConfig, model: Net, spec: ModelSpec, runtime: Runtime, images: int, saved: dict[str, Any] | None
) -> int:
    """Batch size: the configured number, else the checkpoint's, else the largest that fits the device."""
    if isinstance(cfg.batch_size, int):
        return cfg.batch_size
    if saved:
        return int(saved["batch_size"])
    # Beyond a thousand images, or with few steps in an epoch, a larger batch makes the net worse, not faster.
    group, limit = runtime.group, max(1, min(1024, images // 10))
    size = spec.side
    pair = torch.zeros(2, spec.input.in_channels, size, size, device=runtime.device)
    each = estimate_largest_batch(model, pair, runtime, max(1, limit // group.size))
    return group.broadcast(lambda: each * group.size)
