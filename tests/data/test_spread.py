"""A warning where the images of a set hardly differ from each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.data import Arrays, Files, hardly_differ
from tests.helpers.data import picture


def saved(folder: Path, images: list[Image.Image], suffix: str) -> Files:
    paths = [str(folder / f"{number}.{suffix}") for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return Files(paths, torch.zeros(len(paths), dtype=torch.int64))


def twelve_bits(seed: int) -> Image.Image:
    return Image.fromarray(np.asarray(picture(seed).convert("L")).astype(np.uint16) * 16)


@pytest.mark.parametrize(
    ("images", "suffix"),
    [
        pytest.param([Image.new("RGB", (40, 30), (level, 0, 0)) for level in range(6)], "png", id="nearly black"),
        pytest.param([picture(0)] * 6, "jpg", id="one image many times"),
        pytest.param([twelve_bits(seed) for seed in range(6)], "png", id="12 of 16 bits"),
    ],
)
def test_images_that_hardly_differ_are_told(tmp_path: Path, images: list[Image.Image], suffix: str) -> None:
    text = hardly_differ(saved(tmp_path, images, suffix))
    assert text.startswith("the images hardly differ: in 6 of them a pixel varies by ")


def test_pictures_that_differ_are_not_told(tmp_path: Path) -> None:
    assert hardly_differ(saved(tmp_path, [picture(seed, 300, 200) for seed in range(6)], "jpg")) == ""
    (tmp_path / "3.jpg").write_bytes(b"no image")  # is named when it is read
    assert hardly_differ(Files([str(tmp_path / "3.jpg")] * 4, torch.zeros(4, dtype=torch.int64))) == ""


def test_images_in_memory_are_judged_too() -> None:
    targets = torch.zeros(40, dtype=torch.int64)
    assert hardly_differ(Arrays(torch.full((40, 1, 8, 8), 7, dtype=torch.uint8), targets))
    noise = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert hardly_differ(Arrays(noise, targets)) == ""
