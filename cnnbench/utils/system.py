"""Cores and memory of this machine, as the operating system reports them. Does not import torch."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes that are still free, by the machine and by the limits of the container or job (cgroup v2 and v1); None
    where the system does not say. What the system keeps of files that were read counts as free."""
    if not (proc / "meminfo").is_file():
        return None
    lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines() if ":" in line)
    free = float(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *_left_in_groups(proc / "self" / "cgroup", cgroup)])


def _left_in_groups(groups: Path, cgroup: Path) -> Iterator[float]:
    """Bytes that the memory limit of each control group leaves, of those that this process is in."""
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                home = cgroup / controllers
                folders = [home / path.lstrip("/"), *(home / path.lstrip("/")).parents]
                yield from filter(None, map(_left, folders[: len(Path(path).parts)]))


def _left(group: Path) -> float | None:
    """Bytes that the memory limit of one control group leaves; None where it has none."""
    with suppress(OSError, ValueError):  # a name of the other version, or a limit that is no number: "max"
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if (group / limit).is_file():
                return float((group / limit).read_text()) - float((group / used).read_text()) + _cached(group)
    return None


def _cached(group: Path) -> float:
    """Bytes of files that a control group keeps and would give up first."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return float(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return 0.0


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
