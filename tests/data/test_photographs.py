"""Photographs without labels: their channels, squares on a grid, quarter turns, and what a folder must hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.sections import Crop
from cnnbench.data.luma import luma
from cnnbench.data.photographs import Photo, Photographs, in_channels, in_squares, size_of
from cnnbench.data.sources import Arrays
from cnnbench.data.windows import turned
from cnnbench.utils.errors import UserError
from tests.helpers.batches import arrays, train
from tests.helpers.data import augment_config
from tests.helpers.scenes import scene, write_scenes


def test_gray_files_are_taken_as_they_are_and_colour_becomes_luma(tmp_path: Path) -> None:
    colour = torch.from_numpy(scene(1)).permute(2, 0, 1)
    Image.fromarray(scene(1)).save(tmp_path / "colour.png")
    Image.fromarray(scene(1)[..., 0]).save(tmp_path / "gray.png")
    read = {name: Photo(str(tmp_path / f"{name}.png"), 1).as_pixels() for name in ("colour", "gray")}
    assert torch.equal(read["colour"], luma(colour).to(torch.uint8))
    assert torch.equal(read["gray"], colour[:1])
    assert Photo(str(tmp_path / "gray.png"), 3).as_pixels().shape == (3, 48, 60)


def test_a_picture_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(2)).save(tmp_path / "turned.jpg", exif=exif)
    assert size_of(str(tmp_path / "turned.jpg")) == (60, 48)
    assert Photo(str(tmp_path / "turned.jpg"), 3).as_pixels().shape == (3, 60, 48)


def test_squares_are_cut_on_a_grid_in_order(tmp_path: Path) -> None:
    files = write_scenes(tmp_path, 2)
    source = Photographs([str(file) for file in files], torch.zeros(2, dtype=torch.int64))
    found = in_squares(source, 20, 14).images
    image = torch.from_numpy(scene(0)).permute(2, 0, 1)
    assert found.shape == (2 * 3 * 3, 3, 20, 20)
    assert torch.equal(found[1], image[:, :20, 14:34]) and torch.equal(found[3], image[:, 14:34, :20])
    with pytest.raises(UserError, match=r"scene0.png' has 60 x 48 pixels, less than the squares of 49"):
        in_squares(source, 49, 14)


def test_images_in_memory_change_their_channels() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=(2, 3, 4, 4), dtype=np.uint8))
    source = Arrays(images, torch.zeros(2, dtype=torch.int64))
    assert in_channels(source, 3) is source
    gray = in_channels(source, 1)
    assert torch.equal(gray.images, luma(images).to(torch.uint8))
    assert torch.equal(in_channels(gray, 3).images, gray.images.repeat(1, 3, 1, 1))


def test_quarter_turns_are_those_of_rot90_and_occur_alike() -> None:
    images = torch.arange(4 * 9).view(4, 1, 3, 3)
    assert torch.equal(
        turned(images, torch.arange(4)), torch.cat([images[k : k + 1].rot90(k, (2, 3)) for k in range(4)])
    )
    dataset = arrays(200, 4)
    augment = augment_config(crop=Crop.none, flip=True, turn=True)
    counts = torch.zeros(8)
    for batch in train(dataset, augment, image_size=4, batch_size=50).epoch(0):
        for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
            original = dataset.train.images[index]
            all_ways = [one.rot90(k, (1, 2)) for one in (original, original.flip(2)) for k in range(4)]
            counts[next(way for way, one in enumerate(all_ways) if torch.equal(one, image))] += 1
    assert counts.sum() == 200 and counts.min() > 10, counts
