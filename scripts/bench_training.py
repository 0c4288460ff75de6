#!/usr/bin/env python3
"""How near a training is to the machine's limit, each thing beside its yardstick in one run:
scripts/bench_training.py [input] [step] [enlarge] [masks] [boxes] [sounds] [people] [start]

input    batches of CIFAR-sized images, augmented and normalised, against torchvision's transforms in a DataLoader
step     the training loop with all it keeps account of, against a loop written by hand for the same arithmetic
enlarge  the same loop for super-resolution
masks    and for segmentation
boxes    and for detection
sounds   and for spectrograms of sounds
people   and for verification, with a head and by loss=contrastive
start    seconds from the command to the first step, against importing torch and torchvision

A step is told in wall time and in the processor time of its thread, which leaves out the turns of other jobs; with
OMP_NUM_THREADS=1 that thread does all of it.
"""

import gc
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench import data, tasks
from cnnbench.commands import train
from cnnbench.config import compose
from cnnbench.config.commands import SCHEMAS
from cnnbench.config.parsing import parse
from cnnbench.runs import result
from cnnbench.runs.run_directory import claim
from cnnbench.runs.stop_requests import StopRequests
from cnnbench.runs.tracker import Tracker
from cnnbench.runtime.device import Normalize, create_runtime
from cnnbench.training import setup, trainer
from cnnbench.training.callbacks import Callback, Checkpoints, Tracking, View, Warnings
from cnnbench.training.limits import StopRule
from cnnbench.utils import fast_start
from cnnbench.weights.checkpoint_manager import CheckpointManager

T = TypeVar("T")
TURNS = 7
STEPS = 20  # in each turn
STEPS_OF_SMALL = 80  # for nets whose step takes some 15 ms: of 20, what an epoch costs once would be 2 %
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


def training(folder: str, *overrides: str) -> View:
    """As `cnnbench train` makes it, at its first step."""
    plain = ["data.num_classes=10", "data.num_images=5120", "data=synthetic", "epochs=1000", f"run.dir={folder}"]
    cfg = parse(SCHEMAS["train"], compose.compose("train", [*plain, *overrides]))
    runtime = create_runtime(cfg.device, cfg.precision.value, cfg.seed)
    dataset = tasks.complete(cfg, data.load_dataset(cfg.data))
    model, spec = train.build(cfg, dataset, io.StringIO())
    task = tasks.find(dataset.task).create(cfg, model).suited(dataset, dataset.val, runtime)
    parts, state = setup.build(cfg, runtime, dataset, model, spec, claim(Path(folder), cfg, "auto"), task=task)
    return View(parts, state, StopRule.of(cfg, task.primary), StopRequests(), None)


class Times(NamedTuple):
    """Milliseconds of a step."""

    wall: float
    thread: float

    @classmethod
    def now(cls) -> "Times":
        return cls(1000 * time.perf_counter(), 1000 * time.thread_time())

    def step_since(self, begin: "Times", steps: int) -> "Times":
        return Times(*((now - before) / steps for now, before in zip(self, begin, strict=True)))


def in_turn(kinds: dict[str, Callable[[], T]], turns: int = TURNS) -> dict[str, list[T]]:
    """A B A B …; what each gives, turn by turn. The first turn of each only warms up."""
    found: dict[str, list[T]] = {name: [] for name in kinds}
    for turn in range(turns + 1):
        for name, measure in kinds.items():
            value = measure()
            if turn:
                found[name].append(value)
            shown = value.wall if isinstance(value, Times) else value
            print(f"\r{turn}/{turns} {name}: {shown:.4g}   ", end="", file=sys.stderr, flush=True)
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
    nets = (
        ("resnet20", 32, by_hand, ()),
        ("resnet18", 64, by_hand, ()),
        ("colorizer", 32, by_hand_of_task, ("task=colorization", "model.width=0.25")),
    )
    for name, size, hand, more in nets:
        with tempfile.TemporaryDirectory() as folder:
            ours = training(folder, f"model={name}", f"data.image_size={size}", *more, "augment=none")
            beside(f"{name}, {size} px", hand, ours, Path(folder))


def bench_enlarge() -> None:
    for name, size, batch in (("srcnn", 33, 16), ("espcn", 51, 64)):
        with tempfile.TemporaryDirectory() as folder:
            ours = training(folder, "task=super_resolution", "recipe=synthetic", f"model={name}",
                            f"data.image_size={size}", "augment=turn_flip", f"batch_size={batch}")  # fmt: skip
            beside(f"{name}, {size} px", enlarging_by_hand, ours, Path(folder), STEPS_OF_SMALL)


def bench_masks() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_masks(Path(folder) / "set")
        own = ["data=masks", f"data.root={folder}/set", "data.image_size=180", "data.num_classes=null",
               "data.num_images=null"]  # fmt: skip
        ours = training(
            f"{folder}/run", *own, "model=fcn8s", "model.backbone=squeezenet1_0", "optim=adamw", "batch_size=8"
        )
        beside("fcn8s on squeezenet1_0, 180 px", masks_by_hand, ours, Path(folder) / "run")


