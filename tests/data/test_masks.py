"""Masks move with their images: side by side with torchvision's own masks, in whole batches and image by image."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from cnnbench.config.sections import AugmentConfig, Crop, PaddingMode, Policy
from cnnbench.data import Arrays, Dataset, Files, eval_loader
from cnnbench.data.sources import IGNORE, read_mask
from cnnbench.data.transforms import EvalTransform, moved_together, sample_transform
from cnnbench.data.windows import ResizedCrop, nearest_crop
from cnnbench.utils.errors import UserError
from tests.helpers.batches import arrays, train
from tests.helpers.data import augment_config

COUNT = 40


def coded(size: int = 8) -> Arrays:
    """Random masks of 200 classes, and images that show them: each channel is the class plus one, so never 0."""
    masks = torch.from_numpy(np.random.default_rng(0).integers(200, size=(COUNT, size, size), dtype=np.uint8))
    return Arrays((masks + 1)[:, None].repeat(1, 3, 1, 1), masks)


def dataset_of(source: Arrays | Files, size: int = 8, **keys: Any) -> Dataset:
    return replace(arrays(1, size), train=source, val=source, **keys)


def shown(images: Tensor) -> Tensor:
    """Masks that images of `coded` show, where no pixel was blended: what came in from outside is 0 in the image."""
    classes = images[:, 0].int() - 1
    return torch.where(classes < 0, IGNORE, classes).to(torch.uint8)


@pytest.mark.parametrize("mode", PaddingMode)
@pytest.mark.parametrize("size", [8, 12, 6])
def test_shifted_and_flipped_masks_are_torchvisions(mode: PaddingMode, size: int) -> None:
    """Also where they are resized afterwards, which a mask is by its nearest pixels."""
    source = coded()
    augment = augment_config(crop=Crop.pad, padding=3, padding_mode=mode, flip=True)
    transform = train(dataset_of(source), augment, image_size=size).finish
    draws = transform.draw(np.random.default_rng(1), COUNT)
    images, masks = transform(source.images, draws), transform.masks(source.targets, draws)
    assert set(draws.whole[:, 2].tolist()) == {0, 1}
    for index, (down, right, flip) in enumerate(draws.whole[:, :3].tolist()):
        image, mask = tv_tensors.Image(source.images[index]), tv_tensors.Mask(source.targets[index][None])
        for ours, theirs, fill in ((images[index], image, 0), (masks[index][None], mask, IGNORE)):
            theirs = functional.pad(theirs, [3], fill=fill, padding_mode=mode.value)
            theirs = functional.crop(theirs, down, right, 8, 8)
            theirs = functional.horizontal_flip(theirs) if flip else theirs
            assert torch.equal(ours, functional.resize(theirs, [size, size]).as_subclass(Tensor))


def test_masks_of_random_windows_are_torchvisions() -> None:
    source = coded(10)
    loader = train(dataset_of(source, 10, crop_ratio=0.5), augment_config(crop=Crop.random, flip=True))
    draws = loader.finish.draw(np.random.default_rng(1), COUNT)
    masks = loader.finish.masks(source.targets, draws)
    scaled = functional.resize(tv_tensors.Mask(source.targets), [16, 16]).as_subclass(Tensor)
    for mask, result, (down, right, flip) in zip(scaled, masks, draws.whole[:, :3].tolist(), strict=True):
        expected = mask[down : down + 8, right : right + 8]
        assert torch.equal(result, expected.flip(-1) if flip else expected)


def test_rotated_and_overturned_masks_are_torchvisions() -> None:
    source = coded(9)
    transform = train(dataset_of(source, 9), augment_config(rotate=60.0, flip_vertical=True), image_size=9).finish
    draws = transform.draw(np.random.default_rng(1), COUNT)
    images, masks = transform(source.images, draws), transform.masks(source.targets, draws)
    for index, (real, whole) in enumerate(zip(draws.real.tolist(), draws.whole.tolist(), strict=True)):
        image, mask = tv_tensors.Image(source.images[index]), tv_tensors.Mask(source.targets[index][None])
        angle = 60 * (2 * real[0] - 1)
        image = functional.rotate(image, angle, functional.InterpolationMode.BILINEAR)
        mask = functional.rotate(mask, angle, fill=IGNORE)
        if whole[-1]:
            image, mask = functional.vertical_flip(image), functional.vertical_flip(mask)
        assert (images[index].int() - image.int()).abs().max() <= 1
        assert torch.equal(masks[index], mask[0].as_subclass(Tensor))
    assert len({row[-1] for row in draws.whole.tolist()}) == 2


def test_a_policy_moves_no_masks() -> None:
    with pytest.raises(UserError, match=r"augment\.policy=trivial moves no masks"):
        train(dataset_of(coded()), augment_config(policy=Policy.trivial))


@pytest.mark.parametrize("size", [8, 16, 37, 50])
def test_resized_crops_of_masks_are_torchvisions(size: int) -> None:
    source = coded(37)
    crop = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    part, flip = crop.windows(torch.rand(COUNT, crop.numbers), 37, 37), torch.arange(COUNT) % 2
    found = nearest_crop(source.targets[:, None], part, flip, size)[:, 0]
    boxes = torch.stack(part, 1).int().tolist()
    for mask, result, mirrored, box in zip(source.targets, found, flip, boxes, strict=True):
        expected = functional.resized_crop(tv_tensors.Mask(mask[None]), *box, [size, size])[0].as_subclass(Tensor)
        assert torch.equal(result, expected.flip(-1) if mirrored else expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])  # whole batches; image by image
@pytest.mark.parametrize("axis", [1, 2])
def test_a_resized_crop_takes_the_mask_from_where_it_takes_the_image(axis: int, interpolation: str) -> None:
    """Images and masks that say of each pixel in which row, or in which column, it was: within a pixel they agree."""
    line = torch.arange(32, dtype=torch.uint8)
    masks = (line[:, None] if axis == 1 else line).expand(COUNT, 32, 32).contiguous()
    source = Arrays((8 * masks)[:, None].repeat(1, 3, 1, 1), masks)
    dataset = dataset_of(source, 32, interpolation=interpolation)
    seen = set()
    for batch in train(dataset, augment_config(crop=Crop.resized, flip=True), image_size=32).epoch(0):
        assert batch["target"].shape == (len(batch["image"]), 32, 32) and batch["target"].dtype == torch.uint8
        assert (batch["image"][:, 0] / 8 - batch["target"]).abs().max() <= 1
        seen |= {(int(mask.min()), int(mask.max()), bool(mask[0, 0] > mask[0, -1])) for mask in batch["target"]}
    assert len(seen) > COUNT // 2 and {mirrored for *_, mirrored in seen} == ({False} if axis == 1 else {False, True})


def test_colour_and_cutout_leave_masks_alone() -> None:
    dataset = dataset_of(coded())
    plain, changed = (
        list(train(dataset, augment_config(crop=Crop.pad, padding=2, flip=True, **more)).epoch(0))
        for more in ({}, {"color": 0.4, "cutout": 3})
    )
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one["target"], other["target"]) and not torch.equal(one["image"], other["image"])
        assert torch.equal(shown(one["image"]), one["target"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The images and masks of `coded` as files: masks in gray and with a palette."""
    folder, source = tmp_path_factory.mktemp("masks"), coded()
    paths, masks = ([str(folder / f"{kind}{number}.png") for number in range(COUNT)] for kind in ("image", "mask"))
    for number, (image, mask) in enumerate(zip(source.images, source.targets, strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[number])
        picture = Image.fromarray(mask.numpy())
        if number % 2:
            picture.putpalette(np.random.default_rng(number).bytes(768))
        picture.save(masks[number])
    return Files(paths, masks)


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_in_files_move_with_their_images(files: Files, workers: int) -> None:
    """Each pixel of a mask is where its image shows it, and comes from the mask that belongs to the image."""
    augments: dict[str, AugmentConfig] = {
        "none": augment_config(),
        "pad": augment_config(crop=Crop.pad, padding=3, flip=True),
        "reflect": augment_config(crop=Crop.pad, padding=3, padding_mode=PaddingMode.reflect),
        "alternate": augment_config(flip=True, alternate=True),
    }
    found: dict[str, dict[int, Tensor]] = {}
    for name, augment in augments.items():
        for batch in train(dataset_of(files), augment, workers=workers).epoch(0):
            assert torch.equal(shown(batch["image"]), batch["target"]), name
            found.setdefault(name, {}).update(zip(batch["index"].tolist(), batch["target"], strict=True))
        if workers:
            break
    source = coded()
    assert all(torch.equal(found["none"][index], mask) for index, mask in enumerate(source.targets))
    if not workers:
        outside = torch.stack(list(found["pad"].values())) == IGNORE
        assert 0.1 < outside.float().mean() < 0.6
        assert not any((mask == IGNORE).any() for mask in found["reflect"].values())
        flips = [torch.equal(mask, source.targets[index].flip(-1)) for index, mask in found["alternate"].items()]
        assert 0 < sum(flips) < COUNT


@pytest.mark.parametrize("augment", [
    augment_config(crop=Crop.resized, flip=True),
    augment_config(crop=Crop.random, flip=True),
    augment_config(crop=Crop.pad, padding=3, flip=True, color=0.4),
], ids=["resized", "random", "pad"])  # fmt: skip
def test_moved_together_is_torchvisions_transform_of_a_mask(files: Files, augment: AugmentConfig) -> None:
    transform = sample_transform(augment, 12, 0.8)
    for path, target in zip(files.paths, files.targets, strict=True):
        mask = read_mask(target)
        with Image.open(path) as picture:
            torch.manual_seed(3)
            image, moved = moved_together(transform, picture, mask)
            torch.manual_seed(3)
            expected: Any = transform(picture, tv_tensors.Mask(mask))  # type: ignore[call-arg]
            torch.manual_seed(3)
            alone = transform(picture)
        assert torch.equal(moved, expected[1].as_subclass(Tensor)) and type(moved) is Tensor
        assert torch.equal(image, expected[0]) and torch.equal(image, alone)  # as an image without a mask is moved


def test_masks_of_validation_are_resized_and_cut_as_torchvision_does(files: Files) -> None:
    source = coded()
    scaled = functional.resize(tv_tensors.Mask(source.targets), [15, 15])
    expected = functional.center_crop(scaled, [12, 12]).as_subclass(Tensor)
    for some in (source, files):
        dataset = dataset_of(some, crop_ratio=0.8)
        batches = list(eval_loader(some, dataset, image_size=12, batch_size=7, workers=0).epoch())
        assert torch.equal(torch.cat([batch["target"] for batch in batches]), expected)
        assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(COUNT))
    image, mask = moved_together(EvalTransform(12, 0.8), source.images[0], source.targets[0])
    assert torch.equal(mask, expected[0]) and torch.equal(image, EvalTransform(12, 0.8)(source.images[0]))


