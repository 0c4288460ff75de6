#!/usr/bin/env python3
"""How near a training is to the machine's limit, each thing beside its yardstick in one run:
scripts/bench_training.py [input] [step] [start]

input    batches of CIFAR-sized images, augmented and normalised, against torchvision's transforms in a DataLoader
step     the training loop with all it keeps account of, against a loop written by hand for the same arithmetic
start    seconds from the command to the first step, against importing torch and torchvision
"""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import data
from cnnbench.commands import train
from cnnbench.config import compose
from cnnbench.config.commands import SCHEMAS
from cnnbench.config.parsing import parse
from cnnbench.runs import result
from cnnbench.runs.run_directory import claim
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.runs.tracker import Tracker
from cnnbench.runtime.device import Normalize, create_runtime
from cnnbench.training.trainer import Training
from cnnbench.utils import fast_start

TURNS = 7
STEPS = 20  # in each turn
FIRST_STEP = """
import os, sys, time
from cnnbench.cli import main
from cnnbench.training import loop
def reached(*args):
    began = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    print("seconds", time.clock_gettime(time.CLOCK_BOOTTIME) - began, flush=True)
    os._exit(0)
loop.train_step = reached
main.main(sys.argv[1:])
"""


def training(folder: str, *overrides: str) -> Training:
    """As `cnnbench train` makes it, at its first step."""
    plain = ["data.num_classes=10", "data.num_images=5120", "data=synthetic", "epochs=1000", f"run.dir={folder}"]
    cfg = parse(SCHEMAS["train"], compose.compose("train", [*plain, *overrides]))
    device = create_runtime(cfg.device, cfg.precision.value, cfg.seed)
    dataset = data.load_dataset(cfg.data)
    with contextlib.redirect_stdout(io.StringIO()):
        model, spec = train.build(cfg, dataset, sys.stdout)
        return Training(cfg, device, dataset, model, spec, claim(Path(folder), cfg, "auto"))


def in_turn(kinds: dict[str, Callable[[], float]], turns: int = TURNS) -> dict[str, list[float]]:
    """A B A B …; what each gives, turn by turn. The first turn of each only warms up."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(turns + 1):
        for name, measure in kinds.items():
            value = measure()
            if turn:
                found[name].append(value)
            print(f"\r{turn}/{turns} {name}: {value:.4g}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def table(title: str, unit: str, found: dict[str, list[float]]) -> None:
    """Medians, and the median of the ratios to the first kind turn by turn."""
    first = next(iter(found.values()))
    print(f"\n{title}\n\n| | {unit}, median | smallest | largest | ratio |\n|---|---|---|---|---|")
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(values, first, strict=True))
        numbers = (statistics.median(values), min(values), max(values))
        print(f"| {name} | " + " | ".join(f"{number:,.4g}" for number in numbers) + f" | {ratio:.3f} |")


# The step


def bench_step() -> None:
    for name, size in (("resnet20", 32), ("resnet18", 64)):
        with tempfile.TemporaryDirectory() as folder:
            ours = training(folder, f"model={name}", f"data.image_size={size}", "augment=none")
            with Tracker(Path(folder), [], 0, sys.stderr) as tracker:
                kinds = {"by hand": lambda ours=ours: by_hand(ours), "cnnbench": lambda ours=ours: loop(ours, tracker)}
                found = in_turn(kinds)
        table(f"{name}, {size} px, batch {ours.batch_size}, {ours.device.precision}: a step", "ms", found)


def some_steps(ours: Training) -> list[Any]:
    return [batch for batch, _ in zip(ours.train_batches.epoch(0), range(STEPS), strict=False)]


def loop(ours: Training, tracker: Tracker) -> float:
    """Milliseconds per step of cnnbench's loop: schedule, metrics, guard, TensorBoard and all."""
    batches, ours.progress.batch = some_steps(ours), 0
    ours._batches = lambda: iter(batches)  # type: ignore[method-assign]  # read beforehand, as for the other
    begin = time.perf_counter()
    ours._train_epoch(tracker, StopRequests())
    ours.device.synchronize()
    return 1000 * (time.perf_counter() - begin) / STEPS


