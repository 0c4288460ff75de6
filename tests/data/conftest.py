"""Image files that the tests of the data share."""

from dataclasses import replace

import pytest
import torch

from cnnbench.data import Dataset, Files, load_dataset
from tests.helpers.data import class_tree, data_config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """23 pictures; each one's target is its index."""
    root = class_tree(tmp_path_factory.mktemp("pictures"), {"cat": 12, "dog": 13})
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.1, crop_ratio=0.8))
    assert isinstance(dataset.train, Files)
    return replace(dataset, train=Files(dataset.train.paths, torch.arange(len(dataset.train))))
