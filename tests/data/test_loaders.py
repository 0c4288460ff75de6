"""Batches: what augmentation does, and that the data depends on seed, epoch and index alone."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from cnnbench.config.sections import AugmentConfig, Crop, PaddingMode
from cnnbench.data import (
    Arrays,
    Dataset,
    EvalTransform,
    Files,
    eval_loader,
    load_dataset,
    placed,
    read_image,
    train_loader,
)
from cnnbench.data.batched import ResizedCrop, jittered, pad, resized_crop
from cnnbench.data.transforms import sample_transform
from cnnbench.utils.errors import UserError
from tests.helpers.data import augment_config, class_tree, data_config, picture
from tests.helpers.paths import ROOT

PAD_FLIP = augment_config(crop=Crop.pad, padding=2, flip=True, cutout=3)
COLOR = augment_config(crop=Crop.pad, padding=2, flip=True, color=0.4)
RESIZED = augment_config(crop=Crop.resized, flip=True, cutout=4)


def arrays(count: int, size: int = 8) -> Dataset:
    """Random images; each one's target is its index."""
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=(count, 3, size, size), dtype=np.uint8))
    source = Arrays(images, torch.arange(count))
    return Dataset(name="test", classes=[], mean=(0.2, 0.4, 0.6), std=(1, 1, 1), image_size=size, crop_ratio=1.0,
                   in_channels=3, train=source, val=source, split="val")  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """23 pictures; each one's target is its index."""
    root = class_tree(tmp_path_factory.mktemp("pictures"), {"cat": 12, "dog": 13})
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.1, crop_ratio=0.8))
    assert isinstance(dataset.train, Files)
    return replace(dataset, train=Files(dataset.train.paths, torch.arange(len(dataset.train))))


def train(dataset: Dataset, augment: AugmentConfig, **keys: Any) -> Any:
    return train_loader(dataset, augment, **{"image_size": 8, "batch_size": 7, "seed": 0, "workers": 0, **keys})


def by_index(loader: Any, epoch: int = 0, start: int = 0) -> dict[int, Tensor]:
    return {
        int(target): image
        for images, targets in loader.epoch(epoch, start)
        for image, target in zip(images, targets, strict=True)
    }


def same(some: dict[int, Tensor], all_: dict[int, Tensor]) -> bool:
    return bool(some) and all(torch.equal(image, all_[index]) for index, image in some.items())


def test_shift_reaches_every_offset_and_flips_half_the_images() -> None:
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 8, 8)
    count, padding = 16_200, 4
    dataset = replace(arrays(1), train=Arrays(image.expand(count, 1, 8, 8), torch.arange(count)), mean=(0.0,))
    padded = np.pad(image[0].numpy(), padding)
    windows = {}
    for down in range(9):
        for right in range(9):
            window = padded[down : down + 8, right : right + 8]
            windows[window.tobytes()] = down, right, 0
            windows[window[:, ::-1].tobytes()] = down, right, 1
    counts = np.zeros((9, 9, 2), dtype=int)
    for images, _ in train(dataset, augment_config(crop=Crop.pad, padding=4, flip=True), batch_size=500).epoch(0):
        assert images.dtype == torch.uint8 and images.shape[1:] == (1, 8, 8)
        for result in images:
            counts[windows[result.numpy().tobytes()]] += 1
    deviation = (counts - 100) / np.sqrt(100)  # each of the 162 outcomes is expected 100 times
    assert np.abs(deviation).max() < 4.5 and (deviation**2).mean() < 1.5
    assert abs(counts[..., 1].sum() / count - 0.5) < 0.02


@pytest.mark.parametrize("augment", [PAD_FLIP, COLOR, RESIZED, augment_config(crop=Crop.random, flip=True)])
@pytest.mark.parametrize("size", [8, 12])
def test_images_on_a_device_are_augmented_there(augment: AugmentConfig, size: int) -> None:
    """Nothing goes to and fro, and nothing waits for the device: the meta device could not even answer."""
    there = placed(replace(arrays(51), crop_ratio=0.8), lambda tensor: tensor.to("meta"))
    batches = list(train(there, augment, image_size=size).epoch(0))
    assert len(batches) == 8
    for images, targets in batches:
        assert images.is_meta and targets.is_meta and images.dtype == torch.uint8
        assert images.shape == (len(targets), 3, size, size)
    assert all(
        images.is_meta for images, _ in eval_loader(there.val, there, image_size=size, batch_size=7, workers=0).epoch(0)
    )


