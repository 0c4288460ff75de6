"""Image files: every kind becomes RGB the right way up, and a broken one is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.data import Dataset, Files, eval_loader, read_image
from cnnbench.utils.errors import UserError
from tests.helpers.data import picture


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    truth = picture()
    gray = np.asarray(truth.convert("L"))
    truth.convert("L").save(tmp_path / "gray.png")
    assert np.array_equal(pixels(tmp_path / "gray.png"), np.stack([gray] * 3, axis=-1))
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    assert np.array_equal(pixels(tmp_path / "gray16.png")[..., 0], gray)
    palette = truth.quantize(16)
    palette.save(tmp_path / "palette.gif")
    palette.save(tmp_path / "transparent.png", transparency=bytes(range(16)))
    for name in ("palette.gif", "transparent.png"):
        assert np.array_equal(pixels(tmp_path / name), np.asarray(palette.convert("RGB")))
    truth.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "cmyk.jpg").astype(int) - np.asarray(truth)).mean() < 8
    truth.convert("RGBA").save(tmp_path / "alpha.png")
    assert np.array_equal(pixels(tmp_path / "alpha.png"), np.asarray(truth))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    truth = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees clockwise to view
    truth.save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "phone.png"), np.rot90(np.asarray(truth), -1))


def test_broken_exif_does_not_break_the_image(tmp_path: Path) -> None:
    picture().save(tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01" + bytes(range(40)))
    assert pixels(tmp_path / "odd.jpg").shape == (30, 40, 3)


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.jpg"
    picture(width=200, height=200).save(path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello", "gone": b""}[kind])
    if kind == "gone":
        path.unlink()
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "gone"])
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=rf"^cannot read the image '.*{kind}\.jpg': .+"):
        read_image(broken(tmp_path, kind))


def test_a_broken_file_is_named_across_workers(tmp_path: Path, files: Dataset) -> None:
    assert isinstance(files.train, Files)
    paths = [*files.train.paths[:9], str(broken(tmp_path, "truncated")), *files.train.paths[9:]]
    dataset = replace(files, train=Files(paths, torch.arange(len(paths))))
    loader = eval_loader(dataset.train, dataset, image_size=8, batch_size=4, workers=2)
    batches = loader.epoch()
    assert len(next(batches)["target"]) == len(next(batches)["target"]) == 4
    with pytest.raises(UserError) as error:
        next(batches)
    assert type(error.value) is UserError and "truncated.jpg" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
