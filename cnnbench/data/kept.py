"""`data.cache`: images of files that are decoded once, by threads, and kept in memory for every epoch.

What a net sees has the bits that it has without: `twofold.py` splits a transform into what is done once and what is
drawn anew. Where all that is kept has one size (validation; training images that are shifted and mirrored) it is one
tensor, which lies on the training device, and whole batches are picked from it. Else each image has its own pixels in
main memory, of which the crops are cut.

One thread for each core decodes and cuts, and each computes alone. Where the net computes on a CPU they cut while it
waits, so that nothing fights for a core; beside a GPU they are batches ahead. Images that take less than half a
millisecond are decoded by one thread: several would wait for Python's lock (docs/benchmarks.md has what was measured).
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.config.sections import Cache
from cnnbench.data.sources import Arrays, Source, quiet_pillow
from cnnbench.data.twofold import Prepared, Shift, Twofold
from cnnbench.data.windows import pad, window
from cnnbench.utils import console, system
from cnnbench.utils.errors import UserError
from cnnbench.utils.fast_start import compute_alone
from cnnbench.utils.format import byte_size, plural

SHARE = 0.5  # of the memory that is free may be filled
UNKNOWN = 4 * 2**30  # bytes that are taken as free where the system does not say
TRIED = 32  # images from which the memory for all is estimated
WARM, LONG = 4, 0.0005  # images that are timed, seconds; docs/benchmarks.md has what was measured
CHUNK = 16  # images that a thread decodes at a time

Reader = Callable[[list[Tensor], list[np.ndarray]], Iterable[Any]]
"""(Indices of each batch, a seed for each of its images) -> images of each batch, or [images, masks]."""


def cache_of(value: bool | str) -> Cache:
    """`data.cache` as it is written in YAML and on the command line, where true and false are no text."""
    name = str(value).lower() if isinstance(value, bool) else value
    if name not in Cache.__members__:
        raise UserError(f"data.cache={name}: give one of {', '.join(Cache.__members__)}")
    return Cache[name]


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Whether and where the decoded images of files are kept."""

    cache: Cache
    threads: int  # that decode
    ahead: bool = False  # whether threads cut crops while the net computes, since it does so elsewhere
    processes: int = 1  # on this machine, each with images of its own
    place: Callable[[Tensor], Tensor] = lambda images: images  # to the training device, where there is room

    @property
    def asked(self) -> bool:
        """Whether it is a mistake that images are not kept."""
        return self.cache in (Cache.true, Cache.device)

    def budget(self) -> float:
        """Bytes of main memory that the images of a loader may fill."""
        free = system.free_memory()
        return SHARE * (UNKNOWN if free is None else free) / self.processes


class Kept:
    """Reader of a loader whose images are kept in memory. Where they do not fit, `otherwise` makes one that decodes
    them anew each time.

    used: numbers of the images that this process reads, a range. what: which images, for messages.
    """

    def __init__(self, keep: Keep, source: Source, transform: Twofold, used: range, what: str,
                 otherwise: Callable[[], Reader]) -> None:  # fmt: skip
        self.keep, self.transform, self.used, self.otherwise = keep, transform, used, otherwise
        self.source = source  # of the batches; once filled, the images in memory where they are one tensor
        self.name = plural(len(used), f"{what} image")
        self.threads = keep.threads
        self.read: Reader | None = None

    def __call__(self, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterable[Any]:
        assert self.read is not None
        return self.read(batches, seeds)

    def fill(self, tell: Callable[[str], object] = lambda text: None) -> Source:
        """Source of the batches, after all images are decoded; how that went is told once. UserError for an image that
        cannot be read, and where they do not fit but were to be kept."""
        if self.read is None:
            try:
                self.read, text = self._filled()
            except (MemoryError, RuntimeError) as error:  # torch has no class for the memory of a CPU
                if isinstance(error, RuntimeError) and "alloc" not in str(error):
                    raise
                self.read, text = self._refused("than the system gives")
            tell(f"data.cache: {text}")
        return self.source

    def _filled(self) -> tuple[Reader, str]:
        begin, count, budget = time.perf_counter(), len(self.used), self.keep.budget()
        tried = [self.used[number] for number in np.linspace(0, count - 1, min(TRIED, count)).astype(int).tolist()]
        self.threads = self.keep.threads if self._takes_long(tried[:WARM]) else 1
        some = list(self._each(self._once, tried, shown=False))
        needed = sum(one.nbytes for one in some) / len(some) * count
        if needed > budget:
            return self._refused(f"than the {byte_size(budget)} that may be filled: {byte_size(needed)}")
        kept = self._one_tensor(some[0], self.transform.shift) if self.transform.shift else self._pieces(budget)
        if kept is None:
            return self._refused(f"than the {byte_size(budget)} that may be filled")
        seconds, several = time.perf_counter() - begin, self.keep.processes > 1
        each = f" in each of {self.keep.processes} processes" if several else ""
        return kept[0], (
            f"{self.name} decoded once, in {seconds:.1f} s, and kept: {byte_size(kept[1])} of memory{each}, where "
            f"{byte_size(budget)} may be filled"
        )

    def _takes_long(self, some: Sequence[int]) -> bool:
        """Whether to decode an image takes so long that threads are of use: with less, they wait for Python's lock."""
        shortest = math.inf
        for index in some:
            begin = time.perf_counter()
            self._once(index)
            shortest = min(shortest, time.perf_counter() - begin)
        return shortest > LONG

    def _refused(self, why: str) -> tuple[Reader, str]:
        text = f"{self.name} need more memory {why}"
        if self.keep.asked:
            raise UserError(f"data.cache={self.keep.cache.value}: {text}\nUse data.cache=auto, which decodes them anew "
                            "in each epoch, a smaller data.image_size or data.fraction.")  # fmt: skip
        return self.otherwise(), f"{text}; they are decoded anew in each epoch"

    def _once(self, index: int) -> Prepared:
        return self.transform.once(self.source.item(index))

    def _each(self, work: Callable[[int], Any], numbers: Sequence[int], shown: bool = True) -> Iterator[Any]:
        """Results of work(number), in order, by threads, with a bar on the terminal."""
        silent = console.silent or not sys.stderr.isatty() or not shown
        with (
            tqdm(total=len(numbers), desc=f"decode {self.name}", leave=False, file=sys.stderr, disable=silent) as bar,
            quiet_pillow(),
            ThreadPoolExecutor(self.threads, initializer=compute_alone) as pool,
        ):
            chunks = (numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK))
            for found in in_order(pool, lambda some: list(map(work, some)), chunks, 4 * self.threads):
                bar.update(len(found))
                yield from found

    def _one_tensor(self, first: Prepared, shift: Shift) -> tuple[Reader, int]:
        """The images as one tensor, on the training device where there is room."""
        images = torch.empty(len(self.used), *first.parts[0].shape, dtype=torch.uint8)

        def fill(index: int) -> None:
            images[index - self.used.start] = self._once(index).parts[0]

        for _ in self._each(fill, self.used):
            pass
        placed = self.keep.place(images)
        self.source = Arrays(placed, self.source.targets.to(placed.device))
        return Batches(placed, self.used.start, shift), images.nbytes

    def _pieces(self, budget: float) -> tuple[Reader, int] | None:
        """The images one by one. None where they turn out to be too large."""
        if self.keep.cache is Cache.device and self.keep.ahead:
            raise UserError(f"data.cache=device: of {self.name} crops of many sizes are cut, in main memory alone: "
                            "use data.cache=true")  # fmt: skip
        found, filled = list[Prepared](), 0
        for one in self._each(self._once, self.used):
            found.append(one)
            filled += one.nbytes
            if filled > budget:
                return None
        return Pieces(found, self.used.start, self.transform, self.keep.threads, self.keep.ahead), filled


