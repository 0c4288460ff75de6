"""Modes of images: each becomes RGB by one stated rule, on every path, or is refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.sections import Crop, OnBadImage
from cnnbench.data import load_dataset, read_image
from cnnbench.data.packing import encode
from cnnbench.data.pictures import as_picture
from cnnbench.data.transforms import decode_transform, sample_transform
from cnnbench.data.unreadable import why_unreadable
from cnnbench.utils.errors import UserError
from tests.helpers.data import augment_config, class_tree, data_config, picture

LEVELS = np.asarray(picture().convert("L"))
COLOURS = np.asarray(picture())
GRAY = np.stack([LEVELS] * 3, axis=-1)


def with_mode(pixels: np.ndarray, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(pixels)
    return image if mode is None else image.convert(mode)


def sixteen(mode: str) -> Image.Image:
    size = (LEVELS.shape[1], LEVELS.shape[0])
    order = ">" if mode.endswith("B") else "<"
    return Image.frombytes(mode, size, (LEVELS.astype(np.uint16) * 257).astype(f"{order}u2").tobytes())


# Mode -> image, suffixes of files that keep the mode, its pixels in RGB by the rule.
MODES: dict[str, tuple[Image.Image, tuple[str, ...], np.ndarray]] = {
    "1": (with_mode(LEVELS, "1"), ("png", "tif", "pbm"), np.asarray(with_mode(LEVELS, "1").convert("RGB"))),
    "L": (with_mode(LEVELS), ("png", "tif", "bmp", "pgm"), GRAY),
    "LA": (with_mode(LEVELS, "LA"), ("png", "tif"), GRAY),
    "La": (with_mode(LEVELS, "LA").convert("La"), (), GRAY),
    "P": (picture().quantize(64), ("png", "gif", "tif"), np.asarray(picture().quantize(64).convert("RGB"))),
    "PA": (with_mode(LEVELS, "P").convert("PA"), ("tif",), GRAY),
    "RGB": (picture(), ("png", "tif", "bmp", "ppm"), COLOURS),
    "RGBA": (with_mode(COLOURS, "RGBA"), ("png", "tif"), COLOURS),
    "RGBa": (with_mode(COLOURS, "RGBA").convert("RGBa"), (), COLOURS),
    "RGBX": (with_mode(COLOURS, "RGBX"), ("tif",), COLOURS),
    "CMYK": (with_mode(COLOURS, "CMYK"), ("tif",), COLOURS),
    "YCbCr": (with_mode(COLOURS, "YCbCr"), ("tif",), COLOURS),
    "HSV": (with_mode(COLOURS, "HSV"), (), np.asarray(with_mode(COLOURS, "HSV").convert("RGB"))),
    "I;16": (sixteen("I;16"), ("png", "tif"), GRAY),
    "I;16B": (sixteen("I;16B"), ("tif",), GRAY),
    "I;16L": (sixteen("I;16L"), (), GRAY),
    "I, 8 bits": (with_mode(LEVELS.astype(np.int32)), ("tif",), GRAY),
    "I, 16 bits": (with_mode(LEVELS.astype(np.int32) * 257), ("tif",), GRAY),
    "F in 0..1": (with_mode(LEVELS.astype(np.float32) / 255), ("tif", "pfm"), GRAY),
    "F in 0..255": (with_mode(LEVELS.astype(np.float32)), ("tif", "pfm"), GRAY),
    "F, a bit too wide": (with_mode(LEVELS.astype(np.float32) / np.float32(254) - np.float32(0.002)), ("tif",), GRAY),
}  # fmt: skip
CASES = [pytest.param(name, suffix, id=f"{name} {suffix}") for name, case in MODES.items() for suffix in case[1]]


def difference(pixels: Any, truth: np.ndarray) -> int:
    return int(np.abs(np.asarray(pixels).astype(int) - truth).max())


@pytest.mark.parametrize("name", MODES)
def test_an_image_in_memory_becomes_rgb_by_the_rule(name: str) -> None:
    image, _, truth = MODES[name]
    assert difference(as_picture(image, 3), truth) <= 3  # CMYK, HSV and YCbCr round on their way there and back


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_a_file_has_the_same_pixels_on_every_path(tmp_path: Path, name: str, suffix: str) -> None:
    image, _, truth = MODES[name]
    path = tmp_path / f"image.{suffix}"
    image.save(path)
    read = read_image(path)
    assert read.mode == "RGB" and difference(read, truth) <= 3
    assert why_unreadable(str(path)) == ""
    augment = augment_config(crop=Crop.none)
    whole = sample_transform(augment, 24, 1.0)(read)
    decoded = decode_transform(augment, 24, 1.0, "bilinear")(str(path))
    assert (whole.int() - decoded.int()).abs().max() <= 2  # Pillow and torch round
    (tmp_path / "packed.jpg").write_bytes(encode(str(path), 30, 100, "bilinear").data)
    assert np.abs(np.asarray(read_image(tmp_path / "packed.jpg")).astype(int) - np.asarray(read)).mean() < 8


REFUSED = {
    "large floats": with_mode(LEVELS.astype(np.float32) * 4 + 1),
    "floats below zero": with_mode(LEVELS.astype(np.float32) / 255 - 0.5),
    "normalised": with_mode((LEVELS.astype(np.float32) - 127) / 60),
    "not a number": with_mode(np.where(LEVELS > 100, np.nan, LEVELS / 255).astype(np.float32)),
    "32 bits": with_mode(LEVELS.astype(np.int32) * 70_000),
    "integers below zero": with_mode(LEVELS.astype(np.int32) - 128),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_without_a_clear_range_are_refused_as_an_unreadable_file_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.tif"
    REFUSED[name].save(path)
    sentence = r"its pixels are (floats|whole numbers) from \S+ to \S+: scale them to 0\.\.\d+ or 0\.\.\d+$"
    for read in (read_image, decode_transform(augment_config(crop=Crop.none), 24, 1.0, "bilinear")):
        with pytest.raises(UserError, match=rf"^cannot read the image '.*image\.tif': {sentence}"):
            read(str(path))
    assert why_unreadable(str(path)) == encode(str(path), 30, 90, "bilinear").error != ""
    with pytest.raises(UserError, match=f"^{sentence}"):
        as_picture(REFUSED[name], 3)


def test_refused_images_are_left_out_and_counted(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "data", {"cat": 6, "dog": 6})
    REFUSED["large floats"].save(root / "cat" / "9.tif")
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.2, on_error=OnBadImage.skip))
    assert len(dataset.unreadable) == 1 and "its pixels are floats" in dataset.unreadable[0]


def test_a_float_tiff_is_its_8_bit_copy(tmp_path: Path) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(16, 16).numpy()
    Image.fromarray(every.astype(np.float32) / 255).save(tmp_path / "float.tif")
    assert np.array_equal(np.asarray(read_image(tmp_path / "float.tif"))[..., 0], every)
