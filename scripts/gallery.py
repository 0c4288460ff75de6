#!/usr/bin/env python3
"""Draw the pictures of docs/gallery.md into docs/gallery/: scripts/gallery.py [FOLDER OF RUNS]

The runs are on the handwritten digits, with nets that take two minutes of one core together; a folder of runs that
are there already is used again. Pictures are made small: at most 760 pixels wide, 48 colours.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

import cnnbench

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
WIDTH, COLOURS = 760, 48
OF_TRAINING = ("curves", "train_batch", "val_predictions", "confusion_matrix", "signals")
OF_EVALUATION = ("calibration", "coverage", "mistakes")
OF_A_NET = ("filters", "maps", "patches", "gradcam", "occlusion", "saliency", "embedding")


def main(runs: Path) -> None:
    GALLERY.mkdir(exist_ok=True)
    for file in [*of_digits(runs), *of_transfer(runs), *of_settings(runs)]:
        small(file, GALLERY / f"{name_of(file)}.png")
    print(f"{sum(file.stat().st_size for file in GALLERY.glob('*.png')) / 1000:.0f} kB in {GALLERY}")


def of_digits(runs: Path) -> list[Path]:
    """Pictures of a training that is too short, so that there are mistakes to see, and of what its net has learned."""
    trained = runs / "train"
    cnnbench.train(epochs=6, tracking__images=True, run__dir=trained)
    cnnbench.evaluate(weights=trained, run__dir=runs / "evaluate")
    seen = cnnbench.visualize(weights=trained, what=list(OF_A_NET), images=[3, 7], run__dir=runs / "visualize")
    whole = [trained / f"{name}.png" for name in OF_TRAINING]
    judged = [runs / "evaluate" / f"{name}.png" for name in OF_EVALUATION]
    return [*whole, *judged, *first_of_each(seen.pictures)]


def of_transfer(runs: Path) -> list[Path]:
    """Error of strategies against images and seconds."""
    cnnbench.sweep("finetune", transfer=["scratch", "svm", "deep_features"], data__fraction=[0.05, 0.2, 1], epochs=4,
                   sweep__dir=runs / "transfer")  # fmt: skip
    return [runs / "transfer" / "transfer.png"]


def of_settings(runs: Path) -> list[Path]:
    """Pictures that need no trained net."""
    cnnbench.train(lr_find=True, run__dir=runs / "lr_find")
    before = cnnbench.visualize(what=["batch", "schedule"], run__dir=runs / "before", augment="mixup", epochs=30)
    cnnbench.report(str(runs / "train"), history=True, out=runs / "history.png")
    return [runs / "lr_find" / "lr_find.png", *before.pictures, runs / "history.png"]


def first_of_each(pictures: list[Path]) -> list[Path]:
    """One picture of each kind, by the first word of its name."""
    return list({file.stem.partition("-")[0]: file for file in reversed(pictures)}.values())


def name_of(file: Path) -> str:
    return file.stem.partition("-")[0]


def small(file: Path, out: Path) -> None:
    with Image.open(file) as picture:
        image = picture.convert("RGB")
    image.thumbnail((WIDTH, 10_000), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