def mirrored(loader: Any, images: Tensor, epoch: int) -> list[bool]:
    """Of each image whether it is its mirror image; there is nothing else to happen to it."""
    given = by_index(loader, epoch)
    found = [torch.equal(given[index], image.flip(-1)) for index, image in enumerate(images)]
    assert all(flipped or torch.equal(given[index], images[index]) for index, flipped in enumerate(found))
    return found


def test_alternating_flips_show_both_sides_in_two_epochs(files: Dataset) -> None:
    augment = augment_config(flip=True, alternate=True)
    for dataset in (arrays(200), files):
        plain = by_index(train(dataset, augment_config()))
        images = torch.stack([plain[index] for index in range(len(plain))])
        loader = train(dataset, augment)
        first, second, third = (mirrored(loader, images, epoch) for epoch in range(3))
        assert first == third == [not flipped for flipped in second]
        assert 0.2 < sum(first) / len(first) < 0.8
    assert mirrored(train(dataset, augment, seed=1), images, 0) != first


@pytest.mark.parametrize("mode", PaddingMode)
def test_padding_is_torchvisions(mode: PaddingMode) -> None:
    images = arrays(5, size=7).train
    assert isinstance(images, Arrays)
    theirs = functional.pad(images.images, [3], padding_mode=mode.value)
    assert torch.equal(pad(images.images, 3, mode.value), theirs)


def test_what_comes_in_at_the_edge_is_what_was_asked_for(files: Dataset) -> None:
    """Zeros where the padding is constant, never where it reflects: in memory and from files alike."""
    bright = arrays(60)
    bright = replace(bright, train=Arrays(bright.train.images.clamp(min=1), bright.train.targets))  # type: ignore[union-attr]
    for dataset in (bright, files):
        constant, reflect = (
            torch.stack(
                list(by_index(train(dataset, augment_config(crop=Crop.pad, padding=4, padding_mode=mode))).values())
            )
            for mode in (PaddingMode.constant, PaddingMode.reflect)
        )
        black = [(images == 0).all(1).all(-1).any(-1) for images in (constant, reflect)]  # whole rows of an image
        assert black[0].float().mean() > 0.5
        assert not black[1].any()


def test_cutout_sets_a_square_to_the_mean() -> None:
    dataset = arrays(400)
    assert isinstance(dataset.train, Arrays)
    fill = torch.tensor([51, 102, 153], dtype=torch.uint8)
    areas = set()
    for index, image in by_index(train(dataset, augment_config(cutout=3))).items():
        cut = (image == fill[:, None, None]).all(0)
        rows, columns = cut.any(1).nonzero(), cut.any(0).nonzero()
        height, width = (int(line.max() - line.min()) + 1 for line in (rows, columns))
        assert cut.sum() == height * width and {height, width} <= {2, 3}  # a side is cut off at the edge only
        assert torch.equal(image[:, ~cut], dataset.train.images[index][:, ~cut])
        areas.add((height, width))
    assert areas == {(2, 2), (2, 3), (3, 2), (3, 3)}


def test_random_crop_reaches_every_window_of_the_resized_image() -> None:
    dataset = replace(arrays(600, size=10), crop_ratio=0.8)
    assert isinstance(dataset.train, Arrays)
    found = set()
    for index, image in by_index(train(dataset, augment_config(crop=Crop.random))).items():
        whole = dataset.train.images[index]
        found |= {(y, x) for y in range(3) for x in range(3) if torch.equal(whole[:, y : y + 8, x : x + 8], image)}
    assert len(found) == 9


def test_resized_crop_covers_the_area_asked_for() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    image = Image.fromarray(np.stack([ramp, ramp.T, ramp], axis=-1))
    transform = sample_transform(augment_config(crop=Crop.resized, scale=[0.25, 0.25], ratio=[1.0, 1.0]), 100, 0.875)
    for _ in range(20):
        crop = transform(image).int()
        assert crop.shape == (3, 100, 100)
        assert [int(crop[0, 0, -1] - crop[0, 0, 0]), int(crop[1, -1, 0] - crop[1, 0, 0])] == [99, 99]  # half the side


