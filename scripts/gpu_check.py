#!/usr/bin/env python3
"""What a GPU gives, in one command of at most nine minutes: scripts/gpu_check.sh OUT [PART ...]

same      replayed steps (CUDA graphs) beside eager ones, weight by weight; a run that was killed and resumed
small     resnet20 on images of 32 pixels, held on the device, beside bare loops
large     ResNet-50 on images of 224 pixels, beside bare loops
start     seconds of whole commands, and of their first epochs
cifar94   experiment=cifar10_94: on CIFAR-10 where CIFAR=DIR is given, else on made-up images of its shape
memory    a batch that does not fit: VGG-19 at 8,192 images
jpeg      photographs, made up, from files, packed, and decoded on the device

Each part is a process with a time limit of its own; what it found before that is kept. Rows stand in OUT/gpu.jsonl, the
table is printed last and stands in OUT/gpu.md. TINY=1 tries all of it on a CPU, with small nets: then the numbers mean
nothing.
"""

import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

TINY = os.environ.get("TINY") == "1"
DEVICE = "cpu" if TINY else "cuda"
SECONDS = 0.05 if TINY else 2.0  # of each measurement of speed
LIMITS = {"same": 600 if TINY else 90, "small": 120, "large": 95, "start": 75, "cifar94": 60, "memory": 40, "jpeg": 60}
BASE = ["data=synthetic", "data.num_classes=10", f"device={DEVICE}", "epochs=1000", "resume=never"]


# What ran, and its table


