"""Device, precision and seeds of a run. No other room knows which device or dtype a run uses."""

import contextlib
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cnnbench.runtime import distributed, processes
from cnnbench.runtime.seeds import step_seed
from cnnbench.utils import system
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural

Module = TypeVar("Module", bound=nn.Module)
Batch = TypeVar("Batch", bound=dict[str, Any])

SEARCH_STEPS = 25_000
"""Steps from which on cuDNN's search for kernels is worth its time.

For ResNet-50 on an H200 it took 3 to 14 s, as long as 60 to 260 steps, and made no step faster: where it makes steps
faster by one percent, it pays after some 25,000.
"""


@dataclass(frozen=True)
class Runtime:
    """Device, precision and process group of a run. Weights stay in float32; the net computes under autocast.

    searches: whether cuDNN searches for the fastest kernels of the batches' shape.
    """

    device: torch.device
    dtype: torch.dtype
    scaler: torch.amp.GradScaler = field(repr=False)
    group: distributed.ProcessGroup = field(default=distributed.ALONE, repr=False)
    searches: bool = False

    @property
    def name(self) -> str:
        """Name of the GPU (`NVIDIA H200`) or of the processor."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _processor() if self.device.type == "cpu" else self.device.type

    @property
    def precision(self) -> str:
        """Precision as in the configuration: fp32, bf16 or fp16."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def to_measure(self, trained: str) -> "Runtime":
        """This runtime for a measurement: in float32, unless the precision of the training was chosen by name.

        trained: `precision` in the configuration of the training. A CPU without fp16 takes float32 too.
        """
        by_name = trained != "auto" and not (trained == "fp16" and self.device.type == "cpu")
        return replace(self, dtype=_dtype(trained, self.device) if by_name else torch.float32, searches=False)

    @property
    def sum_dtype(self) -> torch.dtype:
        """Dtype for sums over a whole data set: float64, which MPS does not have."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the net computes in the precision of the run."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextlib.contextmanager
    def cached_weight_casts(self) -> Iterator[None]:
        """Keep autocast's weight cache across batches. Weights must not change inside."""
        torch.autocast_increment_nesting()  # autocast keeps its cache until the outermost block ends
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()

    def place(self, model: Module) -> Module:
        """Model on the device, in channels-last memory format, in which convolutions are fastest."""
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to_device(self, value: Tensor) -> Tensor:
        """Tensor on the device. A GPU copies from pinned memory while the CPU goes on."""
        if self.device.type == "cuda" and value.device.type == "cpu":
            return value.pin_memory().to(self.device, non_blocking=True)
        return value.to(self.device)

    def move(self, value: Tensor) -> Tensor:
        """Tensor on the device, for what goes there once: to pin a whole data set takes longer than to copy it."""
        return value.to(self.device)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of the loss, scaled where the precision is fp16."""
        self.scaler.scale(loss).backward()

    @property
    def can_record(self) -> bool:
        """Whether the device can replay what it has launched once, as a CUDA graph."""
        return self.device.type == "cuda"

    @property
    def is_recording(self) -> bool:
        """Whether what is launched now is recorded, for a CUDA graph, and not run."""
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    @property
    def fused(self) -> bool:
        """Whether to use fused optimizers. They skip a step that is not finite without waiting for the device."""
        return self.device.type == "cuda"

    @property
    def syncs_batchnorm(self) -> bool:
        """Whether torch can compute BatchNorm over several processes here."""
        return self.device.type == "cuda"

    @property
    def spoils_wide_filters(self) -> bool:
        """Whether oneDNN computes wrong gradients for 5x5 filters over maps of one pixel, from uninitialised memory.

        Seen with torch 2.15. Filters of 3x3, and larger maps, are right.
        """
        return self.device.type == "cpu" and self.dtype == torch.bfloat16

    @property
    def shares_cores(self) -> bool:
        """Whether nets compute on the cores that read images."""
        return self.device.type == "cpu"

    @property
    def sync_interval(self) -> int:
        """Steps between two readings of the device's counters: each reading waits for a device other than the CPU."""
        return 1 if self.device.type == "cpu" else 50

    @property
    def matrix_side(self) -> int:
        """Side of square matrices whose product keeps the device busy."""
        return 2048 if self.device.type == "cpu" else 8192

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], clip: float | None, loss: Tensor
    ) -> Tensor:
        """Optimizer step with gradient clipping and loss scaling, skipped where loss or gradient are not finite.

        Returns the norm of the gradient before clipping; it is not finite where the step was skipped.
        """
        self.scaler.unscale_(optimizer)  # the norm is of the unscaled gradients; without fp16 this does nothing
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        norm = gradient_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        if clip is not None:
            nn.utils.clip_grads_with_norm_(trained, clip, norm)
        norm = norm + 0 * loss.detach()
        if self.scaler.is_enabled():  # it checks the gradients itself
            self.scaler.step(optimizer)
        elif _is_fused(optimizer):
            optimizer.found_inf = (~(norm < math.inf)).float()  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]
        elif norm < math.inf:
            optimizer.step()
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def seed_step(self, seed: int, step: int) -> None:
        """Seed a step's random numbers (dropout) by the seed, the step and the rank alone.

        So there is no state to save, and a resumed training draws the same numbers.
        """
        self._generator().manual_seed(step_seed(seed, step, self.group.rank))

    def for_steps(self, count: int) -> "Runtime":
        """This runtime for a training of so many steps, in which a search for kernels may be worth its time."""
        return replace(self, searches=count >= SEARCH_STEPS)

    def search_kernels(self, worth: bool) -> None:
        """Whether cuDNN searches for the fastest kernels of shapes that are new to it from now on."""
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = worth and not torch.are_deterministic_algorithms_enabled()

    def by_shape(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; where this runtime searches for kernels, it does so for the shape of the first batch.

        A search is not worth its time for a short last batch, nor where all images differ in size.
        """
        first: torch.Size | None = None
        for batch in batches:
            first = first or batch["image"].shape
            self.search_kernels(self.searches and batch["image"].shape == first)
            yield batch

    def _generator(self) -> torch.Generator:
        """Random numbers of the device. torch.manual_seed would spend a millisecond on devices that are absent."""
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            return torch.cuda.default_generators[index]
        return torch.mps._get_default_mps_generator() if self.device.type == "mps" else torch.default_generator

    def synchronize(self) -> None:
        """Wait until the device has done all its work: for measuring time."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def empty_cache(self) -> None:
        """Release the device memory that torch caches."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()

    def check_decodes_jpeg(self) -> None:
        """UserError where the device cannot decode JPEGs."""
        if self.device.type != "cuda":
            raise UserError(
                f"data.decode=nvjpeg needs an NVIDIA GPU, and this run is on {self.device.type}: use data.decode=auto"
            )

    def free_memory(self) -> int:
        """Free bytes of the device."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return int(system.free_memory() or 4 * 2**30)  # 4 GiB where the system does not say


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Norm () of all gradients, of one device: `nn.utils.get_total_norm` without sorting them by device first."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if gradients else torch.zeros(())


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))


