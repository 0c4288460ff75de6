#!/usr/bin/env python3
"""How fast images of JPEG files become batches: the usual pipeline, ours, and ours from the packed form, side by side.

    scripts/bench_data.py [DIR] [--images 2000] [--workers 2] [--rounds 5] [--batch 128]
    scripts/bench_data.py [DIR] [--images 2000] --memory

DIR has a folder of JPEGs per class. Without it, photograph-like ones of 500 x 375 are made. Fewer files than --images
are read under several names. All crop alike: RandomResizedCrop(224, scale 0.08 to 1, aspect 3/4 to 4/3), mirrored at
random. Every pipeline keeps its workers from epoch to epoch and has run one epoch before the clock starts; then they
take turns, an epoch each. Prints a table in Markdown: the median, the extremes, and the ratio to the usual pipeline.

With --memory: the memory that the main process and a worker take at most, for --images and for ten times as many.
"""

import argparse
import io
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import decode_jpeg

from cnnbench.cli import main as cli
from cnnbench.config import commands, compose, parsing
from cnnbench.config.sections import Crop, Decoder
from cnnbench.data import load_dataset, train_loader
from cnnbench.data.transforms import decode_transform
from cnnbench.utils.system import cores

SIZE = 224
Epoch = Callable[[int], Iterator[Any]]
"""The number of an epoch -> the images of its batches."""


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    if args.peak:
        print(json.dumps(peak(Path(args.dir), Path(args.peak) if args.peak != "raw" else None, args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = Path(args.dir) if args.dir else photographs(folder / "made", 200)
        if args.memory:
            print(memory(source, folder, args))
            return
        tree = grown(source, folder / "tree", args.images)
        packed = prepared(tree, folder / "packed")
        pipelines = {
            "torchvision: ImageFolder, Pillow, ToTensor, Normalize": usual(tree, args, normalize=True),
            "the same as uint8, normalised later": usual(tree, args, normalize=False),
            "cnnbench data.decode=pillow": ours(tree, None, args, Decoder.pillow),
            "**cnnbench, raw**": ours(tree, None, args, Decoder.auto),
            "cnnbench, raw, threads for processes": threads(tree, args),
            "**cnnbench, packed**": ours(tree, packed, args, Decoder.auto),
        }
        speeds = take_turns(pipelines, args.rounds)
        print(report(speeds, args, source, packed))
        print(decoding(tree, packed))


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", nargs="?")
    for name, default in (("images", 2000), ("workers", 2), ("rounds", 5), ("batch", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # of this process, for --memory
    return parser.parse_args()


# The trees of images


def photographs(folder: Path, count: int) -> Path:
    """Noise whose spectrum falls as 1/f, as that of photographs does, in two classes."""
    rng = np.random.default_rng(0)
    height, width = 375, 500
    falloff = 1 / np.maximum(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)), 1 / width)
    falloff[0, 0] = 0  # no image is lighter than another
    for index in range(count):
        spectra = (np.fft.rfft2(rng.normal(size=(height, width))) * falloff for _ in range(3))
        light, *tints = (
            plane / plane.std() for plane in map(np.fft.irfft2, spectra) for plane in [plane - plane.mean()]
        )
        planes = [light + 0.3 * tint for tint in (*tints, -sum(tints))]
        pixels = (128 + 55 * np.stack(planes, axis=-1)[:, :width]).clip(0, 255).astype(np.uint8)
        path = folder / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
    return folder


def grown(source: Path, tree: Path, images: int) -> Path:
    """A tree of links to the JPEGs of the source, each as often as it takes."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len({path.parent for path in files}) < 2:
        raise SystemExit(f"{source} needs two folders of JPEGs or more, one for each class")
    for index in range(images):
        path = files[index % len(files)]
        link = tree / path.parent.name / f"{index}-{path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return tree


def prepared(tree: Path, packed: Path) -> Path:
    with redirect_stdout(sys.stderr):
        if cli.main(["prepare", "data=folder", f"data.root={tree}", f"out={packed}", "data.val_fraction=0.001"]):
            raise SystemExit("cnnbench prepare failed")
    return packed


# The pipelines


def usual(tree: Path, args: Any, *, normalize: bool) -> Epoch:
    """What torchvision's references, timm's and Lightning's examples do, but for the details."""
    last = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*steps, *(last if normalize else [transforms.PILToTensor()])])
    dataset = ImageFolder(str(tree), transform)
    loader = DataLoader(dataset, args.batch, shuffle=True, num_workers=args.workers,
                        persistent_workers=args.workers > 0)  # fmt: skip
    return lambda epoch: (images for images, _ in loader)


def _composed(tree: Path, packed: Path | None) -> Any:
    more = [f"data.packed={packed}"] if packed else ["data.val_fraction=0.001"]
    cfg = compose.compose("train", ["model=resnet18", "data=folder", f"data.root={tree}", *more])
    return parsing.parse(commands.SCHEMAS["train"], cfg)


def ours(tree: Path, packed: Path | None, args: Any, decode: Decoder) -> Epoch:
    cfg = _composed(tree, packed)
    cfg.augment.crop, cfg.augment.scale, cfg.augment.flip = Crop.resized, [0.08, 1.0], True
    loader = train_loader(load_dataset(cfg.data), cfg.augment, image_size=SIZE, batch_size=args.batch, seed=0,
                          workers=args.workers, decode=decode)  # fmt: skip
    return lambda epoch: (batch["image"] for batch in loader.epoch(epoch))


def threads(tree: Path, args: Any) -> Epoch:
    """The same work in threads of this process: the decoder and the resizing release the interpreter's lock."""
    cfg = _composed(tree, None)
    cfg.augment.crop, cfg.augment.scale, cfg.augment.flip = Crop.resized, [0.08, 1.0], True
    source = load_dataset(cfg.data).train
    transform = decode_transform(cfg.augment, SIZE, 0.875, "bilinear")

    def epoch(number: int) -> Iterator[Any]:
        order = torch.randperm(len(source)).tolist()
        with ThreadPoolExecutor(max(1, args.workers)) as pool:
            images = pool.map(transform, map(source.item, order))
            for start in range(0, len(order), args.batch):
                yield torch.stack([next(images) for _ in order[start : start + args.batch]])

    return epoch


def take_turns(pipelines: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Images per second of each pipeline in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(rounds + 1):
        for name, epoch in pipelines.items():
            begin = time.perf_counter()
            count = sum(map(len, epoch(number)))
            if number:  # not the first, in which the workers start
                speeds[name].append(count / (time.perf_counter() - begin))
                print(f"round {number}: {speeds[name][-1]:7.0f}/s  {name}", file=sys.stderr)
    return speeds


# What was found


def report(speeds: dict[str, list[float]], args: Any, source: Path, packed: Path) -> str:
    base = statistics.median(next(iter(speeds.values())))
    sizes = [path.stat().st_size for path in source.rglob("*") if path.is_file()]
    shards = sum(path.stat().st_size for path in packed.glob("*.tar"))
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}"
    what = "photographs" if args.dir else "made-up photographs"
    lines = [
        f"{date.today()}, {processor()}, {cores()} cores; {versions}, Python {platform.python_version()}.",
        f"{args.images:,} {what}, {sum(sizes) / len(sizes) / 1e3:.0f} kB a file, {shards / args.images / 1e3:.0f} kB",
        f"packed; {args.workers} workers, batches of {args.batch}, median of {args.rounds} rounds in turn.",
        "",
        "| pipeline | images/s | least to most | ratio |",
        "|---|--:|--:|--:|",
    ]
    for name, found in speeds.items():
        middle = statistics.median(found)
        lines.append(f"| {name} | {middle:,.0f} | {min(found):,.0f} to {max(found):,.0f} | {middle / base:.2f} |")
    return "\n".join(lines)


def processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.processor()


def decoding(tree: Path, packed: Path) -> str:
    """Whole images decoded per second of one core's time."""
    raw = [path.read_bytes() for path in sorted(tree.rglob("*.jpg"))[:300]]
    source = load_dataset(_composed(tree, packed).data).train
    small = [source.item(index).read() for index in range(min(300, len(source)))]

    def pillow(data: bytes) -> None:
        Image.open(io.BytesIO(data)).convert("RGB")

    def turbo(data: bytes) -> None:
        decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    lines = ["", "| decoding alone, images/s and core | raw | packed |", "|---|--:|--:|"]
    for name, decode in (("Pillow", pillow), ("torchvision.io.decode_jpeg", turbo)):
        lines.append(f"| {name} | {rate(decode, raw):,.0f} | {rate(decode, small):,.0f} |")
    return "\n".join(lines)


def rate(decode: Callable[[bytes], None], images: list[bytes]) -> float:
    found = []
    for _ in range(3):
        begin = time.process_time()
        for data in images:
            decode(data)
        found.append(len(images) / (time.process_time() - begin))
    return statistics.median(found)


# Memory


def memory(source: Path, scratch: Path, args: Any) -> str:
    """A table of the peaks, each measured in a process of its own."""
    lines = ["| images | | main process | a worker |", "|--:|---|--:|--:|"]
    for count in (args.images, 10 * args.images):
        tree = grown(source, scratch / f"tree{count}", count)
        packed = prepared(tree, scratch / f"packed{count}")
        for name, where in (("raw", "raw"), ("packed", str(packed))):
            command = [sys.executable, __file__, str(tree), "--peak", where, "--workers", str(args.workers)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            lines.append(f"| {count:,} | {name} | {found['main']:.0f} MB | {found['worker']:.0f} MB |")
    return "\n".join(lines)


def peak(tree: Path, packed: Path | None, args: Any) -> dict[str, float]:
    """MB that this process and its workers took at most over one epoch, or over 200 batches of a longer one."""
    epoch = ours(tree, packed, args, Decoder.auto)  # kept: the workers end with it
    for _ in islice(epoch(0), 200):
        pass
    workers = [child.pid for child in multiprocessing.active_children()]
    return {"main": most("self"), "worker": max(most(pid) for pid in workers)}


def most(pid: int | str | None) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
