"""Made-up photographs: smooth colours with sharp shapes, from which a net can learn to enlarge."""

from pathlib import Path

import numpy as np
from PIL import Image


def scene(seed: int, height: int = 48, width: int = 60) -> np.ndarray:
    """uint8 (H, W, 3): a gradient with discs and bars."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([(x * a + y * b) % 256 for a, b in rng.integers(1, 4, (3, 2))], axis=2).astype(np.uint8)
    for _ in range(6):
        row, column, size = rng.integers(height), rng.integers(width), rng.integers(4, 14)
        round_ = rng.random() < 0.5
        inside = (y - row) ** 2 + (x - column) ** 2 < size**2 if round_ else abs(x - column + (y - row) / 3) < size / 3
        image[inside] = rng.integers(0, 256, 3)
    return image


def write_scenes(folder: Path, count: int, first: int = 0, **size: int) -> list[Path]:
    """PNGs of so many scenes below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"scene{number}.png" for number in range(first, first + count)]
    for number, file in enumerate(files, start=first):
        Image.fromarray(scene(number, **size)).save(file)
    return files
