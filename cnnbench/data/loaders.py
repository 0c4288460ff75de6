"""Batches of uint8 images for a net. What is in them depends on (seed, epoch, index) alone.

Not on the batch size, on the number of worker processes, on the rank, or on where in the epoch one starts: every
epoch's order and random numbers come from a table with a row per image, so a resumed run skips ahead in it for free.
"""

import os
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cnnbench.config import AugmentConfig, Crop
from cnnbench.data.sources import Arrays, Dataset, Files, Source, read_item
from cnnbench.data.transforms import BatchTransform, Transform, check_augment, eval_transform, sample_transform
from cnnbench.errors import UserError

Batch = tuple[Tensor, Tensor]
"""uint8 images (N, C, S, S) and int64 targets (N,)."""

Reader = Callable[[list[Tensor], np.ndarray], Iterable[Tensor]]
"""Indices of each batch, and a seed for each image of the source -> the batches' images."""


def train_loader(
    dataset: Dataset,
    augment: AugmentConfig,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int | None,
    rank: int = 0,
    world_size: int = 1,
) -> "Loader":
    """Shuffled, augmented batches of the training images.

    batch_size counts the images of one optimizer step over all ranks; each rank gets its share, so that any number
    of ranks sees the same steps. The last, smaller batch of an epoch is kept, but cut to a multiple of world_size (all
    ranks then weigh the same) and dropped if it leaves a rank with a single image, which BatchNorm cannot take.
    """
    source, ratio = dataset.train, dataset.crop_ratio
    order = Order(len(source), batch_size, seed=seed, rank=rank, world_size=world_size)
    native = dataset.image_size if isinstance(source, Arrays) else None
    check_augment(augment, image_size, ratio, native)
    fill = torch.tensor([round(255 * mean) for mean in dataset.mean], dtype=torch.uint8)
    if isinstance(source, Arrays) and augment.crop in (Crop.none, Crop.pad) and augment.color == 0:
        padding = augment.padding if augment.crop is Crop.pad else 0
        resize = _array_resize(source, image_size, ratio)
        finish = BatchTransform(
            size=image_size, padding=padding, flip=augment.flip, resize=resize, cutout=augment.cutout, fill=fill
        )
        return Loader(source, order, _read_arrays(source), finish)
    transform = sample_transform(augment, image_size, ratio, native)
    finish = BatchTransform(size=image_size, cutout=augment.cutout, fill=fill)
    return Loader(source, order, SampleReader(source, transform, _workers(workers, source)), finish)


def eval_loader(
    source: Source,
    dataset: Dataset,
    *,
    image_size: int,
    batch_size: int,
    workers: int | None,
    rank: int = 0,
    world_size: int = 1,
) -> "Loader":
    """Every image of the source once, in order; each rank gets a stretch of it, in batches of batch_size."""
    order = Order(len(source), batch_size, seed=None, rank=rank, world_size=world_size)
    if isinstance(source, Arrays):
        resize = _array_resize(source, image_size, dataset.crop_ratio)
        return Loader(source, order, _read_arrays(source), BatchTransform(size=image_size, resize=resize))
    transform = eval_transform(image_size, dataset.crop_ratio)
    reader = SampleReader(source, transform, _workers(workers, source))
    return Loader(source, order, reader, BatchTransform(size=image_size))


