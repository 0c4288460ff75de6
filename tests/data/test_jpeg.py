"""Training images decoded only as far as a crop needs them: the same crops and, but for rounding, the same pixels."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Decoder
from cnnbench.data import Files, jpeg, load_dataset, train_loader
from cnnbench.data.sources import read_image
from cnnbench.data.transforms import decode_transform, sample_transform
from cnnbench.utils.errors import UserError
from tests.helpers.batches import same_batch
from tests.helpers.data import augment_config, class_tree, data_config, picture

AUGMENTS = {
    "resized": augment_config(crop=Crop.resized, flip=True),
    "resized, colour": augment_config(crop=Crop.resized, color=0.3),
    "random": augment_config(crop=Crop.random, flip=True),
    "pad": augment_config(crop=Crop.pad, padding=8),
    "none": augment_config(crop=Crop.none),
}


def both(path: Path, augment: AugmentConfig, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image as Pillow decodes and crops it, and as it is decoded here; with the same random numbers."""
    torch.manual_seed(seed)
    whole = sample_transform(augment, size, 0.875)(read_image(path))
    torch.manual_seed(seed)
    return whole, decode_transform(augment, size, 0.875, "bilinear")(str(path))


def difference(pair: tuple[Tensor, Tensor]) -> float:
    """Of two images, the mean over the pixels, in gray levels."""
    assert pair[0].shape == pair[1].shape and pair[0].dtype == pair[1].dtype == torch.uint8
    return (pair[0].int() - pair[1].int()).abs().float().mean().item()


@pytest.mark.parametrize("kind", AUGMENTS)
def test_the_crops_are_those_of_torchvisions_transforms(tmp_path: Path, kind: str) -> None:
    picture(3, 250, 190).save(tmp_path / "photo.jpg", quality=95)
    pairs = [both(tmp_path / "photo.jpg", AUGMENTS[kind], seed=seed) for seed in range(8)]
    assert max(map(difference, pairs)) < 1
    if AUGMENTS[kind].crop is not Crop.none:
        assert difference((pairs[0][0], pairs[1][0])) > 5  # another seed is seen


def test_a_large_image_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(5, 1600, 1200).save(tmp_path / "large.jpg", quality=95)
    monkeypatch.setattr(jpeg, "_whole", lambda *_: pytest.fail("all of it was decoded"))
    augment = augment_config(crop=Crop.resized, scale=[0.5, 1.0], flip=True)
    assert max(difference(both(tmp_path / "large.jpg", augment, seed=seed)) for seed in range(5)) < 1


def test_no_smaller_than_the_crop_needs(tmp_path: Path) -> None:
    """At least twice the crop's pixels in each direction are left to filter, as in Pillow's thumbnails."""
    picture(5, 1000, 800).save(tmp_path / "large.jpg")
    data = (tmp_path / "large.jpg").read_bytes()
    for side, times in ((800, 4), (400, 2), (255, 1), (90, 1)):
        region, pixels = jpeg.read_region(
            data, "large.jpg", lambda height, width, side=side: jpeg.Region(0, 0, side, side, 100, 100)
        )
        assert pixels.shape[1:] == (800 // times, 1000 // times)
        assert (region.height, region.width) == (side // times, side // times)


def kinds(folder: Path) -> dict[str, Path]:
    photo, exif = picture(7, 200, 150), Image.Exif()
    exif[0x0112] = 6
    images: dict[str, tuple[Any, dict[str, Any]]] = {
        "gray.jpg": (photo.convert("L"), {}),
        "cmyk.jpg": (photo.convert("CMYK"), {"quality": 95}),
        "turned.jpg": (photo, {"exif": exif}),
        "progressive.jpg": (photo, {"progressive": True}),
        "palette.png": (photo.quantize(64), {}),
        "alpha.png": (photo.convert("RGBA"), {}),
        "named_otherwise.jpg": (photo, {"format": "PNG"}),
        "moving.gif": (photo.quantize(64), {"save_all": True, "append_images": [photo.quantize(8)]}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in images}


def test_every_kind_of_file(tmp_path: Path) -> None:
    for name, path in kinds(tmp_path).items():
        assert difference(both(path, AUGMENTS["resized"])) < 1, name


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "gone", "pipe"])
def test_a_broken_file_is_named(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{kind}.jpg"
    picture(width=200, height=200).save(path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"hello"}.get(kind, b""))
    if kind in ("gone", "pipe"):
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=rf"^cannot read the image '.*{kind}\.jpg': .+"):
        decode_transform(AUGMENTS["resized"], 32, 0.875, "bilinear")(str(path))
    assert capfd.readouterr() == ("", "")


