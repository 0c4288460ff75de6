"""Batches: the data depends on seed, epoch and index alone, whatever the number of ranks and workers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cnnbench.config.sections import AugmentConfig
from cnnbench.data import Dataset, eval_loader
from cnnbench.runtime import graphs
from cnnbench.utils.errors import UserError
from tests.helpers.batches import CHANGED, COLOR, PAD_FLIP, RESIZED, arrays, by_index, same, same_batch, train
from tests.helpers.data import augment_config


@pytest.mark.parametrize(
    ("augment", "interpolation"),
    [(PAD_FLIP, "bilinear"), (COLOR, "bilinear"), (RESIZED, "bilinear"), (CHANGED, "bilinear"), (CHANGED, "bicubic")],
    ids=["shifted", "coloured", "resized", "changed", "by sample"],
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
    files = replace(files, classes=[str(number) for number in range(len(files.train))])
    augment = replace(CHANGED, cutmix=1.0)
    here = train(files, augment, image_size=24)
    there = train(files, augment, image_size=24, workers=2)
    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        batches = list(zip(here.epoch(epoch, start), there.epoch(epoch, start), strict=True))
        assert len(batches) == len(here) - start
        assert all(same_batch(ours, theirs) for ours, theirs in batches)
    abandoned = there.epoch(0)
    next(abandoned)
    assert same_batch(next(there.epoch(1)), next(here.epoch(1)))


@pytest.mark.parametrize("augment", [PAD_FLIP, COLOR], ids=["batched", "by sample"])
def test_an_epoch_can_be_entered_anywhere(augment: AugmentConfig) -> None:
    whole = list(train(arrays(40), augment).epoch(3))
    for start in (0, 2, len(whole)):
        rest = list(train(arrays(40), augment).epoch(3, start))
        assert len(rest) == len(whole) - start
        assert all(same_batch(ours, expected) for ours, expected in zip(rest, whole[start:], strict=True))


def test_epochs_are_shuffled_differently() -> None:
    loader = train(arrays(40), augment_config())
    orders = [torch.cat([batch["target"] for batch in loader.epoch(epoch)]).tolist() for epoch in (0, 1, 0)]
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
    for step, (whole, parts) in enumerate(zip(one, pairs, strict=False)):
        assert len(parts[0]["image"]) - len(parts[1]["image"]) in (0, 1)
        assert same_batch({key: torch.cat([part[key] for part in parts]) for key in whole}, whole)
        assert two[0].order.size(step) == two[1].order.size(step + 7 * len(pairs)) == len(whole["image"])


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
    assert [len(batch["target"]) for batch in loader.epoch(0)] == sizes and len(loader) == len(sizes)


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
            batches = [batch["target"].tolist() for batch in loader.epoch()]
            assert len(batches) == len(loader)
            seen += [target for batch in batches for target in batch]
            sizes += [len(batch) for batch in batches]
        assert seen == list(range(len(dataset.train))) and max(sizes) <= 5


def test_evaluating_nothing() -> None:
    dataset = arrays(2)
    loader = eval_loader(dataset.val, dataset, image_size=8, batch_size=5, workers=0, rank=0, world_size=3)
    assert len(loader) == 0 and list(loader.epoch()) == []


@pytest.mark.parametrize(
    "augment", [PAD_FLIP, COLOR, RESIZED, CHANGED], ids=["shifted", "coloured", "resized", "changed"]
)
def test_batches_that_are_replayed_are_the_batches(augment: AugmentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU replays what picks and augments them: over tensors that never move, here by calling it again."""
    told: list[str] = []
    monkeypatch.setattr(graphs, "capture", lambda function: function)

    def record(function: Any, size: int) -> graphs.Recorded:
        return graphs.Recorded(function, torch.device("cpu"), size, told.append)

    dataset = replace(arrays(40), interpolation="bilinear")
    plain, replayed = train(dataset, augment, batch_size=7), train(dataset, augment, batch_size=7, record=record)
    for epoch in (0, 1):
        ours, theirs = list(replayed.epoch(epoch)), list(plain.epoch(epoch))
        assert all(same_batch(one, other) for one, other in zip(ours, theirs, strict=True))
    assert replayed._recorded.replay is not None and told == []  # type: ignore[attr-defined]