class Normalize:
    """Normalisation of uint8 images (N, C, H, W) to float32 on the device, channels last. mean and std in 0..1."""

    def __init__(self, runtime: Runtime, mean: Iterable[float], std: Iterable[float]) -> None:
        means, stds = (torch.tensor(list(values), device=runtime.device).view(1, -1, 1, 1) for values in (mean, std))
        self.scale, self.shift, self.runtime = 1 / (255 * stds), -means / stds, runtime

    def __call__(self, images: Tensor) -> Tensor:
        images = self.runtime.to_device(images).contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self.shift, images.float(), self.scale)


def create_runtime(
    device: str, precision: str | None, seed: int | None, deterministic: bool = False, *, together: bool = False
) -> Runtime:
    """Runtime of this device and precision (None: float32). UserError where they are not available.

    seed: of this process; None leaves it unseeded. deterministic: bit-identical results on a GPU, where an operation
    without a deterministic kernel raises; on a CPU results always are. together: join the process group, where this
    process is one of several.
    """
    chosen = _of_rank(_device(device)) if together else _device(device)
    dtype = _dtype(precision or "fp32", chosen)
    if seed is not None:
        torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
    if deterministic != torch.are_deterministic_algorithms_enabled():  # setting it costs two seconds of imports
        torch.use_deterministic_algorithms(deterministic)
    # Filling new memory helps to find bugs, but costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if chosen.type == "cuda":
        torch.backends.cudnn.benchmark = False  # until a loop says which shape is worth a search
        torch.backends.cudnn.allow_tf32 = False  # fp32 is float32: TF32 rounds the factors of convolutions to 10 bits
    scaler = torch.amp.GradScaler(chosen.type, enabled=dtype == torch.float16)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    others = distributed.join_processes(chosen, backend) if together else distributed.ALONE
    return Runtime(chosen, dtype, scaler, others)


def _of_rank(device: torch.device) -> torch.device:
    """GPU of this process; each of several processes on a machine has its own."""
    info, count = processes.process_info(), torch.cuda.device_count()
    if info.size == 1 or device.type != "cuda" or count == 1:  # with one visible GPU the scheduler has assigned it
        return device
    if info.local_size > count:
        raise UserError(
            f"{info.local_size} processes on a machine with {plural(count, 'GPU')}: start one process per GPU"
        )
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
            raise UserError(f"device={name} is not available: this machine has {count or 'no'} CUDA devices")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not available: it needs a Mac with Apple silicon")
    return torch.device(name)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return _best_dtype(device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if dtype == torch.float16 and device.type == "cpu":
        raise UserError("precision=fp16 needs a GPU: on a CPU use bf16 or fp32")
    return dtype


def _best_dtype(device: torch.device) -> torch.dtype:
    """Fastest dtype of the device: bf16 where the hardware has it, fp16 on older GPUs, else fp32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this processor has bf16 arithmetic; emulated bf16 would be slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx", "bf16"))


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
