"""Memory of the device: its peak, and errors that say that it is full."""

import torch

from cnnbench.utils import system


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that the device's memory, or the machine's, is too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "MPS backend out of memory")
    )


def reset_peak_memory(device: torch.device) -> None:
    """Forget how much memory was in use before: `peak_memory()` is that from now on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        system.reset_process_peak()


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU those that tensors took, on a CPU all that the process did."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return system.process_peak_memory()
