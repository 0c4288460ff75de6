"""Classes are matched by their names, not by their places."""

from pathlib import Path
from unicodedata import normalize

import pytest
import torch

from cnnbench.data import in_classes_of, load_dataset, matched
from cnnbench.data.boxes import CLASS, NONE
from cnnbench.data.class_names import imagenet_by_id, imagenet_names
from cnnbench.utils.errors import UserError
from tests.helpers import boxes
from tests.helpers.data import data_config

NET = ["hot dog", "Shih-Tzu", "café", "fox"]


@pytest.mark.parametrize(
    ("ours", "numbers"),
    [
        (NET, [0, 1, 2, 3]),
        (["fox", "café", "hot dog", "Shih-Tzu"], [3, 2, 0, 1]),
        (["Fox", normalize("NFD", "CAFÉ"), "hot_dog", "shih tzu "], [3, 2, 0, 1]),
        (["fox", "hot-dog"], [3, 0]),
        (["fox", "Fox"], None),
        (["fox", "wolf"], None),
        ([*NET, "wolf"], None),
    ],
)
def test_names_match_whatever_their_order_and_spelling(ours: list[str], numbers: list[int] | None) -> None:
    assert matched(ours, NET) == numbers


def test_names_that_differ_only_in_case_match_exactly_or_not_at_all() -> None:
    assert matched(["a", "A"], ["A", "a"]) == [1, 0]
    assert matched(["a", "b"], ["A", "a", "b"]) == [1, 2]
    assert matched(["B"], ["A", "a", "b"]) == [2]
    assert matched(["á"], ["Á", "A\u0301"]) is None


def test_imagenet_goes_by_its_ids_its_names_and_its_synsets() -> None:
    names = imagenet_names()
    assert len(imagenet_by_id()) == 1000 == len(set(imagenet_by_id().values()))
    assert imagenet_by_id()["n02012849"] == "crane bird" and imagenet_by_id()["n03126707"] == "crane"
    alphabetical = sorted(names, key=str.casefold)
    ids = list(imagenet_by_id())
    assert matched(ids[::-1], names) == list(range(999, -1, -1))
    assert [names[number] for number in matched(alphabetical, names) or ()] == alphabetical
    some = ["n02979186", "n03445777-golf_ball", "tench, Tinca tinca", "French_horn"]
    found = [names[number] for number in matched(some, names) or ()]
    assert found == ["cassette player", "golf ball", "tench", "French horn"]
    assert matched(names, ids) == list(range(1000))  # a net whose classes are ids


def test_targets_are_those_of_the_net() -> None:
    dataset = load_dataset(data_config("synthetic", num_classes=3, num_images=30, image_size=8))
    same, note = in_classes_of(dataset, dataset.classes, "net.pt")
    assert same is dataset and note == ""
    other, note = in_classes_of(dataset, ["CLASS 2", "class_0", "class 9", "class 1"], "net.pt")
    assert other.classes[1] == "class_0" and "the 3 of synthetic are matched by name among the net's 4" in note
    assert torch.equal(other.val.targets, torch.tensor([1, 3, 0])[dataset.val.targets])
    with pytest.raises(UserError) as refused:
        in_classes_of(dataset, ["class 0", "class 1", "cat"], "net.pt")
    assert "no class of the net is called 'class 2'" in str(refused.value) and str(refused.value).count("\n") == 1


def test_boxes_get_the_numbers_of_the_net(tmp_path: Path) -> None:
    dataset = load_dataset(data_config("boxes", root=str(boxes.write_csv(tmp_path / "set"))))
    assert dataset.classes == ["bar", "square"]
    other, note = in_classes_of(dataset, ["square", "circle", "Bar"], "net.pt")
    assert other.classes == ["square", "circle", "Bar"] and "the 2 of boxes are matched by name" in note
    ours, theirs = (one.train.targets[:, :, CLASS] for one in (other, dataset))
    for number, counterpart in ((NONE, NONE), (0, 2), (1, 0)):
        assert torch.equal(ours == counterpart, theirs == number) and (theirs == number).any()
    assert torch.equal(other.train.targets[:, :, 1:], dataset.train.targets[:, :, 1:])
    with pytest.raises(UserError, match="no class of the net is called 'bar'"):
        in_classes_of(dataset, ["square", "circle"], "net.pt")
