"""Augmentation of spectrograms: what moves where, what is masked; each image depends on its own numbers alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnbench.data.batched import BatchTransform
from cnnbench.data.spec_augment import STEPS, Warp, louder, picked, places, stripes

FILL = torch.tensor([7], dtype=torch.uint8)


def drawn(warp: Warp, count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, warp.highs, size=(count, len(warp.highs))))


def dots(side: int = 20) -> Tensor:
    """A dot at row 12, column 8."""
    images = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    images[0, 0, 12, 8] = 255
    return images


def where(images: Tensor) -> list[list[int]]:
    return images[0, 0].nonzero().tolist()


def chosen(warp: Warp, **columns: float) -> Tensor:
    """Numbers of one image: in the middle, where nothing moves, but for the columns named."""
    numbers = torch.full((1, len(warp.highs)), STEPS // 2)
    names = ("pitch_shift", "time_shift", "pitch_stretch", "time_stretch")
    for name, value in columns.items():
        numbers[0, names.index(name)] = int(value * STEPS)
    return numbers


def test_shifts_go_up_and_to_the_right() -> None:
    warp = Warp(time_shift=0.2, pitch_shift=0.1)
    assert where(warp(dots(), chosen(warp), FILL)) == [[12, 8]]
    assert where(warp(dots(), chosen(warp, time_shift=1), FILL)) == [[12, 12]]
    assert where(warp(dots(), chosen(warp, time_shift=0), FILL)) == [[12, 4]]
    assert where(warp(dots(), chosen(warp, pitch_shift=1), FILL)) == [[10, 8]], "a higher tone lies above"


def test_stretching_keeps_the_middle_in_time_and_the_lowest_tone() -> None:
    warp = Warp(time_stretch=0.5, pitch_stretch=0.5)
    slow = where(warp(dots(), chosen(warp, time_stretch=1), FILL))
    assert {column for _, column in slow} <= {7, 8} and {row for row, _ in slow} == {12}
    high = {row for row, _ in where(warp(dots(), chosen(warp, pitch_stretch=1), FILL))}
    assert high and max(high) <= 9, "7 lines above the lowest become about 10"
    low = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    low[0, 0, 19] = 255
    assert 19 in {row for row, _ in where(warp(low, chosen(warp, pitch_stretch=1), FILL))}
    assert places(4, 2, torch.ones(1), torch.zeros(1)).tolist() == [[0, 1, 2, 3]]


def test_what_comes_in_is_silence() -> None:
    ones = torch.full((2, 3, 4, 4), 9, dtype=torch.uint8)
    rows, columns = torch.tensor([[-1, 0, 1, 2], [0, 1, 2, 3]]), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    found = picked(ones, rows, columns)
    assert found[0, 0, 0].tolist() == [0] * 4 and found[1, 2, 0].tolist() == [9, 9, 9, 0]
    assert found.dtype == torch.uint8


def test_levels_change_by_pitch() -> None:
    warp, images = Warp(level=0.2), torch.full((1, 1, 20, 20), 100, dtype=torch.uint8)
    assert louder(images, torch.tensor([[10.0, 0.0]])).unique().tolist() == [110]
    tilted = louder(images, torch.tensor([[0.0, 30.0]]))[0, 0, :, 0].tolist()
    assert (tilted[0], tilted[-1]) == (130, 70) and tilted == sorted(tilted, reverse=True)
    found = warp(images.repeat(300, 1, 1, 1), drawn(warp, 300), FILL).float()
    assert found.min() >= 100 - 2 * 51 and found.max() <= 100 + 2 * 51 and found.mean() == pytest.approx(100, abs=4)


def test_masks_are_as_wide_as_drawn_and_set_to_the_mean() -> None:
    inside = stripes(torch.tensor([[0.3], [0.0]]), torch.tensor([[0.999], [0.5]]), 10)
    assert inside[0].nonzero().flatten().tolist() == [7, 8, 9] and not inside[1].any()
    warp = Warp(time_mask=0.5, frequency_mask=0.25, masks=1)
    images = torch.zeros(200, 1, 20, 20, dtype=torch.uint8)
    masked = warp(images, drawn(warp, 200), FILL)[:, 0] == 7
    columns, rows = masked.all(1).sum(1), masked.all(2).sum(1)
    assert columns.max() == 10 and rows[columns < 20].max() == 5
    assert columns.float().mean() == pytest.approx(5, abs=0.7)


def test_an_image_depends_on_its_own_numbers_alone() -> None:
    warp = Warp(
        time_shift=0.2,
        pitch_shift=0.1,
        time_stretch=0.2,
        pitch_stretch=0.1,
        level=0.1,
        time_mask=0.2,
        frequency_mask=0.2,
    )
    images = torch.randint(256, (6, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = drawn(warp, 6)
    together = warp(images, numbers, FILL)
    assert all(torch.equal(warp(images[at : at + 1], numbers[at : at + 1], FILL)[0], together[at]) for at in range(6))
    assert not torch.equal(together, images)


def test_other_augmentations_draw_what_they_did_without_it() -> None:
    plain, warped = BatchTransform(size=8, padding=1), BatchTransform(size=8, padding=1, warp=Warp(time_shift=0.1))
    assert plain.draw(np.random.default_rng(0), 4).whole.shape[1] == 5
    assert warped.draw(np.random.default_rng(0), 4).whole.shape[1] == 5 + len(Warp().highs)
    off = Warp()
    images = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(off(images, drawn(off, 2), FILL), images)
