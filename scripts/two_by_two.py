#!/usr/bin/env python3
"""Is what transfer=auto chooses the best of the strategies? All of them on pairs of a source and a target.

    scripts/two_by_two.py run PAIR … --root DIR [--seeds 0 1 2] [--amounts 5 20 100] [--strategies svm full …]
        [--cifar DIR] [--photographs DIR] [--sounds DIR] [--faces DIR] [--squeezenet FILE]

For each pair, amount (training images per class) and seed, a subset of the target is drawn, every strategy runs on it,
and is judged on test images that chose nothing. What was found stands in DIR/PAIR.json, a row for each strategy; a
run that was stopped goes on where it was.

Pairs: a source, zoo (resnet20, CIFAR-10) or squeezenet (ImageNet), a dash, and a target: digits, photographs (ants and
bees), cifar10, vehicles (four of its classes), sounds (spoken digits), faces (of twelve people).
"""

import argparse
import csv
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

import cnnbench
from cnnbench import data
from cnnbench.config.compose import compose
from cnnbench.tasks.classification import mistakes, plots
from cnnbench.training import callbacks, result

STRATEGIES = ("svm", "deep_features", "head", "partial", "full")
VALIDATED, TESTED = 40, 1000  # images at most: the first choose between a fitted head and what training made of it
VEHICLES = (0, 1, 8, 9)  # airplane, automobile, ship, truck
PEOPLE = 12  # those of the most images
RECORDINGS = 50  # of each digit and speaker


@dataclass(frozen=True)
class Images:
    """All images of a target. x: pixels (N, C, H, W), or paths; tested: indices that may be tested on, if it says."""

    x: Any
    y: np.ndarray
    tested: np.ndarray | None
    settings: tuple[str, ...]  # how the command line takes them


def digits(options: argparse.Namespace) -> Images:
    return _arrays(("data=digits",), "shift")


def cifar10(options: argparse.Namespace, classes: Sequence[int] = range(10)) -> Images:
    return _arrays(("data=cifar10", f"data.root={options.cifar}"), "pad_flip", classes)


def vehicles(options: argparse.Namespace) -> Images:
    return cifar10(options, VEHICLES)


def photographs(options: argparse.Namespace) -> Images:
    files = [file for file in _files(options.photographs, "*/*/*") if file.suffix == ".jpg"]
    tested = np.array([file.parts[-3] == "val" for file in files])
    return Images(files, _numbers([file.parent.name for file in files]), tested, ("data=list",))


def sounds(options: argparse.Namespace) -> Images:
    files = _files(options.sounds, "recordings/*.wav")
    return Images(files, np.array([int(file.name[0]) for file in files]), None, (
        "data=sounds", "recipe=spoken_digits", f"data.root={options.sounds}", "data.sound.rate=8000",
        "data.sound.seconds=1", "data.sound.range=50",
    ))  # fmt: skip


def faces(options: argparse.Namespace) -> Images:
    folders = sorted(Path(options.faces).glob("train/*"), key=lambda folder: -len(list(folder.iterdir())))[:PEOPLE]
    files = [file for folder in sorted(folders) for file in sorted(folder.iterdir())]
    return Images(files, _numbers([file.parent.name for file in files]), None, ("data=list",))


TARGETS: dict[str, Callable[[argparse.Namespace], Images]] = {
    "digits": digits,
    "photographs": photographs,
    "cifar10": cifar10,
    "vehicles": vehicles,
    "sounds": sounds,
    "faces": faces,
}
SIDES = {  # pixels that a net of a source sees of a target
    ("zoo", "digits"): 8,
    ("squeezenet", "photographs"): 96,
    "zoo": 32,
    "squeezenet": 48,
}


def _arrays(settings: Sequence[str], augment: str, classes: Sequence[int] = range(10)) -> Images:
    """A data set of the project in one piece: first what it trains on, then what it judges."""
    config: Any = OmegaConf.to_object(compose("train", list(settings)))
    found = data.load_dataset(config.data)
    parts = [source for source in (found.train, found.val) if isinstance(source, data.Arrays)]
    x = np.concatenate([part.images.numpy() for part in parts])
    y = np.concatenate([part.targets.numpy() for part in parts])
    kept = np.isin(y, classes)
    tested = np.arange(len(y)) >= len(parts[0])
    fitting = ("data=arrays", "data.values=[0,255]", f"augment={augment}")
    return Images(
        x[kept], np.searchsorted(classes, y[kept]), tested[kept] if "data=cifar10" in settings else None, fitting
    )


def _files(folder: str, pattern: str) -> list[Path]:
    return sorted(Path(folder).glob(pattern))


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


# A subset