def test_a_mask_in_colour_is_refused_by_name(files: Files) -> None:
    with pytest.raises(UserError, match=r"the mask '.*image0\.png' has mode RGB: it needs one class number"):
        read_mask(files.paths[0])


def test_patches_of_whole_batches_move_masks_and_are_cut_at_any_place() -> None:
    """Squares of rectangular images, at their own scale: no pixel is blended, none comes from outside."""
    masks = torch.from_numpy(np.random.default_rng(0).integers(200, size=(COUNT, 9, 12), dtype=np.uint8))
    source = Arrays((masks + 1)[:, None].repeat(1, 3, 1, 1), masks)
    transform = train(dataset_of(source), augment_config(crop=Crop.patch, flip=True), image_size=8).finish
    draws = transform.draw(np.random.default_rng(1), 40 * COUNT)
    assert [set(draws.whole[:, column].tolist()) for column in range(3)] == [{0, 1}, set(range(5)), {0, 1}]
    draws = draws.rows(torch.arange(COUNT))
    images, moved = transform(source.images, draws), transform.masks(source.targets, draws)
    assert torch.equal(shown(images), moved)
    for index, (down, right, flip) in enumerate(draws.whole[:, :3].tolist()):
        part = masks[index, down : down + 8, right : right + 8]
        assert torch.equal(moved[index], part.flip(1) if flip else part)