def test_batched_resized_crops_are_torchvisions() -> None:
    """The pixels of each part, and how often which parts are drawn."""
    from torchvision.transforms import RandomResizedCrop
    from torchvision.transforms.v2 import functional

    images = arrays(40, size=37).train.images  # type: ignore[union-attr]
    crop = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    real, flip = torch.rand(40, crop.numbers), torch.arange(40) % 2
    part = crop.windows(real, 37, 37)
    for size in (16, 50):
        ours = resized_crop(images, part, flip, size)
        for image, result, mirrored, box in zip(images, ours, flip, torch.stack(part, 1).int().tolist(), strict=True):
            theirs = functional.resized_crop(image, *box, [size, size])
            theirs = theirs.flip(-1) if mirrored else theirs
            assert (result.int() - theirs.int()).abs().max() <= 1
    for scale, ratio in (((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (1.5, 3.0)), ((0.9, 1.0), (0.2, 0.5))):
        count = 20_000
        crop = ResizedCrop(scale=scale, ratio=ratio)
        found = torch.stack(crop.windows(torch.rand(count, crop.numbers), 30, 30), 1)
        draw = [RandomResizedCrop.get_params(images[0][:, :30, :30], list(scale), list(ratio)) for _ in range(4000)]
        expected = torch.tensor(draw, dtype=torch.float32)
        assert torch.equal(found, found.round()) and (found[:, :2] >= 0).all()
        assert (found[:, :2] + found[:, 2:] <= 30).all()
        error = (found.mean(0) - expected.mean(0)) / (expected.std(0) / 4000**0.5 + 0.01)
        assert error.abs().max() < 5


def test_batched_colours_are_torchvisions() -> None:
    """In each of the six orders, one after the other, up to the rounding that torchvision does in between."""
    from itertools import permutations

    from torchvision.transforms.v2 import functional

    images, steps = arrays(6).train.images, ("brightness", "contrast", "saturation")  # type: ignore[union-attr]
    factors = torch.tensor([0.7, 1.3, 0.65]).expand(6, 3)
    orders = list(permutations(range(3)))
    keys = torch.stack([torch.tensor(order).argsort() / 3 for order in orders])
    ours = jittered(images, torch.cat([(factors - 1) / 0.8 + 0.5, keys], 1), 0.4)
    for image, result, order in zip(images, ours, orders, strict=True):
        expected = image
        for kind in order:
            expected = getattr(functional, f"adjust_{steps[kind]}")(expected, float(factors[0, kind]))
        assert (result.int() - expected.int()).abs().max() <= 3
    assert not torch.equal(ours[0], ours[5])
    gray = images[:, :1]
    assert torch.equal(jittered(gray, torch.full((6, 6), 0.5), 0.4), gray)


@pytest.mark.parametrize(
    ("augment", "interpolation"),
    [(PAD_FLIP, "bilinear"), (COLOR, "bilinear"), (RESIZED, "bilinear"), (RESIZED, "bicubic")],
    ids=["shifted", "coloured", "resized", "by sample"],
)
def test_pixels_depend_on_seed_epoch_and_index_alone(augment: AugmentConfig, interpolation: str) -> None:
    dataset = replace(arrays(60), interpolation=interpolation)
    truth = by_index(train(dataset, augment, batch_size=60))
    assert len(truth) == 60
    assert same(by_index(train(dataset, augment, batch_size=7)), truth)
    assert same(by_index(train(dataset, augment, batch_size=14, rank=1, world_size=2)), truth)
    assert same(by_index(train(dataset, augment), start=5), truth)
    assert not same(by_index(train(dataset, augment), epoch=1), truth)
    assert not same(by_index(train(dataset, augment, seed=1)), truth)


def test_workers_change_nothing(files: Dataset) -> None:
    here = train(files, RESIZED, image_size=24)
    there = train(files, RESIZED, image_size=24, workers=2)
    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        batches = list(zip(here.epoch(epoch, start), there.epoch(epoch, start), strict=True))
        assert len(batches) == len(here) - start
        assert all(torch.equal(a, b) for ours, theirs in batches for a, b in zip(ours, theirs, strict=True))
    abandoned = there.epoch(0)
    next(abandoned)
    assert torch.equal(next(there.epoch(1))[0], next(here.epoch(1))[0])


@pytest.mark.parametrize("augment", [PAD_FLIP, COLOR], ids=["batched", "by sample"])
def test_an_epoch_can_be_entered_anywhere(augment: AugmentConfig) -> None:
    whole = list(train(arrays(40), augment).epoch(3))
    for start in (0, 2, len(whole)):
        rest = list(train(arrays(40), augment).epoch(3, start))
        assert len(rest) == len(whole) - start
        for (images, targets), (expected, expected_targets) in zip(rest, whole[start:], strict=True):
            assert torch.equal(images, expected) and torch.equal(targets, expected_targets)


def test_epochs_are_shuffled_differently() -> None:
    loader = train(arrays(40), augment_config())
    orders = [[t for _, targets in loader.epoch(epoch) for t in targets.tolist()] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40)) != orders[0]


