#!/usr/bin/env python3
"""cnnbench beside its peers: the same training as whole processes, in turn, A B C A B C …

    scripts/bench_peers.py --data DIR --peers-python ~/peers/bin/python [--rounds 3] [--epochs 1] [--compile [--warm]]

What each does is in scripts/peers/ (work.py says what is the same); cnnbench runs as its users run it. timm and
Lightning live in an environment of their own, which sees this one's torch:

    python -m venv ~/peers
    python -c 'import site; print(site.getsitepackages()[0])' > "$(echo ~/peers/lib/python3*/site-packages)/main.pth"
    ~/peers/bin/pip install timm lightning

Prints a Markdown table: wall time (median and range), the memory of all processes of a peer at most (shared pages
counted once), images (training and validation) per second of wall time, and ratios to the bare script and the fastest
peer; of the medians, and of the shortest times, which other work on the machine disturbed least.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = {
    "bare": "a bare script",
    "cnnbench": "cnnbench train",
    "references": "a loop in the style of torchvision's references",
    "timm_library": "timm (its library, as train.py uses it)",
    "lightning_fit": "Lightning",
}
PEERS = ("references", "timm_library", "lightning_fit")
TEST_IMAGES = 10_000
POLL = 0.5  # seconds between two looks at the memory


@dataclass(frozen=True)
class Ran:
    wall: float  # seconds
    processor: float  # seconds of all cores: what a busy machine disturbs less
    memory: int  # bytes


def main() -> None:
    args = arguments()
    ran: dict[str, list[Ran]] = {name: [] for name in args.which}
    environment, cache = {"PYTHONPATH": str(HERE.parent)}, tempfile.TemporaryDirectory()
    if args.warm:
        environment["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    for number in range(args.rounds):
        for name in args.which:  # in turn, so that a machine that slows down slows all
            with tempfile.TemporaryDirectory() as folder:
                ran[name].append(timed(command(name, args, Path(folder)), environment))
            last = ran[name][-1]
            text = f"{last.wall:.2f} s, {last.processor:.1f} s of processor time, {last.memory / 1e6:,.0f} MB"
            print(f"round {number + 1}: {name} {text}", file=sys.stderr, flush=True)
    print(page(ran, args))
    if args.json:
        args.json.write_text(json.dumps({name: [vars(one) for one in all] for name, all in ran.items()}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="cnnbench beside its peers; the script's docstring says how.")
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with timm and lightning")
    parser.add_argument("--which", type=lambda text: text.split(","), default=list(NAMES), help=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5120, help="training images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="all but the bare script compile their net")
    parser.add_argument("--warm", action="store_true", help="keep what was compiled from round to round")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--json", type=Path, help="write the single measurements there")
    args = parser.parse_args()
    if unknown := [name for name in args.which if name not in NAMES]:
        parser.error(f"unknown peer {unknown[0]}: choose from {', '.join(NAMES)}")
    if not (args.data / "cifar-10-batches-py").is_dir():
        parser.error(f"there is no cifar-10-batches-py in {args.data}")
    return args


def command(name: str, args: argparse.Namespace, out: Path) -> list[str]:
    """The command line of a peer, or cnnbench's own."""
    if name == "cnnbench":
        work = (f"data.fraction={args.images / 50_000}", "data.image_size=32", "batch_size=128", "optim.lr_batch=null",
                "optim.lr=0.05", "optim.weight_decay=5e-4", "schedule=cosine", f"epochs={args.epochs}",
                f"precision={args.precision}", f"compile={str(args.compile).lower()}")  # fmt: skip
        return [sys.executable, "-m", "cnnbench", "train", "model=resnet18", "data=cifar10", f"data.root={args.data}",
                "device=cpu", *work, f"run.dir={out / 'run'}"]  # fmt: skip
    flags = ["--compile"] if args.compile and name != "bare" else []
    work = ("--images", str(args.images), "--epochs", str(args.epochs), "--precision", args.precision, *flags)
    script = HERE / "peers" / f"{name}.py"
    return [args.peers_python, str(script), "--data", str(args.data), "--out", str(out), *work]


def timed(command: list[str], environment: dict[str, str]) -> Ran:
    """Run it to its end, watching the memory of its whole process group. It fails: so do we, with its last words."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory() as cache:
        more = {"TORCHINDUCTOR_CACHE_DIR": cache, **environment}  # compiled anew each time, unless told otherwise
        begin, used_before = time.perf_counter(), processor_seconds()
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env={**os.environ, **more}, start_new_session=True
        )
        memory = 0
        try:
            while process.poll() is None:
                memory = max(memory, group_memory(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
            wall = time.perf_counter() - begin
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)}\nfailed with {process.returncode}:\n{said.read()[-2000:]}")
        return Ran(wall, processor_seconds() - used_before, memory)


def processor_seconds() -> float:
    """Of all processes that this one has waited for so far, and those that they have."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def group_memory(group: int, proc: Path = Path("/proc")) -> int:
    """Bytes of all processes of a group, a page that several share counted in parts (PSS)."""
    total = 0
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) != group:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def page(ran: dict[str, list[Ran]], args: argparse.Namespace) -> str:
    """The table, under a line that says what was done where."""
    images = args.epochs * (args.images + TEST_IMAGES)
    wall = {name: statistics.median(one.wall for one in all) for name, all in ran.items()}
    best = {name: min(one.wall for one in all) for name, all in ran.items()}
    heads = ("", "wall s", "range", "processor s", "memory MB", "images/s", "/ bare", "/ fastest peer",
             "shortest / bare", "shortest / fastest peer")  # fmt: skip
    lines = [about(args), "", f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, all in ran.items():
        walls = sorted(one.wall for one in all)
        memory, used = (statistics.median(getattr(one, key) for one in all) for key in ("memory", "processor"))
        ratios = [text for times in (wall, best) for text in (ratio(name, times, ["bare"]), ratio(name, times, PEERS))]
        lines.append(
            f"| {NAMES[name]} | {wall[name]:.2f} | {walls[0]:.2f}–{walls[-1]:.2f} | {used:.1f} | {memory / 1e6:,.0f} | "
            f"{images / wall[name]:,.0f} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def ratio(name: str, times: dict[str, float], others: Iterable[str]) -> str:
    """The time of one over that of the fastest of the others, those of them that ran."""
    found = [times[other] for other in others if other in times]
    return f"{times[name] / min(found):.2f}" if found else "-"


def about(args: argparse.Namespace) -> str:
    ask = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = {}
    for python in {sys.executable, args.peers_python}:
        found |= json.loads(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout)
    versions = ", ".join(
        f"{name} {found[name]}" for name in ("torch", "torchvision", "timm", "lightning") if name in found
    )
    compiled = ", all but the bare script compiled" if args.compile else ""
    return (
        f"{time.strftime('%Y-%m-%d')}, {processor()}, {len(os.sched_getaffinity(0))} cores; Python "
        f"{platform.python_version()}, {versions}. {args.images:,} images, epochs {args.epochs}, {args.precision}"
        f"{compiled}; medians of {args.rounds} rounds."
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
