"""Splits by the names of folders: what is taken for what, and what is refused with a hint."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from cnnbench.config.sections import Split
from cnnbench.data import load_dataset
from cnnbench.data.layout import split_of
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, data_config

pytestmark = pytest.mark.usefixtures("no_pictures")

PETS = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Training", "train"), ("TRN", "train"), ("train_set", "train"), ("trainset", "train"),
     ("Training Data", "train"), ("01-train", "train"), ("train2017", "train"), ("train_images", "train"),
     ("Val", "val"), ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("eval", "val"), ("val_set", "val"),
     ("TEST", "test"), ("testing", "test"), ("test_set", "test"), ("test-images", "test"),
     ("cat", None), ("trainer", None), ("tests", None), ("seg_train", None), ("images", None), ("2017", None)],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "val", "split", "said"),
    [
        ("training", "validation", "val", "'training' is taken for train"),
        ("Train", "Val", "val", "'Train' is taken for train, 'Val' is taken for val"),
        ("train_set", "test_set", "test", "'train_set' is taken for train, 'test_set' is taken for test"),
        ("train", "valid", "val", ""),
    ],
)
def test_splits_under_other_names(tmp_path: Path, train: str, val: str, split: str, said: str) -> None:
    class_tree(tmp_path / train, PETS)
    class_tree(tmp_path / val, PETS, seed=1)
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=tmp_path), told.append)
    assert (dataset.classes, len(dataset.train), len(dataset.val), dataset.split) == (["cat", "dog"], 4, 4, split)
    assert told == ([said] if said else [])


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    for folder in ("train", "val", "test", "extra"):
        class_tree(tmp_path / folder, PETS)
    (tmp_path / "labels.csv").touch()
    told: list[str] = []
    load_dataset(data_config("folder", root=tmp_path, val_fraction=0.5), told.append)
    assert told == [
        f"not used in '{tmp_path}': extra",
        f"data.val_fraction holds out training images: '{tmp_path}/val' is not used",
        f"'{tmp_path}/labels.csv' is not read: the folders are the labels",
    ]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a/cat": 1, "a/dog": 1, "b/cat": 1, "b/dog": 1}, r"the same folders: cat, dog\.\nThey look like splits"),
        ({"cat/train": 1, "cat/val": 1, "dog/train": 1, "dog/val": 1}, r"cat' holds train, val: the splits are inside"),
        ({"pets/cat": 1, "pets/dog": 1, "trees/oak": 1}, r"no class folder of .*holds images of its own; 'pets' holds"),
        ({"Train/cat": 1, "training/cat": 1, "val/cat": 1}, r"'Train' and 'training', which both stand for train"),
        ({"Val/cat": 1, "Val/dog": 1, "test/cat": 1}, r"holds 'Val' and 'test', but no folder train"),
        ({"pets/Training/cat": 1, "pets/Val/cat": 1, "docs": 0}, r"use data\.root=.*pets$"),
        ({"data/cat": 1, "data/dog": 1}, r"(?s)one class only, 'data'.*use data\.root=.*data$"),
        ({"data": 1, "data/cat": 1, "data/dog": 1}, r"(?s)one class only, 'data'.*use data\.root=.*data$"),
    ],
)
@pytest.mark.parametrize("val_fraction", [0, 0.2])
def test_what_is_no_class_is_refused(tmp_path: Path, tree: dict[str, int], said: str, val_fraction: float) -> None:
    """Never with the advice to hold images out, which would train on splits as if they were classes."""
    for path, count in tree.items():
        class_tree(tmp_path, {path: count})
    with pytest.raises(UserError, match=said) as error:
        load_dataset(data_config("folder", root=tmp_path, val_fraction=val_fraction))
    assert len(str(error.value).splitlines()) <= 3 and "Set data.val_fraction" not in str(error.value)


# The test split


def three_splits(root: Path, **test: int) -> Path:
    for number, split in enumerate(("train", "val")):
        class_tree(root / split, {"cat": 4, "dog": 4, "fox": 4}, seed=number)
    class_tree(root / "Test_Set", test, seed=2)
    return root


def test_a_training_gets_no_test_images_and_who_asks_does(tmp_path: Path) -> None:
    root = three_splits(tmp_path, cat=1, dog=2, fox=3)
    (root / "Test_Set" / "dog" / "gone.jpg").symlink_to("nowhere")
    cfg, told = data_config("folder", root=root), list[str]()
    training = load_dataset(cfg, told.append)
    assert training.test is None and training.kept == f"'{root}/Test_Set'" and training.split == "val"
    assert told == ["'Test_Set' is taken for test"]
    with pytest.raises(UserError, match=r"cannot read the image '.*gone\.jpg'"):
        load_dataset(cfg, told.append, test=True)
    (root / "Test_Set" / "dog" / "gone.jpg").unlink()
    whole = load_dataset(cfg, test=True)
    assert whole.test is not None and whole.test.targets.tolist() == [0, 1, 1, 2, 2, 2]
    assert whole.identity == training.identity and whole.chosen(Split.test) == ("test", whole.test)
    held = load_dataset(data_config("folder", root=root, val_fraction=0.25), lambda note: None, test=True)
    assert {name: len(one) for name, one in held.splits.items()} == {"train": 9, "held-out": 3, "test": 6}


def test_a_test_folder_is_val_where_it_is_all_there_is(tmp_path: Path) -> None:
    three_splits(tmp_path, cat=1, dog=2, fox=3)
    for file in (tmp_path / "val").rglob("*.jpg"):
        file.unlink()
    (tmp_path / "val").rename(tmp_path / "train" / ".val")
    alone = load_dataset(data_config("folder", root=tmp_path), lambda note: None, test=True)
    assert (alone.split, len(alone.val), alone.test, alone.kept) == ("test", 6, None, "")
    assert alone.chosen(Split.test) == ("test", alone.val)
    held = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.25), lambda note: None, test=True)
    assert {name: len(one) for name, one in held.splits.items()} == {"train": 9, "held-out": 3, "test": 6}


def test_classes_of_a_test_folder_may_be_fewer_but_not_others(tmp_path: Path) -> None:
    cfg = data_config("folder", root=three_splits(tmp_path, fox=2))
    fewer = load_dataset(cfg, lambda note: None, test=True)
    assert fewer.test is not None and fewer.test.targets.tolist() == [2, 2]
    class_tree(tmp_path / "Test_Set", {"cow": 1})
    load_dataset(cfg, lambda note: None)
    with pytest.raises(UserError, match=r"(?s)have different classes.*only in '.*Test_Set': cow"):
        load_dataset(cfg, lambda note: None, test=True)


def test_test_images_without_labels_are_said_and_in_nobodys_way(tmp_path: Path) -> None:
    root = three_splits(tmp_path, cat=1)
    (root / "Test_Set" / "cat" / "0.jpg").rename(root / "Test_Set" / "0.jpg")
    (root / "Test_Set" / "cat").rmdir()
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=root), told.append, test=True)
    assert told[1:] == [f"'{root}/Test_Set' has no class folders: not used"] and dataset.test is None
    with pytest.raises(UserError, match=r"^split=test: folder has no test images; .*data\.test_fraction=0\.2"):
        dataset.chosen(Split.test)


def test_test_images_are_kept_of_one_tree(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 10, "dog": 20})
    cfg = data_config("folder", root=tmp_path, val_fraction=0.2, test_fraction=0.3)
    dataset = load_dataset(cfg, test=True)
    assert {name: len(one) for name, one in dataset.splits.items()} == {"train": 15, "held-out": 6, "test": 9}
    assert len({path for one in dataset.splits.values() for path in one.paths}) == 30  # type: ignore[union-attr]
    training = load_dataset(cfg)
    assert training.test is None and training.kept == "9 test images" and len(training.train) == 15
    told: list[str] = []
    fifth = load_dataset(data_config("folder", root=tmp_path, test_fraction=0.3), told.append, test=True)
    assert {name: len(one) for name, one in fifth.splits.items()} == {"train": 15, "held-out": 6, "test": 9}
    assert len(told) == 1 and "50 % are trained on, 20 % held out to validate on, drawn with seed 0" in told[0]
    with pytest.raises(UserError, match=r"val_fraction=0\.5 and data\.test_fraction=0\.5 leave nothing to train on"):
        load_dataset(data_config("folder", root=tmp_path, val_fraction=0.5, test_fraction=0.5))


@pytest.mark.parametrize("name", ["digits", "folder"])
def test_a_set_with_test_images_keeps_no_others(tmp_path: Path, name: str) -> None:
    three_splits(tmp_path, cat=1)
    with pytest.raises(UserError, match=r"has test images: leave data\.test_fraction=0\.1 out"):
        load_dataset(data_config(name, root=tmp_path, test_fraction=0.1), lambda note: None)


def test_a_class_that_is_too_small_to_be_held_out_is_said(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 1, "dog": 2, "fox": 9})
    told: list[str] = []
    load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2, test_fraction=0.2), told.append)
    assert told == [
        "no held-out images of class cat, which has too few",
        "no test images of class cat, dog, which has too few",
    ]


@pytest.mark.parametrize("layout", [{"images": 3}, {"train": 3, "test": 2}])
def test_a_table_of_labels_gets_its_own_hint(tmp_path: Path, layout: dict[str, int]) -> None:
    class_tree(tmp_path, layout)
    (tmp_path / "labels.csv").touch()
    with pytest.raises(UserError, match=r"labels\.csv' is not read: .* use data=list data\.file=/") as error:
        load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2))
    assert len(str(error.value).splitlines()) <= 3


def test_a_split_given_as_root_names_its_parent(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", PETS)
    class_tree(tmp_path / "dev", PETS)
    cfg = data_config("folder", root=tmp_path / "train")
    with pytest.raises(UserError, match=rf"beside it has\.\nUse data\.root={tmp_path}, or"):
        load_dataset(cfg)
    assert len(load_dataset(replace(cfg, val_fraction=0.5)).val) == 2
    assert len(load_dataset(cfg, unsplit=True).train) == 4


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("invalid", "valid")])
def test_a_class_may_be_named_as_a_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    class_tree(tmp_path, dict.fromkeys(names, 2))
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.5), told.append)
    assert dataset.classes == list(names)
    assert told == [f"'{names[-1]}' is taken for a class, though it is named as a split is"]


def test_classes_of_folders_if_that_is_meant(tmp_path: Path) -> None:
    class_tree(tmp_path, {"benign/patient1": 2, "benign/patient2": 1, "malignant/patient3": 2})
    with pytest.raises(UserError, match=r"data\.nested=true"):
        load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2))
    dataset = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2, nested=True))
    assert dataset.classes == ["benign", "malignant"] and len(dataset.train) + len(dataset.val) == 5


# Names that look alike


def test_one_name_in_two_normalisations_is_one_class(tmp_path: Path) -> None:
    for split, form in (("train", "NFC"), ("val", "NFD")):
        class_tree(tmp_path / split, {unicodedata.normalize(form, "café"): 1, "zoo": 2})
    dataset = load_dataset(data_config("folder", root=tmp_path))
    assert dataset.classes == ["caf\u00e9", "zoo"] and dataset.val.targets.tolist() == [0, 1, 1]


@pytest.mark.parametrize("other", ["cafe\u0301", "caf\u00e9\u200b", " caf\u00e9", "caf\u00e9\ufe0f"])
def test_two_names_that_look_alike_are_shown_apart(tmp_path: Path, other: str) -> None:
    class_tree(tmp_path, {"caf\u00e9": 1, other: 1})
    with pytest.raises(UserError, match="names look alike") as error:
        load_dataset(data_config("folder", root=tmp_path, val_fraction=0.5))
    assert ascii(other) in str(error.value) and r"'caf\xe9'" in str(error.value)


def test_names_of_different_letters_are_shown_apart(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"cat": 1, "dog": 1})
    class_tree(tmp_path / "val", {"c\u0430t": 1, "dog ": 1})
    with pytest.raises(UserError) as error:
        load_dataset(data_config("folder", root=tmp_path))
    assert r"c\u0430t" in str(error.value) and "('dog ')" in str(error.value)
