"""Batches of uint8 images for a net. An image and its augmentation depend on (seed, epoch, index) alone.

They do not depend on the batch size, the number of worker processes, the rank or the first step: the order and the
random numbers of an epoch are a table with a row for each image. So a resumed run skips ahead at no cost.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Cache, Crop, Decoder, Policy, Sampler
from cnnbench.data import boxes
from cnnbench.data.augment import (
    MASKS,
    array_resize,
    batch_transform,
    batchable,
    erase_of,
    mixing_of,
    warp_of,
)
from cnnbench.data.batched import BatchTransform, Draws
from cnnbench.data.kept import Keep, Kept, Reader
from cnnbench.data.mixing import Mixing
from cnnbench.data.nvjpeg import BatchDecoder
from cnnbench.data.order import Order, first_flips, rng_of
from cnnbench.data.sources import Arrays, Dataset, Source, has_boxes, has_spatial_targets
from cnnbench.data.transforms import (
    EvalTransform,
    check_augment,
    decode_transform,
    sample_transform,
    whole,
)
from cnnbench.data.twofold import in_two
from cnnbench.data.views import Groups, ViewTransform
from cnnbench.data.workers import SampleReader
from cnnbench.utils.errors import UserError
from cnnbench.utils.system import cores

Batch = dict[str, Any]
"""image: uint8 (N, C, S, S); target: int64 (N,), soft targets float32 (N, classes) where images are mixed, masks uint8
(N, S, S), or tables of boxes, float32 (N, rows, 7); index: int64 (N,), the images' numbers.