def write_masks(folder: Path) -> None:
    """Noise with a mask of noise for each image, 11 classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(8 * STEPS + 8):
        split = "train" if number < 8 * STEPS else "val"
        for part, size in (("images", (180, 240, 3)), ("masks", (180, 240))):
            (folder / split / part).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(256 if part == "images" else 11, size=size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / part / f"{number}.png")


def bench_boxes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_boxes(Path(folder) / "set")
        own = ["task=detection", "data=boxes", f"data.root={folder}/set", "data.image_size=300",
               "data.num_classes=null", "data.num_images=null", "augment=none",
               "model=ssd", "optim=adamw", "batch_size=4"]  # fmt: skip
        ours = training(f"{folder}/run", *own)
        beside("ssd on squeezenet1_0, 300 px", by_hand_of_task, ours, Path(folder) / "run")


def write_boxes(folder: Path) -> None:
    """Noise with ten boxes in each image, of 3 classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 4 * STEPS), ("val", 4)):
        lines = ["image,class,xmin,ymin,xmax,ymax"]
        (folder / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(256, size=(200, 200, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
            for left, top, side in rng.integers([0, 0, 20], [140, 140, 60], size=(10, 3)).tolist():
                lines.append(f"{number}.png,kind{side % 3},{left},{top},{left + side},{top + side}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def bench_sounds() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sounds(Path(folder) / "set")
        own = ["data=sounds", f"data.root={folder}/set", "data.num_classes=null", "data.num_images=null",
               "data.val_fraction=0.1", "model=resnet8", "augment=none",
               "optim.clip=null", "batch_size=32"]  # fmt: skip
        ours = training(f"{folder}/run", *own)
        side = ours.parts.spec.input.image_size
        beside(f"resnet8, spectrograms of {side} px", by_hand, ours, Path(folder) / "run")


def write_sounds(folder: Path) -> None:
    """Half a second of a tone in noise, of one of ten heights."""
    import numpy as np
    from scipy.io import wavfile

    rng = np.random.default_rng(0)
    for number in range(36 * STEPS):
        kind = number % 10
        (folder / str(kind)).mkdir(parents=True, exist_ok=True)
        tone = np.sin(2 * np.pi * (300 + 200 * kind) * np.arange(4000) / 8000) + rng.normal(0, 0.5, 4000)
        wavfile.write(folder / str(kind) / f"{number}.wav", 8000, (6000 * tone).astype(np.int16))


def bench_people() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_people(Path(folder) / "set")
        for how in ("head=cosface", "loss=contrastive"):
            own = ["task=verification", "data=people", f"data.root={folder}/set", "data.num_classes=null",
                   "data.num_images=null", "model=sphereface4", "model.image_size=64", "model.width=0.5",
                   "model.bn=true", how, "augment=none", "optim.clip=null", "batch_size=32"]  # fmt: skip
            place = Path(folder) / how.partition("=")[2]
            beside(f"sphereface4, half width, {how}, 64 px", by_hand_of_task, training(str(place), *own), place)


def write_people(folder: Path) -> None:
    """Noise for each of 45 people."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(36 * STEPS):
        (folder / f"{number % 45}").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number % 45}" / f"{number}.png")


def masks_by_hand(ours: View, steps: int) -> Times:
    """The same net, batches and optimizer in the fewest lines, with the loss and the confusion matrix summed up."""
    model, optimizer, runtime = ours.state.model, ours.state.optimizer, ours.parts.runtime
    batches = some_steps(ours, steps)
    normalize = ours.state.normalize
    total, confusion = torch.zeros(()), torch.zeros(121, dtype=torch.int64)
    model.train()
    begin = Times.now()
    for batch in batches:
        masks = batch["target"].long()
        with runtime.autocast():
            scores = model(normalize(batch["image"]))
        loss = F.cross_entropy(scores.float(), masks, ignore_index=255)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        known = masks != 255
        places = masks[known] * 11 + scores.detach().max(1).indices[known]
        total, confusion = total + loss.detach(), confusion + torch.bincount(places, minlength=121)
    return Times.now().step_since(begin, len(batches))


def enlarging_by_hand(ours: View, steps: int) -> Times:
    """The same net, batches and optimizer in the fewest lines, with the loss and the PSNR summed up."""
    model, optimizer, runtime = ours.state.model, ours.state.optimizer, ours.parts.runtime
    batches = some_steps(ours, steps)
    total, decibels = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    model.train()
    begin = Times.now()
    for batch in batches:
        inputs = (batch["image"] / 255).contiguous(memory_format=torch.channels_last)
        truth = batch["target"].float()
        with runtime.autocast():
            answer = model(inputs)
        loss = F.mse_loss(answer.float(), truth / 255)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        error = ((255 * answer.detach()).round().clamp(0, 255) - truth)[..., 3:-3, 3:-3].square().mean((1, 2, 3))
        total, decibels = total + loss.detach(), decibels + (10 * torch.log10(255**2 / error)).sum()
    runtime.synchronize()
    return Times.now().step_since(begin, len(batches))


def beside(title: str, hand: Callable[[View, int], Times], ours: View, folder: Path, steps: int = STEPS) -> None:
    """Tell what a step of the loop by hand and of cnnbench's takes, in turn."""
    callbacks = usual_callbacks(ours, folder)
    found = in_turn({"by hand": lambda: hand(ours, steps), "cnnbench": lambda: loop(ours, callbacks, steps)})
    for callback in callbacks:
        callback.close()
    title = f"{title}, batch {ours.parts.batch_size}, {ours.parts.runtime.precision}: a step"
    table(title, "ms", {name: [value.wall for value in values] for name, values in found.items()})
    table(
        f"{title}, processor time", "ms", {name: [value.thread for value in values] for name, values in found.items()}
    )


def usual_callbacks(ours: View, folder: Path) -> list[Callback]:
    """What accompanies every training, begun."""
    manager = CheckpointManager(folder / "checkpoints", ours.parts.cfg.checkpoint)
    tracker = Tracker(folder, [], 0, sys.stderr, ours.parts.task, plotted=True)
    callbacks: list[Callback] = [Warnings(), Checkpoints(manager), Tracking(tracker)]
    for callback in callbacks:
        callback.on_start(ours)
    return callbacks


def some_steps(ours: View, steps: int) -> list[data.Batch]:
    return [batch for batch, _ in zip(ours.parts.train_batches.epoch(0), range(steps), strict=False)]


class ReadBeforehand(Callback):
    """Gives the loop batches that are there already, as the loop by hand has them."""

    def __init__(self, batches: list[data.Batch]) -> None:
        self.batches = batches

    def on_batches(self, view: View, batches: Iterable[data.Batch]) -> Iterable[data.Batch]:
        return self.batches


def loop(ours: View, callbacks: list[Callback], steps: int) -> Times:
    """Milliseconds per step of cnnbench's loop: schedule, metrics, guard, TensorBoard and all."""
    ours.state.progress.batch, batches = 0, some_steps(ours, steps)
    begin = Times.now()
    trainer._train_epoch(ours, [*callbacks, ReadBeforehand(batches)])
    ours.parts.runtime.synchronize()
    return Times.now().step_since(begin, len(batches))


def by_hand(ours: View, steps: int) -> Times:
    """The same net, batches and optimizer in the fewest lines, with the loss and the two errors summed up."""
    model, optimizer, runtime = ours.state.model, ours.state.optimizer, ours.parts.runtime
    batches, dataset = some_steps(ours, steps), ours.parts.dataset
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    total, hits = torch.zeros(()), torch.zeros(2, dtype=torch.int64)
    model.train()
    begin = Times.now()
    for batch in batches:
        inputs = ((batch["image"].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        targets = batch["target"]
        with runtime.autocast():
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found = logits.topk(5).indices == targets[:, None]
        total, hits = total + loss.detach(), hits + torch.stack([found[:, 0].sum(), found.sum()])
    runtime.synchronize()
    return Times.now().step_since(begin, len(batches))


def by_hand_of_task(ours: View, steps: int) -> Times:
    """The same in the fewest lines for a task with a loss and metrics of its own: these stay as they are."""
    model, optimizer, runtime, task = ours.state.model, ours.state.optimizer, ours.parts.runtime, ours.parts.task
    batches, dataset = some_steps(ours, steps), ours.parts.dataset
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    meter = task.meter(runtime)
    model.train()
    begin = Times.now()
    for batch in batches:
        inputs = ((batch["image"].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with runtime.autocast():
            outputs = model(inputs)
        loss = task.training_loss(outputs, batch["target"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        meter.add(loss, outputs, batch["target"])
    runtime.synchronize()
    return Times.now().step_since(begin, len(batches))


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
    runtime = create_runtime("auto", "auto", 0)
    there = data.place_images(dataset, runtime.to_device)
    loader = data.train_loader(there, cfg.augment, image_size=32, batch_size=128, seed=0, workers=None)
    normalize = Normalize(runtime, dataset.mean, dataset.std)

    def measure() -> float:
        return rate(normalize(batch["image"]) for batch in loader.epoch(0))

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


PARTS = {"input": bench_input, "step": bench_step, "enlarge": bench_enlarge, "masks": bench_masks, "boxes": bench_boxes,
         "sounds": bench_sounds, "people": bench_people, "start": bench_start}  # fmt: skip

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    # As the command line does, for both loops: memory is kept, and nothing that was imported is searched for garbage.
    fast_start.keep_freed_memory()
    gc.freeze()
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"bench_training.py: no part {', '.join(unknown)}\n{__doc__}")
    versions = ", ".join(f"{name} {version}" for name, version in result.versions().items())
    print(f"{date.today()}, {create_runtime('auto', 'auto', 0).name}, {torch.get_num_threads()} threads, {versions}")
    for name in chosen:
        PARTS[name]()
