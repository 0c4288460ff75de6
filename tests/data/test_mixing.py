"""Mixup and CutMix: what is mixed with what, by which shares, and that nothing but the epoch decides it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnbench.config.sections import AugmentConfig, Crop, Policy
from cnnbench.data import Arrays, Dataset
from cnnbench.data.mixing import Mixing, rectangles
from cnnbench.runtime import graphs
from cnnbench.utils.errors import UserError
from tests.helpers.batches import arrays, same_batch, train
from tests.helpers.data import augment_config

MIXUP, CUTMIX = augment_config(mixup=0.4), augment_config(cutmix=1.0)
BOTH = augment_config(crop=Crop.pad, padding=2, flip=True, mixup=0.8, cutmix=1.0, policy=Policy.trivial, erase=0.5)


def classes(count: int) -> Dataset:
    """Random images, each of a class of its own."""
    return replace(arrays(count), classes=[str(number) for number in range(count)])


def by_index(loader: Any, epoch: int = 0, start: int = 0) -> dict[int, tuple[Tensor, Tensor]]:
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for batch in loader.epoch(epoch, start):
        found |= dict(zip(batch["index"].tolist(), zip(batch["image"], batch["target"], strict=True), strict=True))
    return found


def same(some: dict[int, Any], all_: dict[int, Any]) -> bool:
    return bool(some) and all(torch.equal(a, b) for key in some for a, b in zip(some[key], all_[key], strict=True))


@pytest.mark.parametrize("augment", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_an_image_and_its_shares_depend_on_seed_epoch_and_index_alone(augment: AugmentConfig) -> None:
    dataset = classes(56)
    truth = by_index(train(dataset, augment, batch_size=56))
    assert len(truth) == 56
    for batch_size in (7, 14):
        assert same(by_index(train(dataset, augment, batch_size=batch_size)), truth)
    for rank in (0, 1, 2):
        assert same(by_index(train(dataset, augment, batch_size=15, rank=rank, world_size=3)), truth)
    assert same(by_index(train(dataset, augment), start=5), truth)
    assert not same(by_index(train(dataset, augment), epoch=1), truth)
    assert not same(by_index(train(dataset, augment, seed=1)), truth)


def test_mixup_is_the_sum_by_shares_and_so_are_its_targets() -> None:
    dataset = classes(21)
    assert isinstance(dataset.train, Arrays)
    shares = []
    for image, target in by_index(train(dataset, MIXUP)).values():
        assert target.dtype == torch.float32 and float(target.sum()) == pytest.approx(1)
        (one, other), (first, second) = target.topk(2).indices.tolist(), target.topk(2).values.tolist()
        mixed = first * dataset.train.images[one].double() + second * dataset.train.images[other].double()
        assert (mixed - image).abs().max() <= 0.51
        shares.append(first)
    assert len(set(shares)) == 21


def test_cutmix_counts_the_pixels() -> None:
    dataset = classes(21)
    assert isinstance(dataset.train, Arrays)
    sizes = set()
    for index, (image, target) in by_index(train(dataset, CUTMIX)).items():
        mine = (image == dataset.train.images[index]).all(0)
        other = int(target.index_fill(0, torch.tensor(index), -1.0).argmax())
        assert torch.equal(image[:, ~mine], dataset.train.images[other][:, ~mine])
        assert float(target[index]) == pytest.approx(mine.float().mean().item())
        sizes.add(int(mine.sum()))
    assert len(sizes) > 5


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    rng, count = np.random.default_rng(0), 40_000
    shares = Mixing(mixup=0.2).draw(rng, count)
    assert (shares[:, 1] == 1).all() and abs(shares[:, 0].mean() - 0.5) < 0.01
    assert shares[:, 0].var().item() == pytest.approx(0.25 / 1.4, rel=0.02)  # 1 / (4 (2 alpha + 1))
    mixup, cutmix = Mixing(mixup=0.2, cutmix=1.0).draw(rng, count)[:, :2].T
    assert ((mixup == 1) | (cutmix == 1)).all() and abs((cutmix == 1).float().mean() - 0.5) < 0.01
    assert cutmix[cutmix < 1].var().item() == pytest.approx(1 / 12, rel=0.03)


def test_rectangles_have_the_area_asked_for() -> None:
    middle = torch.full((4,), 0.5)
    inside = rectangles(torch.tensor([0.0, 0.25, 0.5, 1.0]), middle, middle, 32, 16)
    assert inside.sum((1, 2)).tolist() == [0, 16 * 8, 22 * 11, 32 * 16]
    cut = rectangles(torch.tensor([0.25]), torch.tensor([0.0]), torch.tensor([0.99]), 32, 16)[0]
    assert cut.sum() == 8 * 5 and cut[0, 15] and not cut[8, 15]


def test_mixed_batches_that_are_replayed_are_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(graphs, "capture", lambda function: function)

    def record(function: Any, size: int) -> graphs.Recorded:
        return graphs.Recorded(function, torch.device("cpu"), size, told.append)

    plain, replayed = train(classes(56), BOTH, batch_size=7), train(classes(56), BOTH, batch_size=7, record=record)
    for ours, theirs in zip(replayed.epoch(0), plain.epoch(0), strict=True):
        assert same_batch(ours, theirs)
    assert replayed._recorded.replay is not None and told == []  # type: ignore[attr-defined]


def test_what_has_no_classes_is_not_mixed() -> None:
    masks = torch.zeros(20, 8, 8, dtype=torch.uint8)
    plain = arrays(20)
    assert isinstance(plain.train, Arrays)
    segmented = replace(plain, train=Arrays(plain.train.images, masks), task="segmentation")
    paired = replace(plain, pair=lambda images, targets: (images, images), task="colorization")
    for dataset in (segmented, paired):
        with pytest.raises(UserError, match=f"for task=classification, not for {dataset.task}"):
            train(dataset, MIXUP)