Where the data set has a `pair`, image and target are what it makes of them."""

Pick = Callable[..., tuple[Tensor, Any]]
"""(Indices of a batch, the tensors of its `Draws`) -> its images and targets."""


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
    decode: Decoder = Decoder.auto,
    device: torch.device | None = None,
    sampler: Sampler = Sampler.shuffle,
    keep: Keep | None = None,
    record: Callable[[Pick, int], Pick] | None = None,
) -> "Loader":
    """Loader of shuffled, augmented batches of the training images.

    batch_size counts the images of one optimizer step over all ranks. Each rank gets its share, so the steps are the
    same for any number of ranks. The last, smaller batch of an epoch is kept; the shares of the ranks differ by at most
    one image. It is dropped where a rank would have a single image, which BatchNorm cannot take.

    device: where decode=nvjpeg decodes, and where the images stay. keep: whether images of files are decoded once.
    record: takes the function that picks and augments a batch of images in memory, and how many it picks, and gives
    back the one that does it.
    """
    source, ratio = dataset.train, dataset.crop_ratio
    targets = _one_class_each(dataset) if sampler is Sampler.balanced else None
    mixing = mixing_of(augment, dataset)
    order = Order(len(source), batch_size, seed=seed, rank=rank, world_size=world_size, balance=targets,
                  followed=mixing is not None)  # fmt: skip
    native = dataset.image_size if isinstance(source, Arrays) else None
    fill = torch.tensor([round(255 * mean) for mean in dataset.mean], dtype=torch.uint8)
    if has_boxes(source):
        boxes.check_augment(augment)
        if keep is not None and keep.asked:
            raise UserError(f"data.cache={keep.cache.value}: images with boxes are decoded anew in each epoch, as "
                            "their crops move the boxes: leave data.cache out")  # fmt: skip
        moved = boxes.BoxTransform(image_size, dataset.interpolation, augment, tuple(fill.tolist()))
        cut = BatchTransform(size=image_size, cutout=augment.cutout, erase=erase_of(augment), fill=fill)
        return Loader(source, order, SampleReader(source, moved, _workers(workers, source)), cut, dataset)
    check_augment(augment, image_size, ratio, native)
    if augment.policy is not Policy.none and has_spatial_targets(source):
        raise UserError(f"augment.policy={augment.policy.value} moves no masks: use augment.rotate, color and blur")
    if isinstance(source, Arrays) and batchable(augment, dataset):
        finish = batch_transform(source, augment, image_size, dataset, fill.to(source.images.device))
        return Loader(source, order, _read_arrays(source), finish, dataset, mixing, record)
    alternate = augment.alternate
    finish = BatchTransform(size=image_size, flip=alternate, alternate=alternate, turn=augment.turn,
                            flip_vertical=augment.flip_vertical, cutout=augment.cutout, erase=erase_of(augment),
                            fill=fill, warp=warp_of(augment))  # fmt: skip
    if isinstance(source, Arrays) or decode is Decoder.pillow:
        transform: Any = sample_transform(augment, image_size, ratio, native, dataset.interpolation, dataset.grid)
    elif has_spatial_targets(source) or augment.crop is Crop.patch:
        transform = sample_transform(augment, image_size, ratio, None, dataset.interpolation, dataset.grid)
    else:
        transform = decode_transform(augment, image_size, ratio, dataset.interpolation)
        if decode is Decoder.nvjpeg and device is not None:
            decoder = BatchDecoder(source, transform, _workers(workers, source), device)
            return Loader(source, order, decoder, finish, dataset, mixing)
    reader = _reader(source, transform, workers, keep, range(len(source)), "training")
    return Loader(source, order, reader, finish, dataset, mixing)


def _reader(source: Source, transform: Any, workers: int | None, keep: Keep | None, used: range, what: str) -> Reader:
    """Reader of images one by one, from memory where they are to be kept there."""

    def anew() -> Reader:
        return SampleReader(source, transform, _workers(workers, source))

    if keep is None or keep.cache is Cache.false or isinstance(source, Arrays) or not used:
        return anew()
    return Kept(keep, source, in_two(transform, has_spatial_targets(source)), used, what, anew)


def _one_class_each(dataset: Dataset) -> np.ndarray:
    if has_spatial_targets(dataset.train):
        raise UserError(f"data.sampler=balanced needs images of one class each, which {dataset.name} has not")
    targets: np.ndarray = dataset.train.targets.cpu().numpy()
    return targets


def eval_loader(
    source: Source,
    dataset: Dataset,
    *,
    image_size: int,
    batch_size: int,
    workers: int | None,
    rank: int = 0,
    world_size: int = 1,
    keep: Keep | None = None,
) -> "Loader":
    """Loader of every image of the source once, in order. Each rank gets a contiguous part of them.

    Of whole images in files, whose sizes differ, a batch has one. keep: whether those of files are decoded once.
    """
    if dataset.whole:
        return _whole_loader(source, dataset, batch_size, workers, rank, world_size, keep)
    order = Order(len(source), batch_size, seed=None, rank=rank, world_size=world_size)
    if has_boxes(source):
        squashed = SampleReader(
            source, boxes.BoxTransform(image_size, dataset.interpolation), _workers(workers, source)
        )
        return Loader(source, order, squashed, BatchTransform(size=image_size), dataset)
    if isinstance(source, Arrays):
        images = array_resize(source, image_size, dataset)
        masks = array_resize(source, image_size, replace(dataset, interpolation=MASKS))
        finish = BatchTransform(size=image_size, resize=images, resize_mask=masks)
        return Loader(source, order, _read_arrays(source), finish, dataset)
    transform = EvalTransform(image_size, dataset.crop_ratio, dataset.interpolation)
    reader = _reader(source, transform, workers, keep, order.part, "validation")
    return Loader(source, order, reader, BatchTransform(size=image_size), dataset)


def _whole_loader(source: Source, dataset: Dataset, batch_size: int, workers: int | None, rank: int,
                  world_size: int, keep: Keep | None) -> "Loader":  # fmt: skip
    each = batch_size if isinstance(source, Arrays) else 1
    order = Order(len(source), each, seed=None, rank=rank, world_size=world_size)
    read = (
        _read_arrays(source)
        if isinstance(source, Arrays)
        else _reader(source, whole, workers, keep, order.part, "validation")
    )
    return Loader(source, order, read, BatchTransform(size=1), dataset)


def view_batches(
    source: Source,
    transform: ViewTransform,
    *,
    batch_size: int,
    workers: int | None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Groups, Tensor]]:
    """Views of every image of the source, in order: groups (N, V, C, H, W) and targets (N,). Each image is read once.

    Each rank gets a contiguous part of the images. Views of one image stay together: N is 1 where batch_size is smaller
    than their number, and where the views keep the shape of the image, which differs between files.
    """
    ragged = transform.ragged and not isinstance(source, Arrays)
    images = 1 if ragged else max(1, batch_size // transform.count)
    batches = Order(len(source), images, seed=None, rank=rank, world_size=world_size).batches(0)
    if isinstance(source, Arrays):
        read: Iterable[Groups] = (transform(source.images[indices]) for indices in batches)
    else:
        seeds = [np.zeros(len(indices), np.int64) for indices in batches]
        read = SampleReader(source, transform, _workers(workers, source))(batches, seeds)
    for indices, groups in zip(batches, read, strict=True):
        yield groups, source.targets[indices]


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of one source, `len()` of them in every epoch. Epochs are read one at a time."""

    source: Source
    order: Order
    read: Reader
    finish: BatchTransform
    dataset: Dataset
    mixing: Mixing | None = None
    record: Callable[[Pick, int], Pick] | None = None  # of images in memory

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from number `start` on; skipped ones cost nothing. UserError naming a broken file."""
        source = self.fill()
        batches, rows = self.order.batches(epoch)[start:], self.order.rows(epoch)[start:]
        rng = rng_of(self.order.seed or 0, epoch, 1)
        draws = self.finish.draw(rng, len(self.source))
        if self.finish.alternate:
            draws.whole[:, 2] = (first_flips(self.order.seed or 0, len(self.source)) + epoch) % 2
        table = rng.integers(2**32, size=len(self.source))
        if self.mixing is not None:
            draws = draws._replace(mix=self.mixing.draw(rng, len(self.source)))
        seeds = [table[row.numpy()] for row in rows]
        if isinstance(source, Arrays):  # the indices go to the images' device once in an epoch
            device = source.images.device
            batches, rows = ([one.to(device) for one in part] for part in (batches, rows))
            draws = draws.to(device)
        if self.record is not None:
            for indices, row in zip(batches, rows, strict=True):
                images, targets = self._recorded(indices, *draws.rows(row))
                yield {"image": images, "target": targets, "index": indices[: len(images)]}
            return
        for indices, row, read in zip(batches, rows, self.read(batches, seeds), strict=True):
            images, targets = self._finished(source, read, indices, draws.rows(row))
            yield {"image": images, "target": targets, "index": indices[: len(images)]}

    def fill(self, tell: Callable[[str], object] = lambda text: None) -> Source:
        """Source of the batches, whose images are decoded now where they are to be kept; `tell` is told of it."""
        return self.read.fill(tell) if isinstance(self.read, Kept) else self.source

    @cached_property
    def _recorded(self) -> Pick:
        assert self.record is not None
        return self.record(self._pick, self.order.batch_size + self.order.followed)

    def _pick(self, indices: Tensor, *draws: Tensor) -> tuple[Tensor, Any]:
        (read,) = self.read([indices], [])
        return self._finished(self.source, read, indices, Draws(*draws))

    def _finished(self, source: Source, read: Any, indices: Tensor, draws: Draws) -> tuple[Tensor, Any]:
        if has_boxes(source):
            images, targets = self.finish(read[0], draws), read[1]
        elif has_spatial_targets(source):
            images, targets = self.finish(read[0], draws), self.finish.masks(read[1], draws)
        else:
            images, targets = self.finish(read, draws), source.targets[indices]
        if self.mixing is not None:
            images, targets = self.mixing(images, targets, draws.mix[:-1], len(self.dataset.classes))
        if self.dataset.pair is not None:
            images, targets = self.dataset.pair(images, targets)
        return images, targets


def _read_arrays(source: Arrays) -> Reader:
    if has_spatial_targets(source):
        return lambda batches, seeds: ([source.images[indices], source.targets[indices]] for indices in batches)
    return lambda batches, seeds: (source.images[indices] for indices in batches)


def _workers(workers: int | None, source: Source) -> int:
    """Number of worker processes: by default one per core, but none for few images, which are read faster than that.

    Measured where a CPU trains on JPEG files (docs/benchmarks.md): on two cores two processes read as fast as none, and
    faster than one; on one core none is faster than one.
    """
    if workers is not None:
        return workers
    few = 10_000 if isinstance(source, Arrays) else 64
    return 0 if len(source) <= few or cores() == 1 else cores()
