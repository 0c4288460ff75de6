"""People that are none: each has a pattern of coloured squares, and its images differ by shifts, light and noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def portraits(person: int, count: int, side: int = SIDE) -> list[np.ndarray]:
    """Images uint8 (side, side, 3) of one person."""
    rng = np.random.default_rng(1000 + person)
    pattern = rng.integers(40, 216, (4, 4, 3)).repeat(side // 4, 0).repeat(side // 4, 1).astype(float)
    found = []
    for _ in range(count):
        shift, light = rng.integers(-1, 2, 2), rng.uniform(0.8, 1.2)
        image = np.roll(pattern, shift, (0, 1)) * light + rng.normal(0, 12, pattern.shape)
        found.append(image.clip(0, 255).astype(np.uint8))
    return found


def write_person(folder: Path, person: int, count: int) -> list[str]:
    """Files of one person in `folder`; their names."""
    folder.mkdir(parents=True)
    names = [f"{number:02d}.png" for number in range(count)]
    for name, image in zip(names, portraits(person, count), strict=True):
        Image.fromarray(image).save(folder / name)
    return names


def write_people(root: Path, train: int = 10, test: int = 6, each: int = 5) -> Path:
    """ROOT/train/NAME, ROOT/test/NAME, and ROOT/pairs.tsv: of each test person two pairs, and as many of two people."""
    for person in range(train):
        write_person(root / f"train/a{person:02d}", person, each)
    for person in range(test):
        write_person(root / f"test/b{person:02d}", 100 + person, each)
    same = [(f"test/b{n:02d}/0{i}.png", f"test/b{n:02d}/0{i + 2}.png", 1) for n in range(test) for i in (0, 1)]
    others = [(f"test/b{n:02d}/0{i}.png", f"test/b{(n + 1 + i) % test:02d}/0{i + 3}.png", 0) for n in range(test)
              for i in (0, 1)]  # fmt: skip
    write_pairs(root / "pairs.tsv", [*same, *others])
    return root


def write_pairs(file: Path, rows: Sequence[tuple[object, ...]], head: str = "first\tsecond\tsame") -> None:
    file.write_text("\n".join([head, *("\t".join(map(str, row)) for row in rows)]) + "\n")
