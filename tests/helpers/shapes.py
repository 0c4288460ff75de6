"""Made-up images with masks, as files: a bright square and a dark bar on noise."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["ground", "square", "bar"]


def write(folder: Path, count: int, *, size: tuple[int, int] = (24, 32), seed: int = 0, palette: bool = False) -> None:
    """Write FOLDER/images and FOLDER/masks of so many pictures of a height and width."""
    rng = np.random.default_rng(seed)
    height, width = size
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = rng.integers(100, 156, (height, width, 3), np.uint8), np.zeros(size, np.uint8)
        y, x, row = rng.integers(0, height - 8), rng.integers(0, width - 8), rng.integers(0, height - 3)
        for value, label, part in ((230, 1, np.s_[y : y + 8, x : x + 8]), (20, 2, np.s_[row : row + 3, 4:-4])):
            image[part], mask[part] = value, label
        mask[:, 0] = 255
        drawn = Image.fromarray(mask)
        if palette:
            drawn.putpalette([0, 0, 0, 10, 200, 30, 200, 10, 30, *[255] * 759])  # a short one would make 255 a 3
        Image.fromarray(image).save(folder / "images" / f"{number:02}.png")
        drawn.save(folder / "masks" / f"{number:02}.png")


def write_set(root: Path, *, train: int = 24, val: int = 8, named: bool = True, palette: bool = False,
              size: tuple[int, int] = (24, 32)) -> Path:  # fmt: skip
    """Write ROOT/train, ROOT/val and ROOT/classes.txt; returns ROOT."""
    write(root / "train", train, palette=palette, size=size)
    write(root / "val", val, seed=1, palette=palette, size=size)
    if named:
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root