def test_a_patch_larger_than_the_images_is_refused() -> None:
    with pytest.raises(UserError, match="squares of 9 pixels, but the images have 8 x 8"):
        train(dataset_of(coded()), augment_config(crop=Crop.patch), image_size=9)


def test_whole_images_keep_their_size_and_pair_makes_the_batch(tmp_path: Any) -> None:
    masks = torch.randint(5, (3, 5, 7), dtype=torch.uint8)
    arrays_ = Arrays((masks + 1)[:, None].repeat(1, 3, 1, 1), masks)
    paths = []
    for number, size in enumerate([(5, 7), (6, 4)]):
        Image.fromarray(np.full((*size, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(np.full(size, number, np.uint8)).save(tmp_path / f"{number}_mask.png")
        paths.append(str(tmp_path / f"{number}.png"))
    files = Files(paths, [path.replace(".png", "_mask.png") for path in paths])
    for source, sizes in ((arrays_, [(5, 7)]), (files, [(5, 7), (6, 4)])):
        dataset = dataset_of(source, whole=True, pair=lambda images, targets: (images[:, :1], targets.long()))
        batches = list(eval_loader(source, dataset, image_size=8, batch_size=8, workers=0).epoch())
        assert [tuple(batch["image"].shape[1:]) for batch in batches] == [(1, *size) for size in sizes]
        assert [tuple(batch["target"].shape[1:]) for batch in batches] == sizes
        assert all(batch["target"].dtype == torch.int64 for batch in batches)
        assert sum(len(batch["index"]) for batch in batches) == len(source)