def by_hand(ours: Training) -> float:
    """The same net, batches and optimizer in the fewest lines, with the loss and the two errors summed up."""
    model, optimizer, batches = ours.trainer.model, ours.trainer.optimizer, some_steps(ours)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (ours.dataset.mean, ours.dataset.std))
    total, hits = torch.zeros(()), torch.zeros(2, dtype=torch.int64)
    model.train()
    begin = time.perf_counter()
    for images, targets in batches:
        inputs = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with ours.device.autocast():
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found = logits.topk(5).indices == targets[:, None]
        total, hits = total + loss.detach(), hits + torch.stack([found[:, 0].sum(), found.sum()])
    ours.device.synchronize()
    return 1000 * (time.perf_counter() - begin) / STEPS


# The input


def bench_input() -> None:
    dataset = data.load_dataset(parse(SCHEMAS["train"], compose.compose("train", CIFAR_LIKE)).data)
    workers = 2
    kinds = {f"torchvision, {workers} workers": per_sample(dataset, workers), "cnnbench": batched(dataset)}
    found = in_turn(kinds, turns=3)
    table("CIFAR-sized images: crop with padding, flip, normalise, batches of 128", "images/s", found)
    more = {
        "crop, flip, cutout": "augment.cutout=16",
        "crop, flip, colour": "augment.color=0.4",
        "random resized crop, flip": "augment=resized_flip",
    }
    for name, override in more.items():
        speed = statistics.median(batched(dataset, override)() for _ in range(3))
        print(f"| cnnbench, {name} | {speed:,.4g} | | | |")


CIFAR_LIKE = ["data=synthetic", "data.num_classes=10", "data.num_images=50000", "data.image_size=32"]


def batched(dataset: data.Dataset, *overrides: str) -> Callable[[], float]:
    cfg = parse(SCHEMAS["train"], compose.compose("train", ["data=cifar10", *overrides]))
    device = create_runtime("auto", "auto", 0)
    there = data.map_images(dataset, device.to_device)
    loader = data.train_loader(there, cfg.augment, image_size=32, batch_size=128, seed=0, workers=None)
    normalize = Normalize(device, dataset.mean, dataset.std)

    def measure() -> float:
        return rate(normalize(images) for images, _ in loader.epoch(0))

    return measure


def per_sample(dataset: data.Dataset, workers: int) -> Callable[[], float]:
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    steps = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.PILToTensor(),
             v2.ToDtype(torch.float32, scale=True), v2.Normalize(dataset.mean, dataset.std)]  # fmt: skip
    loader = DataLoader(Pictures(dataset.train, v2.Compose(steps)), 128, shuffle=True, num_workers=workers,
                        persistent_workers=True)  # fmt: skip

    def measure() -> float:
        return rate(images for images, _ in loader)

    return measure


class Pictures(torch.utils.data.Dataset):
    """As torchvision's CIFAR10 gives them: a Pillow image from an array, then the transform."""

    def __init__(self, source: data.Arrays, transform: Callable[..., Tensor]) -> None:
        self.pixels, self.targets, self.transform = source.images.permute(0, 2, 3, 1).numpy(), source.targets, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), int(self.targets[index])


def rate(batches: Iterator[Tensor]) -> float:
    count, begin = 0, time.perf_counter()
    for images in batches:
        count += len(images)
    return count / (time.perf_counter() - begin)


# The start


def bench_start() -> None:
    with tempfile.TemporaryDirectory() as folder:

        def command(*args: str) -> Callable[[], float]:
            def measure() -> float:
                place = tempfile.mkdtemp(dir=folder)
                done = subprocess.run([sys.executable, "-c", FIRST_STEP, "train", *args, f"run.dir={place}/run"],
                                      capture_output=True, text=True, check=True)  # fmt: skip
                return float(done.stdout.rpartition("seconds")[2])

            return measure

        kinds = {"import torch, torchvision": imports, "cnnbench train": command()}
        if os.environ.get("CNNBENCH_DATA"):
            kinds["cnnbench train model=resnet20 data=cifar10"] = command("model=resnet20", "data=cifar10")
        table("From the command to the first step", "seconds", in_turn(kinds, turns=5))


def imports() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True)
    return time.perf_counter() - begin


PARTS = {"input": bench_input, "step": bench_step, "start": bench_start}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    fast_start.keep_freed_memory()  # as the command line does: here the loop by hand gains by it too
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"bench_training.py: no part {', '.join(unknown)}\n{__doc__}")
    versions = ", ".join(f"{name} {version}" for name, version in result.versions().items())
    print(f"{date.today()}, {create_runtime('auto', 'auto', 0).name}, {torch.get_num_threads()} threads, {versions}")
    for name in chosen:
        PARTS[name]()