def main(out: Path, chosen: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows, begin = out / "gpu.jsonl", time.monotonic()
    rows.write_text("")
    for name in chosen:
        began = time.monotonic()
        print(f"== {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--part", name, str(out)]
        with (out / f"{name}.log").open("w") as log:
            ended = finish(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True), LIMITS[name])
        if ended:
            add(rows, name, ended, see=f"{name}.log")
        print(f"   {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    page = table(out, time.monotonic() - begin)
    (out / "gpu.md").write_text(page)
    print(page)


def finish(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for a part. Returns why it is not whole; empty where it is."""
    try:
        code = process.wait(seconds)
        return f"ended with exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        process.wait()
        return f"cut after {seconds:.0f} s"


def add(rows: Path, part: str, what: str, **found: Any) -> None:
    with rows.open("a") as file:
        file.write(json.dumps({"part": part, "what": what, **found}) + "\n")
    print(part, what, found, flush=True)


def table(out: Path, seconds: float) -> str:
    """Page of all rows, part by part."""
    import torch
    import torchvision

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [f"{date.today()}, {name}, {os.cpu_count()} cores, torch {torch.__version__}, torchvision "
             f"{torchvision.__version__}; {seconds:.0f} s in all{', TINY' if TINY else ''}"]  # fmt: skip
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += ["", f"| {part} | found | goal |", "|---|---|---|"]
        for row in rows:
            if row["part"] == part:
                told = ", ".join(f"{number(value)} {key}" if isinstance(value, float | int) else f"{value}"
                                 for key, value in row.items() if key not in ("part", "what", "goal"))  # fmt: skip
                lines.append(f"| {row['what']} | {told} | {row.get('goal', '')} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


# A training to measure


def begun(folder: str, *overrides: str) -> Any:
    """A training at its first step, as `cnnbench train` makes it."""
    import bench_training as bench

    return bench.training(folder, *BASE, *overrides)


def epoch_of(view: Any, callbacks: Iterable[Any] = ()) -> None:
    """Train on all batches once, validate nothing."""
    from cnnbench.training import trainer

    view.state.progress.batch = 0
    trainer._train_epoch(view, [*callbacks])
    view.state.progress.epoch += 1


def rate(view: Any, one_epoch: Callable[[], None]) -> float:
    """Images per second of whole epochs, after two that warm up, for some seconds."""
    for _ in range(2):
        one_epoch()
    view.parts.runtime.synchronize()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        one_epoch()
        view.parts.runtime.synchronize()
        count += len(view.parts.dataset.train)
    return count / (time.perf_counter() - begin)


def speed_of_cnnbench(*overrides: str) -> float:
    import bench_training as bench

    with tempfile.TemporaryDirectory() as folder:
        view = begun(folder, *overrides)
        callbacks = bench.usual_callbacks(view, Path(folder))
        found = rate(view, lambda: epoch_of(view, callbacks))
        for callback in callbacks:
            callback.close()
    return found


def speed_of_bare_loop(wrap: Callable[[Any], Any], *overrides: str) -> float:
    """The same net, batches and optimizer in the fewest lines; wrap: what is called in place of the net."""
    import torch
    from torch.nn import functional as F

    with tempfile.TemporaryDirectory() as folder:
        view = begun(folder, *overrides, "graphs=false")
        model, runtime, dataset = view.state.model, view.parts.runtime, view.parts.dataset
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        net, epochs = wrap(model), iter(range(10**6))
        mean, std = (torch.tensor(v, device=DEVICE).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
        total, hits = torch.zeros((), device=DEVICE), torch.zeros(2, dtype=torch.int64, device=DEVICE)

        def one_epoch() -> None:
            model.train()
            for batch in view.parts.train_batches.epoch(next(epochs)):
                inputs = ((batch["image"].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
                with runtime.autocast():
                    logits = net(inputs)
                loss = F.cross_entropy(logits.float(), batch["target"])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                found = logits.detach().topk(5).indices == batch["target"][:, None]
                total.add_(loss.detach())
                hits.add_(torch.stack([found[:, 0].sum(), found.sum()]))

        return rate(view, one_epoch)


def compare(note: Callable[..., None], kinds: dict[str, tuple[Callable[[], float], str]]) -> None:
    """Images per second of each kind, and their ratio to the first."""
    first = 0.0
    for name, (measure, goal) in kinds.items():
        try:
            found = measure()
        except Exception as error:  # one kind must not cost the others
            note(name, failed=in_short(error))
            continue
        first = first or found
        note(name, **{"images/s": found, "of the first": found / first}, goal=goal)


def in_short(error: Exception) -> str:
    traceback.print_exception(error)  # to the part's log
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


# The parts

POOLED = ("airbench, Muon", "alexnet, dropout", "vgg11, dropout", "googlenet, auxiliary heads")
"""Nets with poolings that have no deterministic kernel."""
MIXED = ("augment.policy=trivial", "augment.mixup=0.4", "augment.cutmix=1", "augment.erase=0.5", "augment.rotate=15",
         "augment.blur=1", "stochastic_depth=0.3")  # fmt: skip


def same(note: Callable[..., None]) -> None:
    """Steps with and without graphs, in deterministic arithmetic."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before the first matrix product
    batch = 4 if TINY else 32
    small = [f"data.num_images={12 * batch + 7}", f"batch_size={batch}", "data.image_size=32", "augment=pad_flip"]
    kinds = {
        "resnet20": ["model=resnet20", *small],
        "resnet20, EMA, 3 microbatches, clipping": [
            "model=resnet20",
            *small,
            "ema=0.9",
            "accumulate=3",
            "optim.clip=1",
        ],
        "resnet20, AdamW": ["model=resnet20", *small, "optim=adamw"],
        "resnet20, RMSProp": ["model=resnet20", *small, "optim=rmsprop"],
        "resnet20, mixed images, stochastic depth": ["model=resnet20", *small, *MIXED],
        "airbench, Muon": ["model=airbench", *small],
        "alexnet, dropout": ["model=alexnet", *small[:2], "data.image_size=96", "augment=resized_flip"],
        "vgg11, dropout": ["model=vgg11", *small[:2], "data.image_size=64", "augment=resized_flip"],
        "googlenet, auxiliary heads": ["model=googlenet", *small[:2], "data.image_size=128", "augment=resized_flip"],
        "nin": ["model=nin_cifar", *small],
        "inception_v3": ["model=inception_v3", *small[:2], "data.image_size=96", "augment=resized_flip"],
        "colours and cutout": ["model=resnet20", *small, "augment.color=0.4", "augment.cutout=8"],
        "super-resolution": ["model=srcnn", "task=super_resolution", *small[:2], "data.image_size=33"],
        "colorization": ["model=colorizer", "task=colorization", "model.width=0.25", *small[:3]],
    }
    for name, overrides in list(kinds.items())[: 1 if TINY else None]:
        exact = name not in POOLED
        try:
            first = state_after(exact, *overrides, "graphs=false")
            again = state_after(exact, *overrides, "graphs=false")
            second = state_after(exact, *overrides, "graphs=auto")
        except Exception as error:
            note(name, failed=in_short(error))
            continue
        goal = "the same bits" if exact else "as near as eager again"
        note(f"{name}: eager again", found=difference(first, again), goal=goal)
        note(f"{name}: graphs", found=difference(first, second), goal=goal, replayed=second["replayed"])
    killed(note)


def state_after(exact: bool, *overrides: str) -> dict[str, Any]:
    """Weights, moments and counts after an epoch of 12 steps and a short one; exact: by deterministic kernels alone."""
    import torch

    from cnnbench.runtime.device import create_runtime

    with tempfile.TemporaryDirectory() as folder:
        view = begun(folder, *overrides, "seed=1", "recipe=synthetic")
        create_runtime(DEVICE, "bf16", 1, deterministic=exact)
        epoch_of(view)
        state = view.state.state_dict()
        recorded = view.state.recorded
        moments = {f"{i}.{k}": v for i, one in state["optimizer"]["state"].items() for k, v in one.items()}
        found = {
            **state["model"],
            **(state["ema"] or {}),
            **moments,
            **state["meter"],
            "guard": view.state.guard.counts,
        }
        whole = {name: torch.as_tensor(value).detach().cpu().double() for name, value in found.items()}
        return {"tensors": whole, "replayed": "replayed" if recorded and recorded.is_replayed else "eager"}


def difference(first: dict[str, Any], second: dict[str, Any]) -> str:
    import torch

    ours, theirs = second["tensors"], first["tensors"]
    other = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    if not other:
        return "the same bits"
    worst = max((ours[n] - theirs[n]).abs().max().item() / (theirs[n].abs().max().item() + 1e-30) for n in other)
    return f"{len(other)} of {len(ours)} tensors differ, by {worst:.1e} of their largest value"


def killed(note: Callable[..., None]) -> None:
    """The same run, left in peace and killed."""
    import torch

    own = ["train", "model=resnet8", "data=digits", f"epochs={1 if TINY else 30}", "deterministic=true",
           "graphs=auto", f"device={DEVICE}", *(["max_steps=4"] if TINY else [])]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cnnbench(*own, f"run.dir={folder}/whole")
        process = start(*own, "checkpoint.every=0.2s", f"run.dir={folder}/cut")
        last = Path(folder) / "cut/checkpoints/last.pt"
        until(lambda: last.exists() or process.poll() is not None)
        time.sleep(0 if TINY else 1.0)
        process.kill()
        process.wait()
        cnnbench(*own, f"run.dir={folder}/cut")
        whole, cut = (torch.load(Path(folder) / name / "checkpoints/last.pt", weights_only=False, map_location="cpu")
                      for name in ("whole", "cut"))  # fmt: skip
    equal = all(torch.equal(value, cut["model"][name]) for name, value in whole["model"].items())
    note("killed with SIGKILL and resumed", found="the same bits" if equal else "other weights", goal="the same bits")


def cnnbench(*args: str) -> float:
    """Seconds of a command. Its output goes to the log."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cnnbench", *args], check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begin


def start(*args: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "cnnbench", *args], stdin=subprocess.DEVNULL)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def small(note: Callable[..., None]) -> None:
    import torch

    images, batch = (32, 8) if TINY else (51200, 128)
    own = ["model=resnet20", f"data.num_images={images}", "data.image_size=32", "augment=pad_flip",
           f"batch_size={batch}"]  # fmt: skip
    large = [*own[:-1], "batch_size=1024"]
    kinds: dict[str, tuple[Callable[[], float], str]] = {
        "a bare loop, eager": (lambda: speed_of_bare_loop(lambda net: net, *own), ""),
        "cnnbench, graphs=auto": (lambda: speed_of_cnnbench(*own, "graphs=auto"), "60,000; 4 times the bare loop"),
        "cnnbench, graphs=false": (lambda: speed_of_cnnbench(*own, "graphs=false"), ""),
    }
    if not TINY:
        kinds |= {
            "cnnbench, graphs=auto, batch 1,024": (lambda: speed_of_cnnbench(*large, "graphs=auto"), ""),
            "a bare loop, batch 1,024": (lambda: speed_of_bare_loop(lambda net: net, *large), ""),
            "a bare loop, reduce-overhead": (
                lambda: speed_of_bare_loop(lambda net: torch.compile(net, mode="reduce-overhead"), *own), ""),
            "cnnbench, graphs=auto compile=true": (
                lambda: speed_of_cnnbench(*own, "graphs=auto", "compile=true"), "more"),
        }  # fmt: skip
    compare(note, kinds)


def large(note: Callable[..., None]) -> None:
    import torch

    net, size, batch, images = ("resnet8", 32, 8, 16) if TINY else ("resnet50", 224, 256, 2560)
    own = [
        f"model={net}",
        f"data.num_images={images}",
        f"data.image_size={size}",
        "augment=none",
        f"batch_size={batch}",
    ]
    kinds: dict[str, tuple[Callable[[], float], str]] = {
        "a bare loop, eager": (lambda: speed_of_bare_loop(lambda net: net, *own), ""),
        "cnnbench, graphs=auto": (lambda: speed_of_cnnbench(*own, "graphs=auto"), "1"),
        "cnnbench, graphs=false": (lambda: speed_of_cnnbench(*own, "graphs=false"), ""),
    }
    if not TINY:
        kinds |= {
            "cnnbench, graphs=auto compile=true": (
                lambda: speed_of_cnnbench(*own, "graphs=auto", "compile=true"),
                "1.35; 7,000 images/s",
            ),
            "a bare loop, compiled": (lambda: speed_of_bare_loop(torch.compile, *own), ""),
        }
    compare(note, kinds)


def first_epochs(path: Path) -> dict[str, float]:
    """Seconds of training after the first epoch, and of each further one."""
    rows = [json.loads(line)["seconds"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    each = [after - before for before, after in itertools.pairwise(rows)]
    return {"s first epoch": rows[0], **({"s a further epoch": statistics.median(each)} if each else {})}


def start_(note: Callable[..., None]) -> None:
    plain = [f"device={DEVICE}", "format=json", "graphs=auto"]
    net, size, batch, images = ("resnet8", 32, 128, 256) if TINY else ("resnet50", 224, 256, 12800)
    runs = {
        "digits, 15 epochs": ["model=resnet8", "data=digits", f"epochs={1 if TINY else 15}"],
        "resnet20, 51,200 images, 3 epochs": ["model=resnet20", "data=synthetic", "data.num_classes=10", "epochs=3",
                                              "data.image_size=32", "augment=pad_flip",
                                              f"data.num_images={256 if TINY else 51200}"],
        f"{net}, {images // batch} steps an epoch, 2 epochs": [
            f"model={net}", "data=synthetic", f"data.num_images={images}", "data.num_classes=10",
            f"data.image_size={size}", f"batch_size={batch}", "epochs=2"],
    }  # fmt: skip
    for name, args in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = cnnbench("train", *args, *plain, f"run.dir={folder}/run")
            note(name, **{"s in all": seconds}, **first_epochs(Path(folder) / "run"))
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import torch; torch.zeros(1, device='{DEVICE}')"], check=True)
    note("import torch, first tensor on the device", **{"s": time.perf_counter() - begin})


def cifar94(note: Callable[..., None]) -> None:
    where = os.environ.get("CIFAR")
    made_up = ["data=synthetic", "data.num_classes=10", "data.image_size=32",
               f"data.num_images={512 if TINY else 50000}"]  # fmt: skip
    own = ["experiment=cifar10_94", f"device={DEVICE}", "graphs=auto"]
    own += [f"data.root={where}"] if where else made_up
    own += ["epochs=1", "batch_size=128"] if TINY else []
    seeds = 1 if TINY else 5
    for more, goal in (([], "2.6 s of training after warm-up"), (["compile=true"], "")):
        if TINY and more:
            break
        with tempfile.TemporaryDirectory() as folder:
            wall = cnnbench("train", "-m", *own, *more, f"seed=range({seeds})", f"sweep.dir={folder}")
            runs = [path.parent for path in sorted(Path(folder).rglob("result.json"))]
            results = [json.loads((run / "result.json").read_text()) for run in runs]
            errors = [result["top1_error"] for result in results]
            times = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["seconds"] for run in runs]
            shown = {"% error, mean": statistics.mean(errors)} if where else {"images": "made up"}
            spent = {"s wall": wall, "s training, first seed": times[0],
                     "s training, later seeds": statistics.median(times[1:] or times)}  # fmt: skip
            note(f"{len(runs)} seeds in one process {' '.join(more)}", **shown, **spent, goal=goal)


def memory(note: Callable[..., None]) -> None:
    net, images, batch = ("resnet8", 256, 128) if TINY else ("vgg19", 16384, 8192)
    with tempfile.TemporaryDirectory() as folder:
        cnnbench("train", f"model={net}", "data=synthetic", "data.num_classes=10", f"data.num_images={images}",
                 f"data.image_size={32 if TINY else 64}", f"batch_size={batch}", "epochs=1", f"device={DEVICE}",
                 f"run.dir={folder}/run")  # fmt: skip
        result = json.loads((Path(folder) / "run/result.json").read_text())
    note(f"{net}, batch {batch:,}", warned="; ".join(result["warnings"]) or "it fits", goal="it trains")


def jpeg(note: Callable[..., None]) -> None:
    """AlexNet and ResNet-50 on photographs made up: files, packed, nvjpeg."""
    count, size, batch = (64, 64, 8) if TINY else (3000, 400, 256)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photos", count, size)
        data = ["data=folder", f"data.root={folder}/photos"]
        cnnbench("prepare", *data, f"out={folder}/packed")
        kinds = {"files": data, "packed": [*data, f"data.packed={folder}/packed"],
                 "nvjpeg": [*data, "data.decode=nvjpeg"]}  # fmt: skip
        for net in ["resnet8"] if TINY else ["alexnet", "resnet50"]:
            for name, own in kinds.items():
                if TINY and name == "nvjpeg":
                    continue
                with contextlib.suppress(subprocess.CalledProcessError):
                    done = subprocess.run(
                        [sys.executable, "-m", "cnnbench", "benchmark", f"model={net}", *own, f"device={DEVICE}",
                         f"batch_size={batch}", f"precisions={'fp32' if TINY else 'bf16'}", "compile=false",
                         f"seconds={SECONDS}", "warmup=2", "format=markdown", f"run.dir={folder}/{net}-{name}"],
                        capture_output=True, text=True, check=True)  # fmt: skip
                    print(done.stdout)
                    verdict = [line for line in done.stdout.splitlines() if line.startswith("- ")]
                    note(f"{net}, {name}", verdict=verdict[0].removeprefix("- ") if verdict else "none")


def write_photographs(folder: Path, count: int, size: int) -> None:
    """Smooth colours with noise, which compress like photographs: two classes, a training and a validation part."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("val" if number % 10 == 0 else "train") / f"class{number // 10 % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(256, size=(12, 16, 3), dtype=np.uint8)).resize((size * 4 // 3, size))
        pixels = np.asarray(coarse, dtype=np.int16) + rng.integers(-12, 13, size=(size, size * 4 // 3, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.jpg", quality=90)


PARTS = {"same": same, "small": small, "large": large, "start": start_, "cifar94": cifar94, "memory": memory,
         "jpeg": jpeg}  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    if not given:
        sys.exit(__doc__)
    if given[0] == "--part":
        rows = Path(given[2]) / "gpu.jsonl"
        PARTS[given[1]](lambda what, **found: add(rows, given[1], what, **found))
    else:
        unknown = [name for name in given[1:] if name not in PARTS]
        if unknown:
            sys.exit(f"gpu_check.py: no part {', '.join(unknown)}\n{__doc__}")
        main(Path(given[0]), given[1:] or list(PARTS))
