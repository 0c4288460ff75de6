"""Augmentation and evaluation transforms: what they do to an image, side by side with torchvision's."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from cnnbench.config.sections import AugmentConfig, Crop, PaddingMode
from cnnbench.data import Arrays, Dataset, EvalTransform, eval_loader, place_images
from cnnbench.data.operations import jittered
from cnnbench.data.transforms import sample_transform
from cnnbench.data.windows import ResizedCrop, pad, resized_crop
from cnnbench.utils.errors import UserError
from tests.helpers.batches import CHANGED, COLOR, PAD_FLIP, RESIZED, arrays, by_index, same, train
from tests.helpers.data import augment_config, picture


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
    for batch in train(dataset, augment_config(crop=Crop.pad, padding=4, flip=True), batch_size=500).epoch(0):
        assert batch["image"].dtype == torch.uint8 and batch["image"].shape[1:] == (1, 8, 8)
        for result in batch["image"]:
            counts[windows[result.numpy().tobytes()]] += 1
    deviation = (counts - 100) / np.sqrt(100)  # each of the 162 outcomes is expected 100 times
    assert np.abs(deviation).max() < 4.5 and (deviation**2).mean() < 1.5
    assert abs(counts[..., 1].sum() / count - 0.5) < 0.02


@pytest.mark.parametrize("augment", [PAD_FLIP, COLOR, RESIZED, augment_config(crop=Crop.random, flip=True)])
@pytest.mark.parametrize("size", [8, 12])
def test_images_on_a_device_are_augmented_there(augment: AugmentConfig, size: int) -> None:
    """Nothing goes to and fro, and nothing waits for the device: the meta device could not even answer."""
    there = place_images(replace(arrays(51), crop_ratio=0.8), lambda tensor: tensor.to("meta"))
    batches = list(train(there, augment, image_size=size).epoch(0))
    assert len(batches) == 8
    for batch in batches:
        assert all(value.is_meta for value in batch.values()) and batch["image"].dtype == torch.uint8
        assert batch["image"].shape == (len(batch["target"]), 3, size, size)
    loader = eval_loader(there.val, there, image_size=size, batch_size=7, workers=0)
    assert all(batch["image"].is_meta for batch in loader.epoch(0))


def test_more_images_on_a_device_are_changed_there() -> None:
    dataset = replace(arrays(7), classes=[str(number) for number in range(7)])
    there = place_images(dataset, lambda tensor: tensor.to("meta"))
    (batch,) = train(there, replace(CHANGED, cutmix=1.0)).epoch(0)
    assert all(value.is_meta for value in batch.values())
    assert batch["image"].shape == (7, 3, 8, 8) and batch["target"].shape == (7, 7)


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
    assert torch.equal(torch.cat([batch["image"] for batch in loader.epoch()]), truth)
    loader = train(dataset, augment_config(), image_size=20)
    assert same(by_index(loader), dict(enumerate(truth)))
    loader = train(dataset, augment_config(crop=Crop.pad, padding=1, cutout=5), image_size=20)
    assert next(loader.epoch(0))["image"].shape == (7, 3, 20, 20)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"crop": Crop.random}, r"augment\.crop=random has no room"),
        ({"crop": Crop.pad, "padding": 8}, r"augment\.padding=8 must be less than the images' side, 8"),
        ({"cutout": 8}, r"augment\.cutout=8 covers the whole image"),
        ({"scale": [1.0, 0.1]}, r"augment\.scale must be two numbers"),
        ({"ratio": [1.0]}, r"augment\.ratio must be two numbers"),
        ({"erase": 0.5, "erase_scale": [0.2]}, r"augment\.erase_scale must be two numbers"),
        ({"erase": 0.5, "erase_scale": [0.2, 1.0]}, r"augment\.erase_scale=\[…,1\] erases whole images"),
        ({"blur": 3.0}, r"augment\.blur=3 leaves nothing of images of 8 pixels"),
    ],
)
def test_augmentation_that_makes_no_sense(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(arrays(10), augment_config(**keys))
