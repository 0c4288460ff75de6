"""Train each classical net on the digits with the settings that a user gets by default, and compare with a threshold.

Only the side of the images is set, since the nets' own would take hours on a processor, and for nets of 56 layers the
number of epochs.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass

from cnnbench.config.sections import Format
from cnnbench.output.tables import render
from cnnbench.utils.errors import unknown


@dataclass(frozen=True)
class Net:
    """A net, the side of its images in pixels, and the top-1 error in percent that it has to stay below."""

    size: int
    threshold: float
    model: str = ""  # by default the net's name here
    epochs: int | None = None  # by default those of the recipe, 15
    precision: str = ""


# Guessing has an error of 90 %. The thresholds lie well above the worst seed in docs/proof-of-life.md.
NETS = {
    "alexnet": Net(63, 15),
    "vgg11": Net(32, 10),
    "nin": Net(48, 10),
    "nin_cifar": Net(16, 12),
    "googlenet": Net(48, 15, precision="fp32"),  # in bf16 a CPU gets 5x5 filters over maps of one pixel wrong
    "googlenet-aux": Net(80, 30, model="googlenet"),  # large enough for the auxiliary heads
    "plain20": Net(16, 10),
    "plain32": Net(16, 25),
    "plain56": Net(16, 60, epochs=45),
    "resnet20": Net(16, 6),
    "resnet32": Net(16, 6),
    "resnet56": Net(16, 10, epochs=45),
    "preact_resnet20": Net(16, 5),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/proof_of_life", description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"by default all: {', '.join(NETS)}")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each net with the seeds 0 to N - 1")
    parser.add_argument("--format", default="table", choices=[format.value for format in Format])
    options = parser.parse_args()
    for name in options.nets:
        if name not in NETS:
            parser.error(str(unknown("net", name, NETS)))
    jobs = [(name, seed) for name in options.nets or NETS for seed in range(options.seeds)]
    rows = []
    for number, (name, seed) in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] cnnbench train {' '.join(arguments(name, seed))}", file=sys.stderr, flush=True)
        rows.append(row(name, seed))
    print(render(rows, Format(options.format)))
    missed = [f"{row['net']} (seed {row['seed']})" for row in rows if row["verdict"] != "learned"]
    if missed:
        print(f"missed the threshold: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def arguments(name: str, seed: int) -> list[str]:
    """Of `cnnbench train`."""
    net = NETS[name]
    others = {"epochs": net.epochs, "precision": net.precision}
    given = [f"{key}={value}" for key, value in others.items() if value]
    return [f"model={net.model or name}", f"data.image_size={net.size}", *given, f"seed={seed}"]


def row(name: str, seed: int) -> dict[str, object]:
    """Train one net; what it came to."""
    begin, threshold = time.perf_counter(), NETS[name].threshold
    where = ["run.root=outputs/proof_of_life", "resume=never", "format=json"]
    command = [sys.executable, "-m", "cnnbench", "train", *arguments(name, seed), *where]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout) if done.returncode == 0 else {}
    learned = bool(result) and result["top1_error"] < threshold
    return {
        "net": name,
        "seed": seed,
        "pixels": NETS[name].size,
        "steps": result.get("steps"),
        "top-1 error": result.get("top1_error"),
        "below": threshold,
        "seconds": round(time.perf_counter() - begin),
        "verdict": "learned" if learned else "MISSED" if result else f"failed with exit code {done.returncode}",
    }


if __name__ == "__main__":
    sys.exit(main())
