"""The scripts that measure cnnbench beside others and on a GPU: their arithmetic, and that they run."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


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


def test_memory_is_that_of_all_processes_and_failures_are_told(peers) -> None:
    child = "import subprocess, sys, time; hold = bytearray(150_000_000); hold[::4096] = b'x' * len(hold[::4096]); "
    parent = f"{child} time.sleep(0.1); p = subprocess.run([sys.executable, '-c', {child + 'time.sleep(0.9)'!r}])"
    ran = peers.timed([sys.executable, "-c", parent], {})
    assert ran.wall > 0.9
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


def test_the_gpu_script_runs_on_a_cpu(tmp_path: Path) -> None:
    environment = {**os.environ, "TINY": "1", "CNNBENCH_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(ROOT / "scripts" / "bench_gpu.sh"), str(tmp_path / "out")], env=environment,
                          capture_output=True, text=True, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "results.md").read_text()
    assert text.count("| resnet8 | fp32 | 8 |") == 2
    assert "## resnet8-cached" in text
    assert "## resnet8-synthetic" in text
