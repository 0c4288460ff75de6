"""The data sets: what is read, how it is split, and what is said when it is not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnbench import data
from cnnbench.data import Arrays, datasets, load_dataset, no_files
from cnnbench.data.splits import pick
from cnnbench.utils.errors import UserError
from tests.helpers.data import data_config


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    dataset = load_dataset(data_config("digits"))
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    images = torch.cat([dataset.train.images, dataset.val.images])
    targets = torch.cat([dataset.train.targets, dataset.val.targets])
    truth = load_digits()
    ours = sorted((target, *image.flatten().tolist()) for image, target in zip(images, targets.tolist(), strict=True))
    theirs = np.rint(truth.data * 255 / 16).astype(int)
    assert ours == sorted((target, *image) for image, target in zip(theirs.tolist(), truth.target, strict=True))
    assert images.dtype == torch.uint8 and images.max() == 255
    assert (dataset.image_size, dataset.in_channels, dataset.classes) == (8, 1, list("0123456789"))


def test_digits_read_through_scikit_learn_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, targets = no_files._read_digits()
    monkeypatch.setattr(no_files, "find_spec", lambda name: None)
    again = no_files._read_digits()
    assert np.array_equal(pixels, again[0]) and np.array_equal(targets, again[1])


def test_digits_moments_and_split() -> None:
    dataset = load_dataset(data_config("digits"))
    assert isinstance(dataset.train, Arrays)
    values = dataset.train.images.numpy() / 255
    assert dataset.mean == pytest.approx((values.mean(),)) and dataset.std == pytest.approx((values.std(),))
    assert (len(dataset.train), len(dataset.val), dataset.split) == (1438, 359, "test")
    shares = torch.bincount(dataset.val.targets) / torch.bincount(dataset.train.targets)
    assert shares.min() > 0.24 and shares.max() < 0.26
    again = load_dataset(data_config("digits"))
    assert torch.equal(dataset.val.targets, again.val.targets)


def test_held_out_images_come_from_training_and_leave_the_test_set_alone() -> None:
    plain = load_dataset(data_config("digits"))
    held = load_dataset(data_config("digits", val_fraction=0.25))
    assert isinstance(plain.train, Arrays) and isinstance(held.train, Arrays) and isinstance(held.val, Arrays)
    assert held.split == "held-out" and len(held.train) + len(held.val) == len(plain.train)

    def rows(source: Arrays) -> list[list[int]]:
        return sorted(source.images.flatten(1).tolist())

    assert sorted(rows(held.train) + rows(held.val)) == rows(plain.train)
    whole = load_dataset(data_config("digits", val_fraction=0.2), test=True)
    assert whole.test is not None and torch.equal(whole.test.targets, plain.val.targets) and held.test is None
    assert whole.kept == held.kept == "its test images" and plain.kept == ""
    assert held.mean == plain.mean  # of all training images, so that runs compare


def test_fraction_is_even_over_classes_and_nested() -> None:
    targets = torch.tensor([0] * 50 + [1] * 20 + [2] * 3)
    small, large = (set(pick(targets, fraction)[0].tolist()) for fraction in (0.1, 0.4))
    assert small < large
    assert torch.bincount(targets[sorted(small)]).tolist() == [5, 2, 1]
    assert torch.bincount(targets[sorted(large)]).tolist() == [20, 8, 1]
    picked, others = pick(targets, 0.999, leave=1)
    assert torch.bincount(targets[others]).tolist() == [1, 1, 1]
    assert sorted(torch.cat([picked, others]).tolist()) == list(range(73))
    assert len(load_dataset(data_config("digits", fraction=0.001)).train) == 10


def test_a_single_image_per_class_cannot_be_held_out() -> None:
    picked, others = pick(torch.arange(4), 0.5, leave=1)
    assert len(picked) == 0 and others.tolist() == [0, 1, 2, 3]


def test_moments_can_be_overridden() -> None:
    dataset = load_dataset(data_config("digits", mean=[0.5], std=[0.25]))
    assert (dataset.mean, dataset.std) == ((0.5,), (0.25,))
    with pytest.raises(UserError, match=r"data\.std has 3 values, but the images have 1 channel"):
        load_dataset(data_config("digits", std=[0.2, 0.2, 0.2]))


def test_unknown_set() -> None:
    with pytest.raises(
        UserError,
        match=r"unknown data set 'cifar'.*\nchoices: arrays, boxes, camvid, cifar10, cifar100, coco, dig",
    ):
        load_dataset(data_config("cifar"))


def test_synthetic() -> None:
    cfg = data_config("synthetic", num_classes=7, num_images=50, image_size=12)
    dataset, again = load_dataset(cfg), load_dataset(cfg)
    assert isinstance(dataset.train, Arrays) and isinstance(again.train, Arrays)
    assert dataset.train.images.shape == (50, 3, 12, 12) and len(dataset.val) == 5 and len(dataset.classes) == 7
    assert torch.equal(dataset.train.images, again.train.images)
    values = dataset.train.images.double() / 255
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.std() - dataset.std[0]) < 0.01
    with pytest.raises(UserError, match=r"data\.num_classes and data\.num_images"):
        load_dataset(data_config("synthetic"))


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_outside_the_classes_are_refused(monkeypatch: pytest.MonkeyPatch, label: int) -> None:
    read = no_files.digits

    def spoiled(cfg: Any, root: Path) -> data.Dataset:
        dataset = read(cfg, root)
        assert isinstance(dataset.train, Arrays)
        dataset.train.targets[7] = label
        return dataset

    monkeypatch.setitem(datasets.SETS, "digits", spoiled)
    with pytest.raises(UserError, match=rf"10 classes, but 1 training image with another label: image 7 has {label}"):
        data.load_dataset(data_config("digits"))
