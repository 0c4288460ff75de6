"""What the files of a data set say, and the files beside them."""

import hashlib
from pathlib import Path

import pytest

from cnnbench.data import group_table
from cnnbench.data.datasets import load_dataset
from cnnbench.doctor import image_files
from tests.helpers.data import class_tree, data_config, picture


def test_every_image_is_read_once_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"a": 3, "b": 2})
    class_tree(tmp_path / "val", {"a": 1, "b": 1}, seed=1)
    picture(7).convert("L").save(tmp_path / "train/a/gray.png")
    whole = (tmp_path / "train/a/1.jpg").read_bytes()
    (tmp_path / "train/a/1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "val/b/0.jpg").write_text("no image")
    dataset = load_dataset(data_config("folder", root=tmp_path))
    assert image_files.folder_of(dataset) == tmp_path
    images = image_files.examine(dataset, tmp_path, workers=0)
    assert images.names == ["train/a/0.jpg", "train/a/2.jpg", "train/a/gray.png", "train/b/0.jpg", "train/b/1.jpg",
                            "val/a/0.jpg"]  # fmt: skip
    assert [(row["file"], row["split"], row["label"]) for row in images.unreadable] == [
        ("train/a/1.jpg", "train", "a"),
        ("val/b/0.jpg", "val", "b"),
    ]
    gray = images.facts[2]
    assert (gray.format, gray.mode, gray.width, gray.height) == ("PNG", "L", 40, 30)
    assert gray.digest == hashlib.sha256((tmp_path / "train/a/gray.png").read_bytes()).digest()
    source, at = images.source_of(5)
    assert source.item(at) == str(tmp_path / "val/a/0.jpg")
    assert images.place(5) == {"file": "val/a/0.jpg", "split": "val", "label": "a"}


def test_files_that_are_not_used_are_found_once_in_loops_too(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"a": 2, "b": 2})
    class_tree(tmp_path / "val", {"a": 1, "b": 1})
    dataset = load_dataset(data_config("folder", root=tmp_path))
    assert image_files.ignored_files(dataset, tmp_path) == []
    for name in ("train/a/note.txt", "train/a/._0.jpg", "train/loose.jpg", "labels.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "train/loop").symlink_to(tmp_path)
    found = image_files.ignored_files(dataset, tmp_path)
    assert found == ["labels.csv", "train/a/._0.jpg", "train/a/note.txt", "train/loose.jpg"]
    table = group_table(dataset, "labels.csv:patient")
    assert image_files.ignored_files(dataset, tmp_path, table) == found[1:]  # it is used
    assert group_table(dataset, r"(\w+)_") is None


def test_images_in_memory_are_facts_too() -> None:
    dataset = load_dataset(data_config("digits"))
    images = image_files.examine(dataset, None, workers=0)
    assert len(images) == 1797
    assert images.facts[0].mode == "L"
    assert (images.facts[0].width, images.facts[0].height) == (8, 8)
    assert images.names[1438] == "image 0"
    assert images.splits[1438] == "test"
    with pytest.raises(IndexError):
        images.source_of(1797)