@dataclass(frozen=True)
class Order:
    """Which images make up which batch. With a seed: shuffled anew each epoch, for training; without: as they are."""

    count: int
    batch_size: int
    seed: int | None
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.seed is not None and self.batch_size % self.world_size:
            raise UserError(f"batch_size={self.batch_size} cannot be shared evenly by {self.world_size} processes.")
        if self.seed is not None and self.count < self.world_size:
            raise UserError(f"{self.count} training images are too few for {self.world_size} processes.")

    def __len__(self) -> int:
        """Batches per epoch, the same in every epoch."""
        return len(range(self.count)[self._used()][:: self.batch_size])

    def batches(self, epoch: int) -> list[Tensor]:
        """This rank's indices, batch by batch."""
        if self.seed is None:
            mine = torch.arange(self.count)[self._used()]
            return [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]
        order = torch.from_numpy(_rng(self.seed, epoch, 0).permutation(self.count))[self._used()]
        return [step.chunk(self.world_size)[self.rank] for step in torch.split(order, self.batch_size)]

    def _used(self) -> slice:
        """The images in the batches: for training those of all ranks, in the epoch's order; else this rank's own."""
        if self.seed is None:
            return slice(self.count * self.rank // self.world_size, self.count * (self.rank + 1) // self.world_size)
        full, rest = divmod(self.count, self.batch_size)
        share = rest // self.world_size
        if share == 1 and full > 0:
            share = 0
        return slice(0, full * self.batch_size + share * self.world_size)


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """Independent generators for the order (stream 0) and the augmentation (1) of each epoch of each run."""
    return np.random.default_rng((seed, epoch, stream))


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of one source; `len()` of them in every epoch. One epoch is read at a time."""

    source: Source
    order: Order
    read: Reader
    finish: BatchTransform

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `start` on; those before it cost nothing. UserError names a broken file."""
        batches = self.order.batches(epoch)[start:]
        rng = _rng(self.order.seed or 0, epoch, 1)
        draws = self.finish.draw(rng, len(self.source))
        seeds = rng.integers(2**32, size=len(self.source))
        for indices, images in zip(batches, self.read(batches, seeds), strict=True):
            yield self.finish(images, draws[indices]), self.source.targets[indices]


def _read_arrays(source: Arrays) -> Reader:
    return lambda batches, seeds: (source.images[indices] for indices in batches)


def _array_resize(source: Arrays, size: int, crop_ratio: float) -> Transform | None:
    if source.images.shape[2:] == (size, size) and round(size / crop_ratio) == size:
        return None
    return eval_transform(size, crop_ratio)


def _workers(workers: int | None, source: Source) -> int:
    """By default a process per core, but none for so few images that starting it takes longer than reading them."""
    if workers is not None:
        return workers
    few = 64 if isinstance(source, Files) else 10_000
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if len(source) <= few else cores


class SampleReader:
    """Reads and transforms images one by one: here if `workers` is 0, else in that many processes, kept between epochs.

    The processes hold no part of the data set: what to read comes with each task, two batches ahead of need, so memory
    does not grow with the number of files.
    """

    def __init__(self, source: Source, transform: Transform, workers: int) -> None:
        self.source = source
        self.worker = _Worker(transform)
        self.tasks = _Tasks()
        self.pool: DataLoader[Any] | None = None
        self.workers = workers

    def __call__(self, batches: list[Tensor], seeds: np.ndarray) -> Iterator[Tensor]:
        tasks = ([(self.source.item(i), int(seeds[i])) for i in indices.tolist()] for indices in batches)
        for result in self._pooled(tasks) if self.workers else map(self.worker.__getitem__, tasks):
            if isinstance(result, UserError):
                raise result
            yield result

    def _pooled(self, tasks: Iterable[Any]) -> Iterator[Any]:
        self.tasks.current = tasks
        with _no_main_module(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, as asked for
            self.pool = self.pool or _pool(self.worker, self.tasks, self.workers)
            results = iter(self.pool)
        try:
            yield from results
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                "a process that reads images was killed, mostly for lack of memory (or of shared memory, /dev/shm).\n"
                "Try a smaller data.workers, or data.workers=0."
            ) from None


class _Tasks:
    """The DataLoader's sampler: whatever the current epoch's tasks are."""

    current: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.current)


class _Worker(TorchDataset[Any]):
    """What runs in a worker: a task (item and seed of each image of a batch) -> uint8 (N, C, S, S).

    A UserError is returned, not raised: the DataLoader would wrap it in the worker's traceback.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __getitem__(self, task: list[tuple[Any, int]]) -> "Tensor | UserError":
        try:
            return torch.stack([self._sample(item, seed) for item, seed in task])
        except UserError as error:
            return error

    def _sample(self, item: Any, seed: int) -> Tensor:
        image = read_item(item)
        with torch.random.fork_rng(devices=[]):  # in the main process, dropout's random numbers must not notice
            torch.default_generator.manual_seed(seed)
            return self.transform(image)


def _pool(worker: _Worker, tasks: _Tasks, workers: int) -> DataLoader[Any]:
    """Processes from a fork server: to fork this one, with its threads and its GPU, is unsafe and warned of."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision.transforms.v2", "cnnbench.data.loaders"])
    return DataLoader(
        worker,
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_signals,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else it would draw from the generator that the run's results depend on
        persistent_workers=True,
    )


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_signals(_: int) -> None:
    """Ctrl-C and a scheduler's signals reach the whole group: it is the main process that saves, then ends us."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Workers need nothing of the user's script; without this they would run it again, guarded or not."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
