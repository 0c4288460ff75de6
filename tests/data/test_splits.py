"""Parts of a set: even over the classes, the same each time, and groups whole on one side."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from cnnbench.data import Dataset, Files, load_dataset
from cnnbench.data.splits import Parts, deal, folds, folds_of_groups, hold_out, pick
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, data_config

pytestmark = pytest.mark.usefixtures("no_pictures")


def source(targets: list[int] | np.ndarray, groups: list[int] | np.ndarray | None = None) -> Files:
    numbers = None if groups is None else torch.as_tensor(np.asarray(groups))
    return Files([f"{n}.jpg" for n in range(len(targets))], torch.as_tensor(np.asarray(targets)), numbers)


def patients(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes and patients of images: each patient has 1 to 30 images, most of them of one class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 31, count)
    usual = rng.integers(0, classes, count)
    groups = np.repeat(np.arange(count), sizes)
    others = rng.random(len(groups)) < 0.2
    return np.where(others, rng.integers(0, classes, len(groups)), usual[groups]), groups


def together(parts: Parts) -> list[int]:
    return sorted(torch.cat(list(parts)).tolist())


# Without groups


def test_val_does_not_depend_on_test_and_none_is_in_two_parts() -> None:
    images = source([0] * 50 + [1] * 20 + [2] * 3)
    both, alone = hold_out(images, 0.2, 0.3), hold_out(images, 0.2, 0)
    assert torch.equal(both.val, alone.val) and torch.equal(both.val, pick(images.targets, 0.2, leave=1)[0])
    assert together(both) == together(alone) == list(range(73))
    assert torch.bincount(images.targets[both.test]).tolist() == [15, 6, 1]
    assert torch.bincount(images.targets[both.val]).tolist() == [10, 4, 1]


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1))])
def test_a_class_of_few_images_keeps_one_to_train_on(count: int, sizes: tuple[int, ...]) -> None:
    assert tuple(map(len, hold_out(source([0] * count), 0.1, 0.1))) == sizes


def test_every_fold_is_validated_once() -> None:
    targets = torch.tensor([0] * 7 + [1] * 5)
    parts = folds(source(targets.numpy()), 3)
    assert sorted(torch.cat([fold for _, fold in parts]).tolist()) == list(range(12))
    for others, fold in parts:
        assert not set(others.tolist()) & set(fold.tolist())
        assert len(others) + len(fold) == 12
        assert set(targets[fold].tolist()) == {0, 1}


# With groups


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [(0.8, 0.2, 0.0), (0.6, 0.2, 0.2), (0.5, 0.0, 0.5), (0.9, 0.1, 0.0)])
def test_held_out_groups_are_whole_and_nearly_even(seed: int, shares: tuple[float, ...]) -> None:
    targets, groups = patients(60, 3, seed)
    parts = hold_out(source(targets, groups), *shares[1:])
    assert together(parts) == list(range(len(targets)))
    sides = [set(groups[part.numpy()]) for part in parts]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    for part, share in zip(parts, shares, strict=True):
        got = np.bincount(targets[part.numpy()], minlength=3) / np.bincount(targets)
        assert np.abs(got - share).max() < 0.06, (got, share)
    again = hold_out(source(targets, groups), *shares[1:])
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_are_as_even_as_those_of_scikit_learn(seed: int, count: int) -> None:
    targets, groups = patients(40, 4, seed)

    def spread(number: np.ndarray) -> float:
        each = [np.bincount(targets[number == fold], minlength=4) / np.bincount(targets) for fold in range(count)]
        return float(np.std(each, axis=0).mean())

    ours, theirs = folds_of_groups(targets, groups, count, seed), np.empty(len(targets), dtype=int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(targets, targets, groups)):
        theirs[held_out] = fold
    assert all(len(set(ours[groups == group])) == 1 for group in np.unique(groups))
    assert set(ours) == set(range(count))
    assert spread(ours) <= spread(theirs) + 0.02


def test_the_folds_of_a_source_keep_its_groups() -> None:
    targets, groups = patients(30, 2)
    for others, fold in folds(source(targets, groups), 4):
        assert not set(groups[others.numpy()]) & set(groups[fold.numpy()])
        assert sorted([*others.tolist(), *fold.tolist()]) == list(range(len(targets)))


def test_a_subset_keeps_its_groups() -> None:
    part = source([0, 0, 1, 1], [5, 5, 7, 8]).subset(torch.tensor([1, 3]))
    assert part.groups is not None and part.groups.tolist() == [5, 8]


def test_two_groups_are_divided_and_one_cannot_be() -> None:
    parts = hold_out(source([0, 1] * 10, [0] * 10 + [1] * 10), 0.2, 0)
    assert [len(part) for part in parts] == [10, 10, 0]
    with pytest.raises(UserError, match=r"^data\.group: 1 group cannot be divided into 2 parts with every class"):
        hold_out(source([0, 1] * 10, [0] * 20), 0.2, 0)


def test_groups_that_are_the_classes_leave_nothing_to_hold_out() -> None:
    with pytest.raises(UserError, match="2 groups cannot be divided into 2 parts"):
        hold_out(source([0] * 9 + [1] * 9, [0] * 9 + [1] * 9), 0.5, 0)
    with pytest.raises(UserError, match="folds=2 needs at least 2 groups with images of every class"):
        folds(source([0] * 9 + [1] * 9, [0] * 9 + [1] * 9), 2)
    with pytest.raises(UserError, match="3 groups cannot be divided into 4 parts"):
        folds(source([0, 1] * 9, [0, 1, 2] * 6), 4)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_can_be_trained_on_whatever_the_groups(seed: int) -> None:
    targets, groups = patients(8, 4, seed)
    number = deal(targets, groups, (0.3, 0.4, 0.3), seed, keep=True)
    assert set(targets[number == 0]) == set(targets) and set(number) == {0, 1, 2}


# As a user names them


def tree_of_patients(root: Path) -> Path:
    """Four pictures of each of six patients, `ant/p3_1.jpg` and so on; each has one class."""
    for number in range(6):
        made = class_tree(root / "made" / str(number), {"x": 4}, seed=number)
        (root / "d" / ("ant", "bee")[number % 2]).mkdir(parents=True, exist_ok=True)
        for index, file in enumerate(sorted((made / "x").iterdir())):
            file.rename(root / "d" / ("ant", "bee")[number % 2] / f"p{number}_{index}.jpg")
    return root / "d"


def patients_in(dataset: Dataset) -> list[set[str]]:
    found = []
    for one in dataset.splits.values():
        assert isinstance(one, Files)
        found.append({Path(path).name[:2] for path in one.paths})
    return found


@pytest.mark.parametrize("rule", [r"(p\d)_", r"p\d", r"\w+/(p\d+)_\d", "t.csv:patient", "u.csv:patient"])
def test_groups_by_a_pattern_or_a_column(tmp_path: Path, rule: str) -> None:
    root = tree_of_patients(tmp_path)
    files = sorted(path.relative_to(root) for path in root.rglob("*.jpg"))
    rows = [f"{file},{file.name[:2]},1" for file in files]
    (root / "t.csv").write_text("\n".join(["path,patient,age", *rows]))
    (root / "u.csv").write_text("\n".join(["age;patient;image", *(f"1;{f.name[:2]};{f.name}" for f in files)]))
    cfg = data_config("folder", root=root, val_fraction=0.3, test_fraction=0.3, group=rule)
    dataset = load_dataset(cfg, lambda note: None, test=True)
    sides = patients_in(dataset)
    assert [len(side) for side in sides] == [2, 2, 2] and len(set.union(*sides)) == 6
    assert all(len(set(one.targets.tolist())) == 2 for one in dataset.splits.values())
    assert load_dataset(cfg, lambda note: None).test is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (r"(q\d)_", r"names a group for none of the 24 images; for example not for 'ant/p0_0\.jpg'"),
        (r"(p[01])_", r"names a group for only 8 of the 24 images; for example not for 'ant/p2_0\.jpg'"),
        (r"(x)?p", r"names a group for none of the 24 images"),
        (r"(p\d", r"is no regular expression: missing \)"),
        ("t.csv:doctor", r"unknown column of '.*t\.csv' 'doctor'"),
        ("t.csv:patient", r"names a group for only 1 of the 24 images"),
        ("gone.csv:patient", r"cannot read the table 'gone\.csv': No such file"),
        ("short.csv:patient", r"short\.csv', line 2: it has 1 value, but there are 2 columns"),
        ("jpg", r"1 group cannot be divided into 2 parts"),
        (r"(\w+)/", r"2 groups cannot be divided into 2 parts"),
    ],
)
def test_rules_that_name_no_groups_are_refused(tmp_path: Path, rule: str, said: str) -> None:
    root = tree_of_patients(tmp_path)
    (root / "t.csv").write_text("file,patient\nant/p0_0.jpg,p0\n")
    (root / "short.csv").write_text("file,patient\nant/p0_0.jpg\n")
    with pytest.raises(UserError, match=said) as error:
        load_dataset(data_config("folder", root=root, val_fraction=0.3, group=rule), lambda note: None)
    assert len(str(error.value).splitlines()) <= 3


def test_what_groups_do_not_do_is_said(tmp_path: Path) -> None:
    root = tree_of_patients(tmp_path)

    def told(**keys: object) -> list[str]:
        notes: list[str] = []
        load_dataset(data_config("folder", root=root, **keys), notes.append)
        return [note for note in notes if "not read" not in note]

    assert told(val_fraction=0.3, group="p.*") == [
        "data.group='p.*' makes each of the 24 training images a group of its own: it changes nothing"
    ]
    assert told(val_fraction=0.1, group=r"(p\d)") == [
        "33 % of the images are held-out images, not 10 %, since groups stay whole"
    ]
    for number in (2, 4):
        for file in (root / "ant").glob(f"p{number}_*.jpg"):
            file.unlink()
    assert told(val_fraction=0.25, group=r"(p\d)") == ["no held-out images of class ant, since groups stay whole"]


def test_a_group_on_two_sides_of_given_splits_is_said(tmp_path: Path) -> None:
    root = tree_of_patients(tmp_path)
    (root / "train").mkdir()
    for name in ("ant", "bee"):
        (root / name).rename(root / "train" / name)
        (root / "val" / name).mkdir(parents=True)
        for file in (root / "train" / name).glob("*_0.jpg"):
            file.rename(root / "val" / name / file.name)
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=root, group=r"(p\d)"), told.append)
    assert told == list(dataset.notes)
    assert told[0].startswith("6 of the 6 groups of the val images have training images too, as 'p0': the error")


def test_images_in_memory_have_no_groups() -> None:
    with pytest.raises(UserError, match=r"data\.group names groups by the paths of image files, but digits has none"):
        load_dataset(data_config("digits", group="x"))
