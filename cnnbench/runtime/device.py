"""The machine: device, precision, seeds. The only file that knows which device or dtype a run uses."""

import contextlib
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench.runtime import distributed, processes
from cnnbench.utils import system
from cnnbench.utils.errors import UserError

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Runtime:
    """Where tensors live and in which precision the net computes. Weights stay in float32: autocast does the rest."""

    device: torch.device
    dtype: torch.dtype
    scaler: torch.amp.GradScaler = field(repr=False)
    group: distributed.ProcessGroup = field(default=distributed.ALONE, repr=False)

    @property
    def name(self) -> str:
        """The device as people call it: `NVIDIA H200`, or the processor's name."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _processor() if self.device.type == "cpu" else self.device.type

    @property
    def precision(self) -> str:
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    @property
    def sum_dtype(self) -> torch.dtype:
        """For sums over a whole data set; MPS has no float64."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextlib.contextmanager
    def cached_weight_casts(self) -> Iterator[None]:
        """Inside this block no weight may change: each is brought to the precision once, not for every batch."""
        torch.autocast_increment_nesting()  # autocast keeps what it has cast until the outermost block ends
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()

    def place(self, model: Module) -> Module:
        """The model on the device, in the memory format in which convolutions are fastest."""
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to_device(self, value: Tensor) -> Tensor:
        """There without waiting for it: from memory that is locked in place a GPU fetches the bytes by itself."""
        if self.device.type == "cuda" and value.device.type == "cpu":
            return value.pin_memory().to(self.device, non_blocking=True)
        return value.to(self.device)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    @property
    def fused(self) -> bool:
        """Whether to use fused optimizers: they skip a step that the device finds not finite without asking us."""
        return self.device.type == "cuda"

    @property
    def syncs_batchnorm(self) -> bool:
        """Whether torch can compute BatchNorm over several processes here."""
        return self.device.type == "cuda"

    @property
    def spoils_wide_filters(self) -> bool:
        """Whether filters of 5x5 over maps of a single pixel get gradients made of memory that nobody wrote: a fault of
        oneDNN, seen with torch 2.15. (Those of 3x3, and larger maps, are right.)"""
        return self.device.type == "cpu" and self.dtype == torch.bfloat16

    @property
    def sync_interval(self) -> int:
        """Steps between two looks at what the device has counted: each look waits for a device that is not the CPU."""
        return 1 if self.device.type == "cpu" else 50

    @property
    def matrix_side(self) -> int:
        """Of square matrices whose product keeps the device busy."""
        return 2048 if self.device.type == "cpu" else 8192

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], clip: float | None, loss: Tensor
    ) -> Tensor:
        """One optimizer step, the same for every precision: a disabled scaler is a no-op.

        Returns the norm of the gradient before clipping; where it or the loss is not finite, so is what is returned,
        and the step was skipped.
        """
        self.scaler.unscale_(optimizer)  # the norm must be that of the true gradients
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(parameter.grad for parameter in trained if parameter.grad is not None)
        if clip is not None:
            nn.utils.clip_grads_with_norm_(trained, clip, norm)
        norm = norm + 0 * loss.detach()
        if self.scaler.is_enabled():  # it looks at the gradients itself
            self.scaler.step(optimizer)
        elif _is_fused(optimizer):
            optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]
        elif norm.isfinite():
            optimizer.step()
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def seed_step(self, seed: int, step: int) -> None:
        """Make what is random in a step (dropout) a function of the seed and the step alone: nothing to save, and a
        training that was cut goes on with the same numbers."""
        # Hashed, since a CPU's generator takes in 32 bits alone.
        entropy = (seed, step, self.group.rank) if self.group.rank else (seed, step)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def synchronize(self) -> None:
        """Wait until the device has done all that it was told to: for measuring time."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def empty_cache(self) -> None:
        """Give back what torch keeps of the device's memory for later."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()

    def check_decodes_jpeg(self) -> None:
        """UserError where JPEGs cannot be decoded on the device."""
        if self.device.type != "cuda":
            raise UserError(
                f"data.decode=nvjpeg decodes on an NVIDIA GPU, and this run is on {self.device.type}: use "
                "data.decode=auto"
            )

    def free_memory(self) -> int:
        """Bytes that a run may still take on the device."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return int(system.free_memory() or 4 * 2**30)  # 4 GB where the system does not say


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))


class Normalize:
    """uint8 images (N, C, H, W) to normalised float32 on the device, channels last. mean and std are in 0..1."""

    def __init__(self, runtime: Runtime, mean: Iterable[float], std: Iterable[float]) -> None:
        means, stds = (torch.tensor(list(values), device=runtime.device).view(1, -1, 1, 1) for values in (mean, std))
        self.scale, self.shift, self.runtime = 1 / (255 * stds), -means / stds, runtime

    def __call__(self, images: Tensor) -> Tensor:
        images = self.runtime.to_device(images).contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self.shift, images.float(), self.scale)


def create_runtime(
    device: str, precision: str, seed: int | None, deterministic: bool = False, *, together: bool = False
) -> Runtime:
    """Choose the device and the precision, refuse those that are not there, and seed this process, unless with None.

    With `deterministic` a GPU gives the same bits each time; an operation that cannot raises. A CPU always does.
    together: join the other processes, where this one was started as one of several.
    """
    chosen = _of_rank(_device(device)) if together else _device(device)
    dtype = _dtype(precision, chosen)
    if seed is not None:
        torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix is multiplied
    if deterministic != torch.are_deterministic_algorithms_enabled():  # to set it takes two seconds of imports
        torch.use_deterministic_algorithms(deterministic)
    # This fills new memory in a search for bugs, at a price in speed.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if chosen.type == "cuda":  # images of one size: the fastest algorithm is worth searching for once
        torch.backends.cudnn.benchmark = not deterministic
    scaler = torch.amp.GradScaler(chosen.type, enabled=dtype == torch.float16)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    others = distributed.join_processes(chosen, backend) if together else distributed.ALONE
    return Runtime(chosen, dtype, scaler, others)


def _of_rank(device: torch.device) -> torch.device:
    """The GPU of this process, where it is one of several on a machine: each has its own."""
    info, count = processes.process_info(), torch.cuda.device_count()
    if info.size == 1 or device.type != "cuda" or count == 1:  # one: the scheduler has shared them out
        return device
    if info.local_size > count:
        raise UserError(f"{info.local_size} processes on a machine with {count} GPUs: start one for each")
    torch.cuda.set_device(info.local_rank)
    return torch.device("cuda", info.local_rank)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UserError(f"unknown device '{name}'\nchoices: auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(index or 0) >= count:
            raise UserError(f"device={name} is not there: this machine has {count or 'no'} CUDA devices")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not there: it needs a Mac with Apple silicon")
    return torch.device(name)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return _best_dtype(device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if dtype == torch.float16 and device.type == "cpu":
        raise UserError("precision=fp16 needs a GPU: on a CPU use bf16 or fp32")
    return dtype


def _best_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware has it, fp16 on the GPUs before it, else fp32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this processor computes in bf16; emulated, it would be slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx", "bf16"))


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
