"""Process group of a training: rendezvous, broadcast, all-reduce, and errors of other processes.

This is all of torch.distributed that cnnbench needs. A single process runs the same code in a group of size 1.
"""

import atexit
import inspect
import json
import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import FileStore, PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cnnbench.runtime import processes
from cnnbench.runtime.processes import ProcessInfo
from cnnbench.utils import console
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.fast_start import spare_compiler

MEET = 60  # seconds that a process waits for the others at the rendezvous
WAIT = 600  # seconds that it waits later, while rank 0 saves or draws

T = TypeVar("T")
# Exchange averages the buffers, so DDP must not broadcast them. The argument has another name since torch 2.15.
_takes = inspect.signature(DistributedDataParallel).parameters
NOT_BUFFERS: dict[str, Any] = {next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in _takes): False}


class OtherProcessError(RunError):
    """Another process failed; its own error is reported there."""


class ProcessGroup:
    """Processes of a training, as seen by this one. Only rank 0 writes files and prints."""

    def __init__(self, info: ProcessInfo, store: Any = None, device: torch.device | None = None) -> None:
        self.rank, self.size, self.local_rank, self.local_size = (
            info.rank,
            info.size,
            info.local_rank,
            info.local_size,
        )
        self._store, self._count, self.device = store, 0, device

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def broadcast(self, make: Callable[[], T]) -> T:
        """Broadcast: value that rank 0 computes, for all ranks. JSON must hold it. Where rank 0 raises, all do."""
        if self.alone:
            return make()
        self._count += 1
        key = f"agree{self._count}"
        if self.main:
            try:
                made = make()
            except BaseException:
                self._store.set(key, json.dumps(None))
                raise
            self._store.set(key, json.dumps([made]))
            return made
        told = json.loads(self._store.get(key))
        if told is None:
            raise OtherProcessError("process 1 failed")
        return told[0]

    def all_reduce_sum(self, *tensors: Tensor) -> None:
        """Sum tensors over all ranks, in place."""
        if not self.alone:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def all_reduce_numbers(self, *numbers: float) -> list[float]:
        """Sum of each number over all ranks."""
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.all_reduce_sum(total)
        return total.tolist()

    def all_reduce_min_max(self, low: Tensor, high: Tensor) -> None:
        """Minimum of `low` and maximum of `high` over all ranks, in place."""
        if not self.alone:
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)

    def all_gather_rows(self, rows: Tensor, count: int) -> Tensor:
        """Rows (n, ...) of all ranks, in the order of the ranks: (count, ...) on the CPU.

        A rank without rows need not know how long they are: it takes the others' length, by the largest.
        """
        if self.alone:
            return rows
        shape = torch.tensor([*rows.shape], device=rows.device)
        dist.all_reduce(shape, dist.ReduceOp.MAX)
        whole = torch.zeros(count, *shape[1:].tolist(), dtype=rows.dtype, device=rows.device)
        begin = count * self.rank // self.size
        if len(rows):
            whole[begin : begin + len(rows)] = rows
        dist.all_reduce(whole)
        return whole.cpu()

    def wrap(self, model: nn.Module, device: torch.device, bucket_mb: int, compress: bool) -> nn.Module:
        """Net for training, wrapped in DistributedDataParallel: gradients are averaged over all ranks."""
        if self.alone:
            return model
        ids = [device.index] if device.index is not None else None
        with spare_compiler(DistributedDataParallel):
            net = DistributedDataParallel(
                model, device_ids=ids, gradient_as_bucket_view=True, bucket_cap_mb=bucket_mb, **NOT_BUFFERS
            )
        if compress:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            net.register_comm_hook(None, bf16_compress_hook)
        return net

    def root_cause(self, error: BaseException) -> BaseException:
        """Error to report: where one process's failure causes others, the first. Rank 0 reads it from the store."""
        if self.alone or isinstance(error, OtherProcessError | UserError) or not isinstance(error, Exception):
            return error
        if not is_connection_error(error):
            text = "".join(traceback.format_exception(error)).rstrip()
            if not self.main:
                self._store.set("error", json.dumps([self.rank, f"{type(error).__name__}: {error}", text]))
            return error
        try:
            self._store.wait(["error"], timedelta(seconds=3))
            rank, short, text = json.loads(self._store.get("error"))
        except Exception:
            return OtherProcessError("another process of this training has ended; the last checkpoint is unchanged")
        return OtherProcessError(f"process {rank + 1} of {self.size} failed: {short}\n{text}")


ALONE = ProcessGroup(ProcessInfo())
_joined: ProcessGroup | None = None


def is_connection_error(error: Exception) -> bool:
    """Whether an error only says that another process is gone."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "Connection closed by peer" in str(error))


def no_sync(net: Any, hold: bool) -> AbstractContextManager[Any]:
    """With `hold`, gradients are accumulated without an all-reduce; the last microbatch reduces them all."""
    module = getattr(net, "model", net)  # the module inside a compiled net
    return module.no_sync() if hold and isinstance(module, DistributedDataParallel) else nullcontext()


def join_processes(device: torch.device, backend: str) -> ProcessGroup:
    """Process group of this process, joined once. UserError where the others are not reached."""
    global _joined
    info = processes.process_info()
    if info.size == 1:
        return ALONE
    if _joined is not None:
        return _joined
    try:
        store = _meet(info)
        dist.init_process_group(
            backend, store=store, rank=info.rank, world_size=info.size, timeout=timedelta(seconds=WAIT)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(_why(info, error)) from None
    atexit.register(dist.destroy_process_group)  # else its threads may abort the process at its end
    console.silent = info.rank > 0
    _joined = ProcessGroup(info, PrefixStore("cnnbench", store), device)
    return _joined


def _meet(info: ProcessInfo) -> Any:
    if path := os.environ.get(processes.STORE):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever address this machine's name has
        store = FileStore(path, info.size)
        store.set_timeout(timedelta(seconds=WAIT))
        return store
    if info.address:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = info.address[0], str(info.address[1])
        if info.address[0] == "127.0.0.1":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store, *_ = next(rendezvous("env://", info.rank, info.size, timeout=timedelta(seconds=MEET)))
    store.set_timeout(timedelta(seconds=WAIT))
    return store


def _why(info: ProcessInfo, error: Exception) -> str:
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    text = str(error)
    who = f"process {info.rank + 1} of {info.size}"
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return f"port {os.environ.get('MASTER_PORT')} is in use: set MASTER_PORT to another one"
    if "MASTER_" in text:
        return f"RANK and WORLD_SIZE are set, MASTER_ADDR and MASTER_PORT are not: {who} cannot find the others"
    if "resolve" in text.lower() or "gai error" in text or "getaddrinfo" in text:
        return (
            f"{who} cannot resolve a host name ({where}, or its own): set MASTER_ADDR to an address, and "
            "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME to the network to use"
        )
    return f"{who} waited {MEET} s for the others at {where}: {(text.splitlines() or [''])[0][:200]}"
