"""Identity of a data set: the same for the same images wherever they lie, another for others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.config.sections import Identity, OnBadImage
from cnnbench.data import load_dataset
from tests.helpers.data import class_tree, data_config, picture
from tests.helpers.runs import Ran

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val")):
        class_tree(tmp_path / "tree" / split, {"cat": 3, "dog": 3}, seed=number)
    return tmp_path / "tree"


def identity(root: Path, **keys: object) -> str:
    return load_dataset(data_config("folder", root=root, **keys)).identity


def test_by_names_and_classes(tree: Path, tmp_path: Path) -> None:
    before = identity(tree)
    moved = shutil.copytree(tree, tmp_path / "moved")
    (moved / "train").rename(moved / "training")
    assert identity(moved) == before != ""
    for change in (("cat/0.jpg", "cat/7.jpg"), ("cat/7.jpg", "dog/7.jpg"), ("dog", "fox")):
        for split in ("training", "val"):
            (moved / split / change[0]).rename(moved / split / change[1])
        after = identity(moved)
        assert after != before
        before = after


def test_by_content(tree: Path, tmp_path: Path) -> None:
    by_name, by_content = identity(tree), identity(tree, identity=Identity.content)
    assert by_content == identity(shutil.copytree(tree, tmp_path / "moved"), identity=Identity.content)
    picture(99).save(tree / "val" / "cat" / "0.jpg")
    assert identity(tree) == by_name and identity(tree, identity=Identity.content) != by_content


def test_images_that_are_skipped_count(tree: Path) -> None:
    found = set()
    for number in range(2):
        class_tree(tree.parent / f"{number}" / "train", {"cat": 3, "dog": 3})
        class_tree(tree.parent / f"{number}" / "val", {"cat": 3, "dog": 3})
        (tree.parent / f"{number}" / "train" / "cat" / f"{number}.jpg").write_bytes(b"broken")
        found.add(identity(tree.parent / f"{number}", on_error=OnBadImage["skip"]))
    assert len(found) == 2


def test_images_in_memory_have_one_on_request() -> None:
    assert load_dataset(data_config("digits")).identity == ""
    assert len(load_dataset(data_config("digits", identity=Identity.content)).identity) == 64


def test_packed_images_have_one_of_their_checksums(tree: Path, cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    found = []
    for out in ("a", "b", "c"):
        if out == "c":
            picture(99).save(tree / "val" / "cat" / "0.jpg")
        cnnbench("prepare", "data=folder", f"data.root={tree}", f"out={tmp_path / out}", "data.workers=0")
        found.append(load_dataset(data_config("folder", packed=tmp_path / out)).identity)
    assert found[0] == found[1] != found[2]