@dataclass(frozen=True, eq=False)
class Batches:
    """Reads whole batches from images of one size, uint8 (N, C, H, W): shifted and mirrored where they are to be."""

    images: Tensor
    start: int  # number of the first
    shift: Shift

    def __call__(self, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterator[Tensor]:
        for indices, own in zip(batches, seeds, strict=True):
            picked = self.images[indices - self.start]
            yield self._shifted(picked, own) if self.shift != Shift() else picked

    def _shifted(self, images: Tensor, seeds: np.ndarray) -> Tensor:
        draws = torch.tensor(drawn(seeds, lambda number: self.shift.draw())).to(images.device)
        padded = pad(images, self.shift.padding, self.shift.mode)
        down, right, flip = draws.unbind(1)
        return window(padded, down, right, flip, *images.shape[2:])


class Pieces:
    """Reads images of many sizes, of which threads make those of a batch: while the net waits, or (ahead) batches ahead
    of it."""

    def __init__(self, images: list[Prepared], start: int, transform: Twofold, threads: int, ahead: bool) -> None:
        self.images, self.transform, self.threads, self.ahead = images, transform, threads, ahead
        self.start = start  # number of the first image
        self.pool = ThreadPoolExecutor(threads, initializer=compute_alone)

    def __call__(self, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterator[Any]:
        tasks = (self._tasks(indices, own) for indices, own in zip(batches, seeds, strict=True))
        if self.ahead:
            return in_order(self.pool, lambda own: stacked(self._made(own)), tasks, self.threads + 1)
        return map(self._shared, tasks)

    def _tasks(self, indices: Tensor, seeds: np.ndarray) -> list[tuple[Prepared, Any]]:
        chosen = [self.images[index - self.start] for index in indices.tolist()]
        return list(zip(chosen, drawn(seeds, lambda number: self.transform.draw(chosen[number])), strict=True))

    def _made(self, tasks: list[tuple[Prepared, Any]]) -> list[Any]:
        return [self.transform.anew(image, draws) for image, draws in tasks]

    def _shared(self, tasks: list[tuple[Prepared, Any]]) -> Any:
        """Images of a batch, made by all threads."""
        each = -(-len(tasks) // self.threads)
        parts = in_order(self.pool, self._made, (tasks[n : n + each] for n in range(0, len(tasks), each)), len(tasks))
        return self.pool.submit(stacked, [image for part in parts for image in part]).result()


def stacked(images: list[Any]) -> Any:
    """Images of a batch as one tensor; or, of images with masks, as a tensor of each."""
    if isinstance(images[0], list):
        return [torch.stack(parts) for parts in zip(*images, strict=True)]
    return torch.stack(images)


def drawn(seeds: np.ndarray, draw: Callable[[int], Any]) -> list[Any]:
    """What is drawn for each image of a batch, from torch's generator with the image's own seed."""
    found = []
    with torch.random.fork_rng(devices=[]):  # the run's own random numbers must not change
        for number, seed in enumerate(seeds.tolist()):
            torch.default_generator.manual_seed(seed)
            found.append(draw(number))
    return found


def in_order(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """`map` in the threads of a pool, in order, with so many items begun. What is not begun is dropped when the reader
    stops or an error comes."""
    begun = deque[Future[Any]]()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for one in begun:
            one.cancel()
