"""Small images are shifted, not cut as photographs are, unless that was typed."""

from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.config.sections import Crop
from cnnbench.training.augmentation import suit_to_size
from tests.helpers.data import augment_config


@pytest.mark.parametrize(
    ("size", "typed", "crop"),
    [
        (32, [], Crop.pad),
        (64, [], Crop.resized),
        (224, [], Crop.resized),
        (32, ["augment=resized_flip"], Crop.resized),
        (32, ["augment.flip=true"], Crop.resized),
    ],
)
def test_augmentation_suits_the_size(size: int, typed: list[str], crop: Crop) -> None:
    cfg: Any = SimpleNamespace(
        augment=augment_config(crop=Crop.resized, flip=True), run=SimpleNamespace(overrides=typed)
    )
    said = suit_to_size(cfg, size)
    assert cfg.augment.crop is crop and cfg.augment.flip
    assert bool(said) is (crop is Crop.pad)
    assert cfg.augment.padding == (4 if crop is Crop.pad else 0)