def drawn(images: Images, amount: int, seed: int) -> dict[str, np.ndarray]:
    """Indices to train on, `amount` of each class and drawn by the seed; to validate on; and to test on, the same for
    all amounts and seeds."""
    test = _test_images(images)
    rng, free = np.random.default_rng(1000 + seed), np.ones(len(images.y), dtype=bool)
    free[test] = False
    if images.tested is not None:
        free &= ~images.tested
    order = rng.permutation(np.flatnonzero(free))
    train = np.concatenate([order[images.y[order] == label][:amount] for label in np.unique(images.y)])
    others = order[~np.isin(order, train)]
    return {"train": train, "val": _evenly(images.y, others, VALIDATED), "test": test}


def _test_images(images: Images) -> np.ndarray:
    """Up to TESTED images: those that are tested on everywhere, else at most two fifths of each class."""
    everywhere = np.arange(len(images.y)) if images.tested is None else np.flatnonzero(images.tested)
    order = np.random.default_rng(0).permutation(everywhere)
    share = 1.0 if images.tested is not None else 0.4
    parts = [order[images.y[order] == label] for label in np.unique(images.y)]
    return _evenly(images.y, np.concatenate([one[: int(share * len(one))] for one in parts]), TESTED)


def _evenly(y: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the indices, as many of each class as there are."""
    classes = np.unique(y)
    return np.concatenate([order[y[order] == label][: most // len(classes)] for label in classes])


def written(images: Images, parts: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Settings that name the subset, which is written below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(images.x, np.ndarray):
        file = folder / "images.npz"
        names = {"train": "{}", "val": "{}_val", "test": "{}_test"}
        np.savez(file, **{name.format("x"): images.x[parts[part]] for part, name in names.items()},
                 **{name.format("y"): images.y[parts[part]] for part, name in names.items()})  # fmt: skip
    else:
        file = folder / "images.csv"
        with file.open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(("file", "class", "split"))
            table.writerows(
                (str(images.x[at]), f"c{images.y[at]:02}", part) for part, all_of in parts.items() for at in all_of
            )
    return [*images.settings, f"data.file={file}"]


# The runs


def source_settings(source: str, target: str, options: argparse.Namespace) -> list[str]:
    side = f"data.image_size={SIDES.get((source, target), SIDES[source])}"
    if source == "zoo":
        return [side, "weights=zoo:resnet20-cifar10", "precision=fp32"]
    return [side, "model=torchvision", "model.name=squeezenet1_0", f"weights={options.squeezenet}", "precision=bf16"]


def run_pair(pair: str, options: argparse.Namespace) -> None:
    source, target = pair.split("-")
    images, file = TARGETS[target](options), options.root / f"{pair}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    common = [*source_settings(source, target, options), f"run.root={options.root}"]
    for seed, amount in itertools.product(options.seeds, options.amounts):
        parts, name = drawn(images, amount, seed), f"{pair}-{amount}-{seed}"
        settings = [*common, *written(images, parts, options.root / "data" / name)]
        for strategy in ("advice", *options.strategies):
            key = {"pair": pair, "amount": amount, "seed": seed, "strategy": strategy}
            if any(key.items() <= row.items() for row in rows):
                continue
            folder = options.root / "runs" / name / strategy
            found = advice(settings) if strategy == "advice" else judged(settings, strategy, seed, folder)
            rows.append({**key, "train_n": len(parts["train"]), **found})
            file.write_text(json.dumps(rows, indent=0) + "\n")


def advice(settings: list[str]) -> dict[str, Any]:
    found = cnnbench.finetune(*settings, "transfer.run=false").found
    found.pop("command")
    return {"advice": found}


def judged(settings: list[str], strategy: str, seed: int, run: Path) -> dict[str, Any]:
    """Errors of a strategy in percent: of the test images, and in the cross-validation of its SVM."""
    ran = cnnbench.finetune(*settings, f"transfer={strategy}", f"seed={seed}", f"run.dir={run}").found
    judged = cnnbench.evaluate(weights=run, split="test", precision="fp32").found
    return {
        "error": judged["top1_error"],
        "n": judged["n"],
        "val_error": ran["top1_error"],
        "cv_error": ran.get("cv_top1_error"),
        "layer": ran.get("layer"),
        "seconds": ran["wall_seconds"],
        "commit": ran["commit"],
    }


def without_pictures() -> None:
    """They take longer than most of these runs."""
    for owner, name in ((result, "draw_curves"), (result, "draw_validation"), (callbacks.Pictures, "on_epoch"),
                        (mistakes, "draw_cards"), (plots, "plot_confusion_matrix"), (plots, "plot_calibration"),
                        (plots, "plot_coverage")):  # fmt: skip
        setattr(owner, name, lambda *args: None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run"])
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--amounts", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    for name in ("cifar", "photographs", "sounds", "faces", "squeezenet"):
        parser.add_argument(f"--{name}", default=os.environ.get(f"TWO_BY_TWO_{name.upper()}"))
    options = parser.parse_args()
    without_pictures()
    for pair in options.pairs:
        run_pair(pair, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
