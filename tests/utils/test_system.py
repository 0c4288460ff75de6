"""Free memory, by the machine and by the limits of containers and jobs."""

from pathlib import Path

import pytest

from cnnbench.utils.system import free_memory

FREE = 32_000_000 * 1024


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    return tmp_path / "proc"


def limited(folder: Path, *, version: int, limit: str, used: int, stat: str = "") -> None:
    names = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}[version]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, str(used), stat), strict=True):
        (folder / name).write_text(f"{text}\n")


def test_without_a_limit_the_machine_counts(proc: Path, tmp_path: Path) -> None:
    assert free_memory(proc, tmp_path) == FREE
    (proc / "self" / "cgroup").write_text("0::/\n")
    limited(tmp_path, version=2, limit="max", used=5)
    assert free_memory(proc, tmp_path) == FREE
    assert free_memory(tmp_path / "none", tmp_path) is None


def test_the_limit_of_a_container(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/\n")
    limited(tmp_path, version=2, limit="2000000000", used=500_000_000)
    assert free_memory(proc, tmp_path) == 1.5e9
    limited(tmp_path, version=2, limit="2000000000", used=500_000_000, stat="anon 1\ninactive_file 300000000")
    assert free_memory(proc, tmp_path) == 1.8e9  # files that were read are given up first


def test_the_limits_of_all_groups_above_a_job(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    limited(tmp_path / "slurm" / "job_7" / "step_0", version=2, limit="max", used=0)
    limited(tmp_path / "slurm" / "job_7", version=2, limit="3000000000", used=1_000_000_000)
    limited(tmp_path / "slurm", version=2, limit="9000000000", used=1_000_000_000)
    assert free_memory(proc, tmp_path) == 2e9


def test_the_first_version_of_control_groups(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    limited(tmp_path / "memory" / "docker" / "abc", version=1, limit="4000000000", used=1_000_000_000,
            stat="total_inactive_file 500000000")  # fmt: skip
    limited(tmp_path / "memory", version=1, limit="9223372036854771712", used=0)
    assert free_memory(proc, tmp_path) == 3.5e9
