"""Memory of the device: its peak, and errors that say that it is full."""

import torch

from cnnbench.utils import system


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device, or of the machine, is too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "MPS backend out of memory")
    )


def reset_peak_memory(device: torch.device) -> None:
    """Reset `peak_memory()`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        system.reset_process_peak()


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return system.process_peak_memory()