def test_noise_in_a_file_is_an_image_or_an_error_in_one_line(tmp_path: Path) -> None:
    """What torchvision refuses Pillow judges; nothing else than a UserError leaves."""
    picture(1, 120, 100).save(tmp_path / "noisy.jpg")
    content, rng = (tmp_path / "noisy.jpg").read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        noisy = bytearray(content)
        for place in rng.integers(len(noisy), size=8):
            noisy[place] = rng.integers(256)
        (tmp_path / "noisy.jpg").write_bytes(noisy)
        try:
            found = decode_transform(AUGMENTS["resized"], 32, 0.875, "bilinear")(str(tmp_path / "noisy.jpg"))
            outcomes.add(tuple(found.shape))
        except UserError as error:
            assert "noisy.jpg" in str(error) and len(str(error).splitlines()) == 1
            outcomes.add(())
    assert (3, 32, 32) in outcomes and () in outcomes


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("unsupported")


def files(folder: Path) -> Any:
    """A data set of every kind of file."""
    class_tree(folder / "tree", {"cat": 4, "dog": 4})
    dataset = load_dataset(data_config("folder", root=folder / "tree", val_fraction=0.25))
    paths = [*dataset.train.paths, *map(str, kinds(folder).values())] if isinstance(dataset.train, Files) else []
    return replace(dataset, train=Files(paths, torch.arange(len(paths))))


@pytest.mark.parametrize("refused", [False, True])
def test_decoding_in_batches_gives_the_same_images(
    tmp_path: Path, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for nvjpeg, here by torchvision's decoder for batches on the CPU; and where that one refuses, by Pillow."""
    dataset = files(tmp_path)
    if refused:
        monkeypatch.setattr("torchvision.io.decode_jpeg", refuse)
    loading: dict[str, Any] = {"image_size": 96, "batch_size": 4, "seed": 0, "workers": 0}
    one_by_one = train_loader(dataset, AUGMENTS["resized, colour"], **loading)
    batched = train_loader(dataset, AUGMENTS["resized, colour"], **loading, decode=Decoder.nvjpeg,
                           device=torch.device("cpu"))  # fmt: skip
    for epoch, start in ((0, 0), (1, 2)):
        pairs = list(zip(one_by_one.epoch(epoch, start), batched.epoch(epoch, start), strict=True))
        assert len(pairs) == len(one_by_one) - start
        assert all(same_batch(ours, theirs) for ours, theirs in pairs)


def test_pillow_decodes_as_before(tmp_path: Path) -> None:
    dataset = files(tmp_path)
    loader = train_loader(dataset, AUGMENTS["resized"], image_size=32, batch_size=4, seed=0, workers=0,
                          decode=Decoder.pillow)  # fmt: skip
    transform, seeds = sample_transform(AUGMENTS["resized"], 32, 1.0), np.random.default_rng((0, 0, 1))
    loader.finish.draw(seeds, len(dataset.train))
    drawn = seeds.integers(2**32, size=len(dataset.train))
    for batch in loader.epoch(0):
        for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
            torch.manual_seed(int(drawn[index]))
            assert torch.equal(image, transform(read_image(dataset.train.paths[index])))


def test_nvjpeg_without_a_gpu(tmp_path: Path, cnnbench: Any) -> None:
    root = class_tree(tmp_path / "tree", {"cat": 4, "dog": 4})
    ran = cnnbench("train", "model=resnet8", "data=folder", f"data.root={root}", "data.val_fraction=0.25", "device=cpu",
                   "data.decode=nvjpeg")  # fmt: skip
    assert ran.code == 2 and "needs an NVIDIA GPU, and this run is on cpu" in ran.err
    assert not list(tmp_path.glob("outputs/train/*"))
