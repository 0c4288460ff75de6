"""Images decoded once and kept: a net sees the bits that it sees of images decoded anew in each epoch."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cnnbench.config.sections import AugmentConfig, Cache, Crop, Decoder, PaddingMode
from cnnbench.data import Dataset, Files, Keep, cache_of, eval_loader, kept, load_dataset, train_loader
from cnnbench.data.jpeg import draft_scale
from cnnbench.data.kept import Batches, Kept, Pieces
from cnnbench.data.photographs import Photographs
from cnnbench.data.sources import Arrays
from cnnbench.utils.errors import UserError
from tests.helpers.batches import CHANGED, same_batch
from tests.helpers.data import augment_config, class_tree, data_config, picture
from tests.helpers.scenes import write_scenes

KEEP = Keep(cache=Cache.true, threads=2)
AUGMENTS = {
    "resized": augment_config(crop=Crop.resized, flip=True, cutout=5),
    "large crops": augment_config(crop=Crop.resized, scale=[0.5, 1.0], color=0.3),
    "random": augment_config(crop=Crop.random, flip=True),
    "patch": augment_config(crop=Crop.patch, flip=True, turn=True),
    "pad": augment_config(crop=Crop.pad, padding=4, flip=True, cutout=5),
    "reflect": augment_config(crop=Crop.pad, padding=4, padding_mode=PaddingMode.reflect, flip=True, alternate=True),
    "pad, colour": augment_config(crop=Crop.pad, padding=4, flip=True, color=0.4),
    "none": augment_config(crop=Crop.none, flip=True),
    "changed": replace(CHANGED, crop=Crop.pad, padding=4, cutmix=1.0),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs of many shapes: large ones, which are decoded small, gray, CMYK, turned, PNG."""
    root = class_tree(tmp_path_factory.mktemp("mixed"), {"cat": 6, "dog": 5})
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, 700, 500).save(root / "cat" / "large.jpg")
    picture(2, 330, 900).save(root / "cat" / "high.jpg")
    picture(3, 500, 400).convert("L").save(root / "dog" / "gray.jpg")
    picture(4, 60, 80).convert("CMYK").save(root / "dog" / "cmyk.jpg")
    picture(5, 260, 300).save(root / "dog" / "turned.jpg", exif=exif)
    picture(6, 90, 70).save(root / "cat" / "other.png")
    return load_dataset(data_config("folder", root=root, val_fraction=0.3, crop_ratio=0.8))


def loaders(dataset: Dataset, augment: AugmentConfig, keep: Keep = KEEP, **keys: Any) -> tuple[Any, Any]:
    """The training's loader with images decoded anew, and with images kept."""
    given = {"image_size": 24, "batch_size": 4, "seed": 0, "workers": 0, **keys}
    return train_loader(dataset, augment, **given), train_loader(dataset, augment, keep=keep, **given)


def check_same(anew: Any, kept: Any, epochs: tuple[int, ...] = (0, 1)) -> None:
    for epoch in epochs:
        pairs = list(zip(anew.epoch(epoch), kept.epoch(epoch), strict=True))
        assert len(pairs) == len(anew) and all(same_batch(ours, theirs) for ours, theirs in pairs)
    last = len(anew) - 1
    assert same_batch(next(anew.epoch(1, last)), next(kept.epoch(1, last)))


@pytest.mark.parametrize("decode", [Decoder.auto, Decoder.pillow])
@pytest.mark.parametrize("kind", AUGMENTS)
def test_training_images_have_the_same_bits(mixed: Dataset, kind: str, decode: Decoder) -> None:
    anew, kept = loaders(mixed, AUGMENTS[kind], decode=decode)
    check_same(anew, kept)
    assert isinstance(kept.read, Kept)
    assert isinstance(kept.read.read, Batches if kind in ("pad", "reflect", "none") else Pieces)


def test_threads_ahead_and_other_ranks_see_the_same(mixed: Dataset) -> None:
    check_same(*loaders(mixed, AUGMENTS["resized"], replace(KEEP, ahead=True), rank=1, world_size=2))


