#!/usr/bin/env python3
"""What training on many processes costs: measured here, and modelled for clusters. scripts/scaling.py [what ...]

traffic  bytes of gradients per step, checkpoint sizes (from the nets themselves)
model    the same nets on 8, 64 and 512 GPUs, from the traffic and the assumptions in `Cluster`
ddp      images per second of two processes with a thread each, against one with two threads
sweep    processor seconds of a sweep's job beyond its training, and to submit 100 jobs, where there is Slurm
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cnnbench import models
from cnnbench.analysis.complexity import count_complexity
from cnnbench.config.sections import Format
from cnnbench.output.tables import render

NETS = ("alexnet", "vgg16", "resnet50")
GPUS = (8, 64, 512)
TURNS = 3


@dataclass(frozen=True)
class Cluster:
    """Assumptions, none of them measured here: round numbers for GPUs of the H100's kind. Replace them by your own."""

    flops: float = 100e12  # of a GPU in bf16: a tenth of its data sheet, as it waits for memory between convolutions
    per_node: int = 8
    links: float = 300e9  # bytes/s between the GPUs of a node
    network: float = 40e9  # bytes/s into and out of a node: 400 Gb/s, less a fifth
    hop: float = 10e-6  # seconds for a message from one GPU to the next
    overlap: float = 0.9  # of the backward pass, during which gradients travel
    batch: int = 256  # images of a GPU
    core: float = 470.0  # packed photographs that a core reads and augments in a second: measured, docs/benchmarks.md
    disk: float = 1e9  # bytes/s that rank 0 writes to the file system


def sizes(name: str) -> tuple[int, int]:
    """Parameters, and multiply-adds for an image."""
    net = models.build(name, num_classes=1000)
    found = count_complexity(net, net.image_size, 3)
    return found.params, found.macs


def traffic() -> list[dict[str, object]]:
    rows = []
    for name in NETS:
        params, macs = sizes(name)
        rows.append({
            "net": name,
            "parameters": params,
            "GMACs": f"{macs / 1e9:.2f}",
            "gradient, fp32": f"{4 * params / 1e6:.0f} MB",
            "gradient, bf16": f"{2 * params / 1e6:.0f} MB",
            "checkpoint": f"{8 * params / 1e6:.0f} MB",
            "bytes per MAC": f"{4 * params / macs:.3f}",
        })  # fmt: skip
    return rows


def all_reduce(size: float, gpus: int, cluster: Cluster) -> float:
    """Seconds that a ring takes: each GPU sends and receives 2 (n - 1) / n of the gradient, past the slowest link."""
    slowest = cluster.links if gpus <= cluster.per_node else cluster.network
    return 2 * (gpus - 1) / gpus * size / slowest + 2 * (gpus - 1) * cluster.hop


def model(cluster: Cluster) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in NETS:
        params, macs = sizes(name)
        compute = 6 * macs * cluster.batch / cluster.flops  # forward 2 flops per multiply-add, backward twice that
        hidden = cluster.overlap * 2 / 3 * compute
        for gpus in GPUS:
            row: dict[str, object] = {"net": name, "GPUs": gpus, "batch": gpus * cluster.batch,
                                      "compute": f"{1e3 * compute:.1f} ms"}  # fmt: skip
            step = compute
            for kind, width in (("fp32", 4), ("bf16", 2)):
                sent = all_reduce(width * params, gpus, cluster)
                step = compute + max(0.0, sent - hidden)
                row |= {
                    f"all-reduce {kind}": f"{1e3 * sent:.1f} ms",
                    f"efficiency {kind}": f"{100 * compute / step:.0f} %",
                }
            images = cluster.per_node * cluster.batch / step
            row |= {
                "images/s per node": round(images, -2),
                "cores for them": round(images / cluster.core),
                "a checkpoint": f"{8 * params / cluster.disk:.1f} s",
            }
            rows.append(row)
    return rows


def train(folder: Path, *overrides: str, threads: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnnbench", "train", *overrides]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def ddp() -> list[dict[str, object]]:
    """In turn, since other work on the machine comes and goes."""
    kinds = {"1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1)}
    rows: list[dict[str, object]] = []
    for net, size, batch, steps in (("resnet20", 32, 128, 12), ("resnet18", 64, 64, 6)):
        speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(TURNS):
                for kind, (devices, threads) in kinds.items():
                    run = f"run.dir={turn}-{devices}"
                    train(Path(folder), f"model={net}", "data=synthetic", f"data.image_size={size}", "precision=fp32",
                          f"batch_size={batch}", f"data.num_images={batch * steps}", "data.num_classes=10", "epochs=1",
                          "device=cpu", f"devices={devices}", run, threads=threads)  # fmt: skip
                    result = json.loads((Path(folder) / f"{turn}-{devices}" / "result.json").read_text())
                    speeds[kind].append(result["images_per_second"])
        one, two = (statistics.median(speeds[kind]) for kind in kinds)
        ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
        rows.append({
            "net": net,
            "pixels": size,
            "batch": batch,
            **{kind: f"{statistics.median(speeds[kind]):.0f} images/s" for kind in kinds},
            "two / one": f"{two / one:.2f}",
            "turns": " ".join(f"{ratio:.2f}" for ratio in ratios),
        })  # fmt: skip
    return rows


def processor() -> float:
    """Seconds that commands which have ended took of the processor: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep() -> list[dict[str, object]]:
    small = ("data.image_size=8", "data.fraction=0.2", "precision=fp32", "device=cpu", "batch_size=50", "epochs=1")
    seconds: dict[str, float] = {}

    def timed(what: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        begin = processor()
        done = train(folder, "-m", *overrides, *small, threads=1)
        seconds[what] = processor() - begin
        return done

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timed("2 jobs", "seed=range(2)", "sweep.dir=s2")
        timed("12 jobs", "seed=range(12)", "sweep.dir=s12")
        timed("12 jobs that are done already", "seed=range(12)", "sweep.dir=s12")
        results = [json.loads(path.read_text())["wall_seconds"] for path in (folder / "s12").glob("*/result.json")]
        each = (seconds["12 jobs"] - seconds["2 jobs"]) / 10
        seconds["a job, its four pictures included, beyond its training"] = each - statistics.median(results)
        done = timed("100 jobs submitted as one array", "seed=range(100)", "sweep.dir=q", "hydra/launcher=slurm",
                     "sweep.detach=true", "hydra.launcher.cpus_per_task=1")  # fmt: skip
        if done.returncode == 0:
            subprocess.run(["scancel", done.stdout.strip()], check=True)
        else:
            print(done.stderr.strip(), file=sys.stderr)
            del seconds["100 jobs submitted as one array"]
    return [{"what": what, "processor seconds": f"{value:.2f}"} for what, value in seconds.items()]


def main() -> None:
    parts = {"traffic": traffic, "model": lambda: model(Cluster()), "ddp": ddp, "sweep": sweep}
    for name in sys.argv[1:] or parts:
        if name not in parts:
            sys.exit(f"scaling: what is '{name}'? choices: {', '.join(parts)}")
        print(f"{name}\n\n{render(parts[name](), Format.markdown)}\n")


if __name__ == "__main__":
    main()
