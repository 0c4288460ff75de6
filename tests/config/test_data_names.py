"""Names of data, as titles, tables and run directories have them."""

import pytest

from cnnbench.config.data_names import data_name


@pytest.mark.parametrize("name", ["boxes", "folder", "images", "masks", "people", "sounds"])
def test_ones_own_folder_is_named_as_it_is(name: str) -> None:
    assert data_name(name, "data/friends/") == "friends"
    assert data_name(name) == name


def test_a_published_set_keeps_its_name_wherever_it_lies() -> None:
    assert data_name("cifar10", "data/friends") == "cifar10" and data_name("coco", "data/2017") == "coco"
    assert data_name("sounds", "data", "tables/birds.csv") == "birds"