def test_the_runs_own_random_numbers_are_left_alone(files: Dataset) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for loader in (train(arrays(20), PAD_FLIP), train(arrays(20), COLOR), train(files, RESIZED, workers=1)):
        next(loader.epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [40, 41, 42, 47])
def test_two_ranks_see_the_batches_of_one(count: int) -> None:
    one = list(train(arrays(count), PAD_FLIP, batch_size=8).epoch(0))
    two = [train(arrays(count), PAD_FLIP, batch_size=8, rank=rank, world_size=2) for rank in (0, 1)]
    pairs = list(zip(*(loader.epoch(0) for loader in two), strict=True))
    assert len(pairs) == len(two[0]) == len(two[1])
    for step, ((images, _), parts) in enumerate(zip(one, pairs, strict=False)):
        assert len(parts[0][0]) - len(parts[1][0]) in (0, 1)
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert two[0].order.size(step) == two[1].order.size(step + 7 * len(pairs)) == len(images)


@pytest.mark.parametrize(
    ("count", "batch_size", "world_size", "sizes"),
    [
        (20, 8, 1, [8, 8, 4]),
        (17, 8, 1, [8, 8]),  # a single image is too few for BatchNorm
        (1, 8, 1, [1]),  # but better than none
        (5, 8, 1, [5]),
        (3, 1, 1, [1, 1, 1]),
        (21, 8, 2, [4, 4, 3]),
        (19, 8, 2, [4, 4]),  # a single image for the second process
        (5, 9, 3, [2]),
        (18, 8, 2, [4, 4]),
        (16, 8, 2, [4, 4]),
    ],
)
def test_last_batch(count: int, batch_size: int, world_size: int, sizes: list[int]) -> None:
    loader = train(arrays(count), augment_config(), batch_size=batch_size, world_size=world_size)
    assert [len(targets) for _, targets in loader.epoch(0)] == sizes and len(loader) == len(sizes)


def test_a_batch_must_be_shared_evenly() -> None:
    with pytest.raises(UserError, match="batch_size=7 cannot be shared evenly by 2 processes"):
        train(arrays(20), augment_config(), batch_size=7, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_sees_every_image_once_in_order(files: Dataset, workers: int, world_size: int) -> None:
    for dataset in (arrays(23), files):
        seen, sizes = [], []
        for rank in range(world_size):
            loader = eval_loader(dataset.train, dataset, image_size=8, batch_size=5, workers=workers, rank=rank,
                                 world_size=world_size)  # fmt: skip
            batches = [targets.tolist() for _, targets in loader.epoch()]
            assert len(batches) == len(loader)
            seen += [target for batch in batches for target in batch]
            sizes += [len(batch) for batch in batches]
        assert seen == list(range(len(dataset.train))) and max(sizes) <= 5


def test_evaluating_nothing() -> None:
    dataset = arrays(2)
    loader = eval_loader(dataset.val, dataset, image_size=8, batch_size=5, workers=0, rank=0, world_size=3)
    assert len(loader) == 0 and list(loader.epoch()) == []


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (256, 256), (200, 180), (1000, 301)])
def test_eval_transform_is_torchvisions(width: int, height: int) -> None:
    from torchvision.transforms._presets import ImageClassification

    noise = np.random.default_rng(width).integers(256, size=(height, width, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), picture(1, width, height)):
        preset = ImageClassification(crop_size=224, resize_size=256, mean=(0, 0, 0), std=(1, 1, 1))
        ours = EvalTransform(224, 0.875)(image)
        assert ours.dtype == torch.uint8 and torch.equal(ours / 255, preset(image))


