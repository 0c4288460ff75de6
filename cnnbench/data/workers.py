"""Images read and transformed one by one, in worker processes.

A DataLoader does the work. This file adds three things: the data does not depend on the number of workers, a broken
file is named in one sentence, and workers neither die before the main process nor outlive it.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from cnnbench.data.jpeg import Decode
from cnnbench.data.shards import Packed
from cnnbench.data.sources import Files, Pair, Source, read_item, read_mask
from cnnbench.data.transforms import moved_together
from cnnbench.utils.errors import UserError

JOB_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class SampleReader:
    """Reads and transforms images one by one: here if `workers` is 0, else in that many processes, kept between epochs.

    The processes hold no part of the data set: each task names its items, two batches ahead. So memory does not grow
    with the number of files.
    """

    def __init__(self, source: Source, transform: Callable[..., Any], workers: int) -> None:
        self.source = source
        self.worker = _Worker(transform)
        self.tasks = _Tasks()
        self.pool = _pool(self.worker, self.tasks, workers) if workers else None
        self.stop: weakref.finalize[Any, Any] | None = None

    def __call__(self, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterator[Any]:
        tasks = _tasks(self.source, batches, seeds)
        for result in map(self.worker.__getitem__, tasks) if self.pool is None else self._pooled(self.pool, tasks):
            if isinstance(result, UserError):
                raise result
            yield result

    def _pooled(self, pool: DataLoader[Any], tasks: Iterable[Any]) -> Iterator[Any]:
        self.tasks.current = tasks
        with _no_main_module(), _as_many_as_asked():
            results: Any = iter(pool)
        if self.stop is None:
            # The iterator is part of a reference cycle, and would shut down only after its queues are gone. At exit,
            # multiprocessing would send SIGTERM, which workers block, and wait for them for ever.
            self.stop = weakref.finalize(self, results._shutdown_workers)
            atexit.register(self.stop)
        try:
            yield from results
        except (RuntimeError, OSError, EOFError) as error:
            if "Caught" in str(error):  # raised in a worker that lives: an error of this program, not of the user
                raise
            raise UserError(KILLED) from None


KILLED = (
    "a process that reads images was killed, probably for lack of memory (or of shared memory, /dev/shm).\n"
    "Try a smaller data.workers, or data.workers=0."
)
NO_SHARED_MEMORY = (
    "the shared memory (/dev/shm) is full: the processes that read images pass them through it.\n"
    "Free some of it, or try a smaller batch_size or data.workers, or data.workers=0."
)
FEW = 64  # images that are read faster than processes start
CHUNK = 16  # items that a process of `parallel_map` gets at a time


def for_each_image(function: Callable[[Any], Any], source: Files | Packed, workers: int, what: str) -> Iterator[Any]:
    """Results of function(item) for each image, in order, with a bar on the terminal. Few images are read in this
    process.

    what: name of the bar.
    """
    found = parallel_map(function, map(source.item, range(len(source))), workers if len(source) > FEW else 0)
    yield from tqdm(found, total=len(source), desc=what, unit="image", leave=False, file=sys.stderr,
                    disable=not sys.stderr.isatty())  # fmt: skip


def parallel_map(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Results of function(item), in order: computed here if `workers` is 0, else in that many processes, a few ahead.

    Errors of the function are raised here. UserError where a process is killed.
    """
    if workers == 0:
        yield from map(function, items)
        return
    _start_fork_server()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, _let_end) as pool:
        remaining, waiting = iter(items), deque[Future[list[Any]]]()
        try:
            while True:
                while len(waiting) < 4 * workers and (chunk := list(islice(remaining, CHUNK))):
                    with _no_main_module():
                        waiting.append(pool.submit(_each, function, chunk))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(KILLED) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _each(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def _let_end() -> None:
    """Let SIGTERM end a process of `parallel_map`: the pool sends it to the others when one was killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _watch_parent(0)


def _tasks(source: Source, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterator[list[tuple[Any, int]]]:
    for indices, own in zip(batches, seeds, strict=True):
        yield [(source.item(index), seed) for index, seed in zip(indices.tolist(), own.tolist(), strict=True)]


class _Tasks:
    """Sampler of the DataLoader: the tasks of the current epoch."""

    current: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.current)


class _Worker(TorchDataset[Any]):
    """Work of a process: a task (item and seed of each image of a batch) -> uint8 (N, C, S, S), or a list of such
    tensors where the transform gives a list.

    A UserError is returned, not raised: the DataLoader would wrap it in the worker's traceback.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def __getitem__(self, task: list[tuple[Any, int]]) -> "Tensor | list[Tensor] | UserError":
        try:
            samples = [self._sample(item, seed) for item, seed in task]
        except UserError as error:
            return error
        several = isinstance(samples[0], list)
        batch = [torch.stack(parts) for parts in (zip(*samples, strict=True) if several else [samples])]
        if get_worker_info() is not None:
            try:
                for tensor in batch:  # here: the thread that sends it would lose it, and the training wait for ever
                    tensor.share_memory_()
            except RuntimeError:
                return UserError(NO_SHARED_MEMORY)
        return batch if several else batch[0]

    def _sample(self, item: Any, seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):  # in the main process, dropout's random numbers must not change
            torch.default_generator.manual_seed(seed)
            if isinstance(item, Pair):
                return moved_together(self.transform, read_item(item.image), read_mask(item.mask))
            return self.transform(item if isinstance(self.transform, Decode) else read_item(item))


def _pool(worker: _Worker, tasks: _Tasks, workers: int) -> DataLoader[Any]:
    """DataLoader whose processes come from a fork server: to fork this one, with threads and a GPU, is unsafe."""
    _start_fork_server()
    with _as_many_as_asked():
        return DataLoader(
            worker,
            batch_size=None,
            sampler=tasks,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_watch_parent,
            multiprocessing_context="forkserver",
            generator=torch.Generator(),  # else it would draw from the global generator, and change the run's results
            persistent_workers=True,
        )


def _start_fork_server() -> None:
    """Start the fork server, which imports torch while this process builds the net.

    The server and the workers block the signals that a terminal or a scheduler sends to all processes of a job: the
    main process finishes its step, saves, and ends them.
    """
    multiprocessing.set_forkserver_preload(["cnnbench.data.preloaded", "torchvision.transforms.v2"])
    resource_tracker.ensure_running()  # if the fork server started it, the signals would be unblocked again
    ours = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)


@contextmanager
def _as_many_as_asked() -> Iterator[None]:
    """Silence torch's warning that there are more workers than cores."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def _unchanged(batch: Any) -> Any:
    return batch


def _watch_parent(_: int) -> None:
    """End a worker when the main process is gone, even by kill -9. (torch watches its parent, the fork server.)"""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the user's script, which workers would otherwise run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
