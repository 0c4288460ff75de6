"""What the operating system tells of the machine: usable cores, memory. torch is not needed for it."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes that may still be taken, by the machine and by the container's limit."""
    if not proc.is_file():
        return None
    lines = dict(line.split(":", 1) for line in proc.read_text().splitlines() if ":" in line)
    free = float(lines["MemAvailable"].split()[0]) * 1024
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        free = min(free, float(text) - float(used.read_text()))
    return free


def reset_process_peak(proc: Path = Path("/proc/self")) -> None:
    """Let `peak_memory()` begin anew. Where the system cannot do that, it stays the peak since the process began."""
    with suppress(OSError):
        (proc / "clear_refs").write_text("5")


def process_peak_memory(proc: Path = Path("/proc/self")) -> int:
    """Bytes of memory that this process took at most."""
    with suppress(OSError):
        for line in (proc / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next step to use.

    glibc gives large blocks back to the system, which hands them out again page by page, each cleared first: thousands
    of page faults in every step of a training on a CPU. What the process took once, it then holds to its end.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older ones take no more than that
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
