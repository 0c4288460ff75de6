"""The scripts that measure cnnbench beside others and on a GPU: their arithmetic, and that they run."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT, UNDRAWN


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_peers

    yield bench_peers
    sys.modules.pop("bench_peers")


def test_ratios_are_to_the_bare_script_and_to_the_fastest_peer(peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "about", lambda args: "about")
    walls = {
        "bare": [8.0, 9.0, 10.0],
        "cnnbench": [9.0, 9.6, 30.0],
        "references": [11.0, 12.0, 13.0],
        "timm_library": [18.0],
    }
    ran = {name: [peers.Ran(wall, 2 * wall, 10**9) for wall in all] for name, all in walls.items()}
    page = peers.page(ran, argparse.Namespace(epochs=2, images=5120))
    row = next(line for line in page.splitlines() if "cnnbench" in line)
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "9.60", "9.00–30.00", "19.2", "1,000", f"{2 * 15120 / 9.6:,.0f}", "1.07", "0.80", "1.12", "0.82"]  # fmt: skip


def test_memory_is_that_of_all_processes_and_failures_are_told(
    peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes hold 150 MB each, until they were seen together."""
    hold = "import subprocess, sys, time; hold = bytearray(150_000_000); hold[::4096] = b'x' * len(hold[::4096]); "
    wait = f"import os; any(os.path.exists({str(tmp_path / 'seen')!r}) or time.sleep(0.01) for _ in range(6000))"
    parent = f"{hold} time.sleep(0.1); p = subprocess.run([sys.executable, '-c', {hold + wait!r}])"
    look = peers.group_memory

    def seen(group: int) -> int:
        if (total := look(group)) > 300e6:
            (tmp_path / "seen").touch()
        return total

    monkeypatch.setattr(peers, "group_memory", seen)
    monkeypatch.setattr(peers, "POLL", 0.01)
    ran = peers.timed([sys.executable, "-c", parent], {})
    assert ran.wall > 0.1
    assert 300e6 < ran.memory < 400e6
    with pytest.raises(SystemExit, match="failed with 3"):
        peers.timed([sys.executable, "-c", "import sys; print('last words'); sys.exit(3)"], {})


def test_the_peers_take_equally_many_images_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "peers"))
    import work

    targets = [index % 7 % 10 for index in range(7000)]
    picked = work.chosen(targets, 500)
    assert [sum(targets[index] == name for index in picked) for name in range(7)] == [50] * 7
    assert picked == sorted(set(picked))
    sys.modules.pop("work")


def script(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TINY": "1", "CNNBENCH_PYTHON": sys.executable, "PYTHONPATH": f"{UNDRAWN}:{ROOT}"}
    return subprocess.run([str(ROOT / "scripts" / name), *args], env=environment, capture_output=True, text=True)


def test_the_gpu_check_runs_on_a_cpu(tmp_path: Path) -> None:
    done = script("gpu_check.sh", str(tmp_path / "out"), "same")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert page in done.stdout
    assert "| resnet20: eager again | the same bits | the same bits |" in page
    assert "| killed with SIGKILL and resumed | the same bits | the same bits |" in page


def test_a_part_of_the_gpu_check_that_fails_or_hangs_is_told_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_check

    for code, ended in (
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import time; time.sleep(600)", "cut after 0 s"),
    ):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        assert gpu_check.finish(process, 120 if "exit" in code else 0.3) == ended
    rows = tmp_path / "gpu.jsonl"
    gpu_check.add(rows, "small", "a bare loop", **{"images/s": 14939.2, "of the first": 1.0}, goal="")
    gpu_check.add(rows, "small", "cut after 90 s", see="small.log")
    page = gpu_check.table(tmp_path, 12.0)
    assert "| a bare loop | 14,939 images/s, 1 of the first |  |" in page
    assert "| cut after 90 s | small.log |  |" in page
    sys.modules.pop("gpu_check")


def test_the_gpu_study_runs_on_a_cpu(tmp_path: Path) -> None:
    done = script("gpu_study.sh", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "study.md").read_text()
    assert "s in all" in page and "plain20" in page and "resnet20" in page