def test_the_scales_of_a_jpeg_are_pillows() -> None:
    for width, height in ((1600, 1200), (333, 217), (9, 70)):
        for times in range(2, 12):
            with Image.new("RGB", (width, height)) as image:
                image.save(file := io.BytesIO(), "JPEG")
            with Image.open(file) as image:
                image.draft("RGB", (max(1, width // times), max(1, height // times)))
                assert image.size[0] == -(-width // draft_scale((width, height), times))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_validation_images_have_the_same_bits(mixed: Dataset, interpolation: str) -> None:
    dataset = replace(mixed, interpolation=interpolation)
    for whole in (False, True):
        given: dict[str, Any] = {"image_size": 24, "batch_size": 2, "workers": 0}
        for share in ({}, {"rank": 1, "world_size": 2}):
            anew, kept = (eval_loader(mixed.val, replace(dataset, whole=whole), keep=keep, **given, **share)
                          for keep in (None, KEEP))  # fmt: skip
            check_same(anew, kept, epochs=(0,))
            assert isinstance(kept.fill(), Files if whole else Arrays)


@pytest.mark.parametrize("crop", [Crop.random, Crop.resized, Crop.patch, Crop.pad])
def test_masks_move_with_their_images(tmp_path: Path, crop: Crop) -> None:
    rng, images, masks = np.random.default_rng(0), [], []
    for number, (width, height) in enumerate([(40, 30), (33, 50), (20, 22), (64, 48), (31, 31)]):
        images.append(str(tmp_path / f"{number}.jpg"))
        masks.append(str(tmp_path / f"{number}.png"))
        picture(number, width, height).save(images[-1])
        Image.fromarray(rng.integers(4, size=(height, width), dtype=np.uint8)).save(masks[-1])
    source = Files(images, masks)
    dataset = Dataset(name="test", classes=list("abcd"), mean=(0.5,) * 3, std=(1.0,) * 3, image_size=24,
                      crop_ratio=0.8, in_channels=3, train=source, val=source, split="val", whole=True)  # fmt: skip
    check_same(*loaders(dataset, augment_config(crop=crop, padding=3, flip=True, turn=True, color=0.2, rotate=20.0)))
    for each in (dataset, replace(dataset, whole=False)):
        given: dict[str, Any] = {"image_size": 24, "batch_size": 2, "workers": 0}
        check_same(*(eval_loader(source, each, keep=keep, **given) for keep in (None, KEEP)), epochs=(0,))


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_photographs_and_their_small_partners(tmp_path: Path, channels: int) -> None:
    files = write_scenes(tmp_path, 4)
    low = []
    for number, file in enumerate(files):
        with Image.open(file) as image:
            image.reduce(2).save(tmp_path / f"low{number}.png")
        low.append(str(tmp_path / f"low{number}.png"))
    source = Photographs([str(file) for file in files], torch.arange(4), channels=channels, low=low, scale=2)
    dataset = Dataset(name="test", classes=[], mean=(0.0,) * channels, std=(1.0,) * channels, image_size=24,
                      crop_ratio=1.0, in_channels=channels, train=source, val=source, split="val",
                      whole=True)  # fmt: skip
    check_same(*loaders(dataset, augment_config(crop=Crop.patch, flip=True, turn=True), batch_size=2))
    given: dict[str, Any] = {"image_size": 24, "batch_size": 2, "workers": 0}
    check_same(*(eval_loader(source, dataset, keep=keep, **given) for keep in (None, KEEP)), epochs=(0,))


def test_what_is_kept_is_said_once(mixed: Dataset) -> None:
    said: list[str] = []
    _, loader = loaders(mixed, AUGMENTS["none"], replace(KEEP, processes=2))
    loader.fill(said.append)
    loader.fill(said.append)
    assert len(said) == 1
    assert said[0].startswith("data.cache: 12 training images decoded once, in ")
    assert "20.7 kB of memory in each of 2 processes" in said[0]


def test_images_that_do_not_fit_are_decoded_anew(mixed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept.system, "free_memory", lambda: 30_000.0)
    said: list[str] = []
    anew, loader = loaders(mixed, AUGMENTS["none"], replace(KEEP, cache=Cache.auto))
    loader.fill(said.append)
    assert said == ["data.cache: 12 training images need more memory than the 15 kB that may be filled: 20.7 kB; "
                    "they are decoded anew in each epoch"]  # fmt: skip
    check_same(anew, loader)
    for cache in (Cache.true, Cache.device):
        with pytest.raises(UserError, match=rf"^data.cache={cache.value}: 12 training images need more memory"):
            loaders(mixed, AUGMENTS["none"], replace(KEEP, cache=cache))[1].fill()


def test_images_larger_than_those_that_were_tried(mixed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "TRIED", 1)
    monkeypatch.setattr(kept.system, "free_memory", lambda: 1_000_000.0)
    said: list[str] = []
    anew, loader = loaders(mixed, AUGMENTS["patch"], replace(KEEP, cache=Cache.auto))
    loader.fill(said.append)
    assert said == ["data.cache: 12 training images need more memory than the 500 kB that may be filled; "
                    "they are decoded anew in each epoch"]  # fmt: skip
    check_same(anew, loader)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_system_that_gives_no_memory(mixed: Dataset, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(self: Kept, *_: Any) -> None:
        raise error

    monkeypatch.setattr(Kept, "_one_tensor", refuse)
    said: list[str] = []
    loaders(mixed, AUGMENTS["none"], replace(KEEP, cache=Cache.auto))[1].fill(said.append)
    assert said == [
        "data.cache: 12 training images need more memory than the system gives; they are decoded anew in each epoch"
    ]


def test_a_file_that_breaks_is_named(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "tree", {"cat": 9, "dog": 9})
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.2))
    broken = Path(dataset.train.item(4))
    broken.write_bytes(b"no image any more")
    with pytest.raises(UserError, match=rf"cannot read the image '{broken}': not an image"):
        loaders(dataset, AUGMENTS["none"])[1].fill()
    broken.unlink()
    with pytest.raises(UserError, match=rf"'{broken}': there is no such file"):
        loaders(dataset, AUGMENTS["resized"])[1].fill()


def test_an_interrupt_ends_the_decoding(mixed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    _, loader = loaders(mixed, AUGMENTS["resized"])
    once: Callable[[Kept, int], Any] = Kept._once
    done: list[int] = []

    def interrupted(self: Kept, index: int) -> Any:
        done.append(index)
        if len(done) == 3:
            raise KeyboardInterrupt
        return once(self, index)

    monkeypatch.setattr(Kept, "_once", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loader.fill()
    assert loader.read.read is None


def test_the_settings_of_the_cache() -> None:
    assert cache_of(True) is Cache.true and cache_of(False) is Cache.false and cache_of("host") is Cache.host
    with pytest.raises(UserError, match=r"data.cache=yes: give one of auto, true, false, device, host"):
        cache_of("yes")


def test_nothing_is_kept_without_being_asked(mixed: Dataset) -> None:
    _, loader = loaders(mixed, AUGMENTS["none"], replace(KEEP, cache=Cache.false))
    assert not isinstance(loader.read, Kept)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for kind in ("none", "resized"):
        next(loaders(mixed, AUGMENTS[kind])[1].epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("decode", [Decoder.auto, Decoder.pillow])
def test_small_png_files_of_all_kinds(tmp_path: Path, decode: Decoder) -> None:
    """Most are not resized, some are turned, and one is named as what it is not."""
    root, photo = class_tree(tmp_path / "tree", {"cat": 3, "dog": 3}), picture(9, 24, 24)
    exif, text = Image.Exif(), PngInfo()
    exif[0x0112] = 6
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain": (photo, {}), "turned": (photo, {"exif": exif}), "text": (photo, {"pnginfo": text}),
        "gray": (photo.convert("L"), {}), "palette": (photo.convert("P"), {}), "alpha": (photo.convert("RGBA"), {}),
        "see-through": (photo, {"transparency": (1, 2, 3)}), "wide": (picture(8, 48, 24), {}),
        "larger": (picture(7, 60, 30), {}),
        "several": (photo, {"save_all": True, "append_images": [picture(1, 24, 24)]}),
    }  # fmt: skip
    for name, (image, keys) in kinds.items():
        image.save(root / "cat" / f"{name}.png", **keys)
        image.save(root / "dog" / f"{name}.png", **keys)
    photo.save(root / "dog" / "a_jpeg.png", "JPEG")
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.1))
    check_same(*loaders(dataset, AUGMENTS["pad"], decode=decode))
    given: dict[str, Any] = {"image_size": 24, "batch_size": 4, "workers": 0}
    check_same(*(eval_loader(dataset.train, dataset, keep=keep, **given) for keep in (None, KEEP)), epochs=(0,))