def test_arrays_are_resized_to_the_net() -> None:
    from torchvision.transforms.v2 import functional

    dataset = arrays(10)
    assert isinstance(dataset.val, Arrays)
    truth = functional.resize(dataset.val.images, [20, 20], antialias=True)
    loader = eval_loader(dataset.val, dataset, image_size=20, batch_size=4, workers=0)
    assert torch.equal(torch.cat([images for images, _ in loader.epoch()]), truth)
    loader = train(dataset, augment_config(), image_size=20)
    assert same(by_index(loader), dict(enumerate(truth)))
    loader = train(dataset, augment_config(crop=Crop.pad, padding=1, cutout=5), image_size=20)
    assert next(loader.epoch(0))[0].shape == (7, 3, 20, 20)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"crop": Crop.random}, r"augment\.crop=random has no room"),
        ({"crop": Crop.pad, "padding": 8}, r"augment\.padding=8 must be less than the images' side, 8"),
        ({"cutout": 8}, r"augment\.cutout=8 covers the whole image"),
        ({"scale": [1.0, 0.1]}, r"augment\.scale must be two numbers"),
        ({"ratio": [1.0]}, r"augment\.ratio must be two numbers"),
    ],
)
def test_augmentation_that_makes_no_sense(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(arrays(10), augment_config(**keys))


# Files


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
    assert len(next(batches)[1]) == len(next(batches)[1]) == 4
    with pytest.raises(UserError) as error:
        next(batches)
    assert type(error.value) is UserError and "truncated.jpg" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_killed_worker_is_an_error_not_a_hang(files: Dataset) -> None:
    before = multiprocessing.active_children()
    loader = eval_loader(files.train, files, image_size=8, batch_size=1, workers=1)
    batches = loader.epoch()
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    worker.kill()
    with pytest.raises(UserError, match=r"a process that reads images was killed"):
        list(batches)


def test_workers_end_with_an_abandoned_loader(files: Dataset) -> None:
    before = multiprocessing.active_children()
    loader = eval_loader(files.train, files, image_size=8, batch_size=1, workers=1)
    next(loader.epoch())
    (worker,) = set(multiprocessing.active_children()) - set(before)
    cycle = [loader]
    cycle.append(cycle)  # type: ignore[arg-type]
    start = time.monotonic()
    del loader, cycle
    gc.collect()
    assert not worker.is_alive() and time.monotonic() - start < 4  # torch gives up after 5 s


SCRIPT = """
import multiprocessing, signal, sys
from tests.helpers.data import augment_config, data_config
from cnnbench.config.sections import Crop
from cnnbench.data import load_dataset, train_loader

signal.signal(signal.SIGTERM, lambda *_: None)
dataset = load_dataset(data_config("folder", root=sys.argv[1], val_fraction=0.2))
loader = train_loader(dataset, augment_config(), image_size=8, batch_size=2, seed=0, workers=2)
for epoch in range(3):
    print("epoch", sum(len(targets) for _, targets in loader.epoch(epoch)), flush=True)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    if sys.argv[2] == "killed":
        sys.stdin.readline()
raise ValueError(loader)  # a traceback keeps the loader alive until the interpreter is gone
"""


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_workers_live_as_long_as_the_main_process(tmp_path: Path) -> None:
    """A script without a guard; SIGTERM to the whole job is not for the workers; after kill -9 none is left behind."""
    (tmp_path / "script.py").write_text(SCRIPT)
    root = class_tree(tmp_path / "tree", {"cat": 5, "dog": 5})
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(tmp_path / "script.py"), str(root)]
    ended = subprocess.Popen([*command, "ended"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "killed"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as job:  # fmt: skip
        assert job.stdin is not None and job.stdout is not None
        assert job.stdout.readline() == "epoch 8\n"
        workers = [int(pid) for pid in job.stdout.readline().split()]
        assert len(workers) == 2 and all(running(pid) for pid in workers)
        os.killpg(job.pid, signal.SIGTERM)
        job.stdin.write("\n")
        job.stdin.flush()
        assert job.stdout.readline() == "epoch 8\n"
        assert [int(pid) for pid in job.stdout.readline().split()] == workers
        job.kill()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)
    out, err = ended.communicate(timeout=60)
    assert out.count("epoch 8") == 3 and "ValueError" in err and "Warning" not in err and ended.returncode == 1
