"""Unequal classes: their counts, their weights, and epochs that hold as many images of each."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from cnnbench.config.sections import AugmentConfig, Crop, Sampler
from cnnbench.data import Arrays, Dataset
from cnnbench.data.balance import class_counts, class_weights, counts_text, unequal
from cnnbench.data.order import equal_shares
from cnnbench.utils.errors import UserError
from tests.helpers.batches import RESIZED, arrays, same_batch, train
from tests.helpers.data import augment_config

COUNTS = (40, 5, 12)
SHIFT = augment_config(crop=Crop.pad, padding=2, flip=True)


def of_counts(dataset: Dataset) -> Dataset:
    """The data set with three classes of COUNTS images."""
    targets = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    assert isinstance(dataset.train, Arrays)
    return replace(dataset, classes=list("abc"), train=Arrays(dataset.train.images, targets))


UNEQUAL = of_counts(arrays(sum(COUNTS)))


def test_the_weights_are_scikit_learns_and_1_on_average() -> None:
    targets = torch.tensor([0] * 110 + [2] * 9 + [3] * 31)  # no image of class 1
    weights = class_weights(targets, 5)
    theirs = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=targets.numpy())
    assert weights[[0, 2, 3]].tolist() == pytest.approx(theirs.tolist())
    assert weights[[1, 4]].tolist() == [0, 0]
    assert weights[targets].mean() == pytest.approx(1)


def test_counts_in_words() -> None:
    counts = class_counts(UNEQUAL.train, 4)
    assert counts == (*COUNTS, 0)
    assert counts_text(counts, "abcd") == "a: 40, b: 5, c: 12, d: 0"
    assert counts_text([7] * 12, "abcdefghijkl") == "7 in each of 12 classes"
    assert counts_text([1300, 732, *[9] * 998], []) == "9 to 1,300 in each of 1,000 classes"
    assert [unequal(each) for each in ((), (0, 0), (3, 1), (4, 1), (9, 0, 3))] == [False, False, False, True, False]


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_has_equal_shares_and_repeats_none_before_all_have_come(seed: int) -> None:
    classes = np.repeat([0, 1, 2, 7], [110, 9, 30, 1])
    drawn = equal_shares(classes, np.random.default_rng(seed))
    assert len(drawn) == 150
    assert sorted(np.unique(classes[drawn], return_counts=True)[1].tolist()) == [37, 37, 38, 38]
    for label in np.unique(classes):
        times = np.bincount(drawn, minlength=150)[classes == label]
        assert times.max() - times.min() <= 1


def test_the_order_of_equal_classes_is_a_function_of_seed_and_epoch() -> None:
    def indices(epoch: int, **keys: int) -> list[int]:
        batches = train(UNEQUAL, SHIFT, sampler=Sampler.balanced, **keys).epoch(epoch)
        return [index for batch in batches for index in batch["index"].tolist()]

    assert indices(1, batch_size=3) == indices(1, batch_size=19) != indices(0, batch_size=19)
    assert indices(1, seed=1) != indices(1)


@pytest.mark.parametrize("augment", [SHIFT, RESIZED])
def test_two_ranks_see_the_balanced_batches_of_one_and_a_resumed_epoch_its_rest(augment: AugmentConfig) -> None:
    def loader(**keys: int) -> Any:
        return train(UNEQUAL, augment, sampler=Sampler.balanced, batch_size=8, **keys)

    whole = list(loader().epoch(2))
    parts = zip(*(loader(rank=rank, world_size=2).epoch(2) for rank in (0, 1)), strict=True)
    for one, two in zip(whole, parts, strict=False):
        assert same_batch({key: torch.cat([part[key] for part in two]) for key in one}, one)
    rest = list(loader().epoch(2, 3))
    assert all(same_batch(ours, theirs) for ours, theirs in zip(rest, whole[3:], strict=True))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])  # in batches, and one by one
def test_an_image_that_comes_again_is_augmented_otherwise(interpolation: str) -> None:
    dataset = replace(UNEQUAL, interpolation=interpolation)
    batches = train(dataset, RESIZED, sampler=Sampler.balanced, batch_size=57).epoch(0)
    (batch,) = batches
    index = int(batch["index"].bincount().argmax())
    again = batch["image"][batch["index"] == index]
    assert len(again) == 4 and len({image.numpy().tobytes() for image in again}) == 4


def test_workers_change_nothing_in_equal_shares(files: Dataset) -> None:
    dataset = replace(files, train=replace(files.train, targets=(torch.arange(len(files.train)) < 3).long()))
    here, there = (
        list(train(dataset, RESIZED, image_size=24, workers=workers, sampler=Sampler.balanced).epoch(1))
        for workers in (0, 2)
    )
    assert all(same_batch(ours, theirs) for ours, theirs in zip(here, there, strict=True))
    assert sum(int(batch["target"].sum()) for batch in here) == pytest.approx(len(dataset.train) / 2, abs=1)


def test_masks_have_no_class_to_balance() -> None:
    masks = Arrays(UNEQUAL.train.images, torch.zeros(57, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"data\.sampler=balanced needs images of one class each, which test has not"):
        train(replace(UNEQUAL, train=masks), SHIFT, sampler=Sampler.balanced)
