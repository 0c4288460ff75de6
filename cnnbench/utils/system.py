"""Cores and memory of this machine, as the operating system reports them. Does not import torch."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes that are still free, by the machine and by the container's limit; None where the system does not say."""
    if not proc.is_file():
        return None
    lines = dict(line.split(":", 1) for line in proc.read_text().splitlines() if ":" in line)
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, float(text) - float(used.read_text()))
    return free


def reset_process_peak(proc: Path = Path("/proc/self")) -> None:
    """Reset `process_peak_memory()`. Where the system cannot, it stays the peak since the process began."""
    with suppress(OSError):
        (proc / "clear_refs").write_text("5")


def process_peak_memory(proc: Path = Path("/proc/self")) -> int:
    """Peak memory of this process in bytes."""
    with suppress(OSError):
        for line in (proc / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
