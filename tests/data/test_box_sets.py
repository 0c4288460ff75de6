"""Boxes are the same in every layout, and what is wrong with one is named with its file and line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnnbench.config.sections import OnBadImage, Targets
from cnnbench.data.box_sets import boxes, coco, voc
from cnnbench.data.boxes import AREA, CLASS, CORNERS, DIFFICULT, KIND, RIGHT
from cnnbench.utils.errors import UserError
from tests.helpers import boxes as made
from tests.helpers.data import data_config
from tests.helpers.paths import SHARED

READ = {"voc": (voc, made.write_voc), "coco": (coco, made.write_coco), "yolo": (boxes, made.write_yolo),
        "csv": (boxes, made.write_csv)}  # fmt: skip


def config(name="boxes", **keys):
    return replace(data_config(name), **keys)


@pytest.mark.parametrize("layout", READ)
def test_all_layouts_hold_the_same_boxes(layout: str, tmp_path: Path) -> None:
    read, write = READ[layout]
    dataset = read(config(layout if layout in ("voc", "coco") else "boxes"), write(tmp_path / "set"))
    assert dataset.classes == ["bar", "square"] and (len(dataset.train), len(dataset.val)) == (24, 8)
    assert (dataset.task, dataset.split, dataset.notes) == ("detection", "val", ())
    for source, images in zip((dataset.train, dataset.val), made.made(made.PARTS).values(), strict=True):
        for path, table, (name, (_, expected)) in zip(source.paths, source.targets, images.items(), strict=True):
            assert Path(path).stem == name and table[0, RIGHT] == made.WIDTH
            rows = table[table[:, CLASS] >= 0]
            found = [(dataset.classes[int(row[CLASS])], *row[CORNERS].round(decimals=3).tolist()) for row in rows]
            assert found == [(label, *corners) for label, corners in expected]
            assert torch.allclose(rows[:, AREA], (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2]), rtol=1e-4)


def test_coco_keeps_the_numbers_of_its_categories(tmp_path: Path) -> None:
    assert coco(config("coco"), made.write_coco(tmp_path / "set")).extra == {"category_ids": [3, 7]}


def test_voc_has_masks_or_boxes_as_is_said(tmp_path: Path) -> None:
    root = made.write_voc(tmp_path / "set")
    (root / "ImageSets/Segmentation").mkdir()
    assert voc(config("voc", targets=Targets.boxes), root).task == "detection"
    with pytest.raises(UserError, match=r"no file .*Segmentation.train\.txt"):
        voc(config("voc"), root)


def test_voc_2007_and_2012_together_are_07_plus_12(tmp_path: Path) -> None:
    made.write_voc(tmp_path / "VOCdevkit/VOC2007", {"trainval": 3, "test": 2})
    made.write_voc(tmp_path / "VOCdevkit/VOC2012", {"trainval": 4})
    dataset = voc(config("voc"), tmp_path)
    assert (len(dataset.train), len(dataset.val), dataset.split) == (7, 2, "test")


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def changed_line(root: Path, file: str, line: int, text: str) -> Path:
    """The set with one line of a file changed, counted from 1."""
    lines = (root / file).read_text().splitlines()
    lines[line - 1] = text
    (root / file).write_text("\n".join(lines) + "\n")
    return root


BAD = {
    "no area": ("csv", "train.csv", "train01.png,5,5,5,20,bar", r"train\.csv', line 3: the box of bar has no area"),
    "swapped": ("csv", "train.csv", "train01.png,20,5,5,20,bar", r"line 3: the box of bar has its corners swapped"),
    "outside": ("csv", "train.csv", "train01.png,5,5,90,20,bar", r"line 3: the box of bar is not inside the image of"),
    "no number": ("csv", "train.csv", "train01.png,x,5,20,20,bar", r"line 3: a corner is no number"),
    "no class": ("csv", "train.csv", "train01.png,1,5,20,20,", r"line 3: it has no class"),
    "relative": ("csv", "train.csv", "train01.png,.1,.1,.3,.3,bar", r"line 3: its corners are 0\.1, .* are pixels"),
    "no image": ("csv", "train.csv", "gone.png,1,5,20,20,bar", r"line 3: there is no image .*gone\.png"),
    "from 1": ("yolo", "labels/train/train01.txt", "2 .5 .5 .1 .1", r"its class is 2, .* 0 to 1; the first class"),
    "unknown": ("yolo", "labels/train/train01.txt", "5 .5 .5 .1 .1", r"line 1: its class is 5, but the classes are 0"),
    "absolute": ("yolo", "labels/train/train01.txt", "1 40 30 14 14", r"line 1: its numbers are pixels"),
    "short": ("yolo", "labels/train/train01.txt", "1 .4 .3", r"line 1: it has 3 values"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_box_is_named_or_left_out(kind: str, tmp_path: Path) -> None:
    layout, file, line, expected = BAD[kind]
    read, write = READ[layout]
    root = changed_line(write(tmp_path / "set"), file, 3 if layout == "csv" else 1, line)
    with pytest.raises(UserError, match=expected):
        read(config(), root)
    whole = sum(len(boxes) for _, boxes in made.made(made.PARTS)["train"].values())
    dataset = read(config(on_error=OnBadImage.skip), root)
    assert "1 label wrong and left out" in dataset.notes[0]
    assert int((dataset.train.targets[:, :, CLASS] >= 0).sum()) == whole - 1


def test_labels_and_images_without_each_other_are_named(tmp_path: Path) -> None:
    root = made.write_yolo(tmp_path / "set")
    (root / "images/train/train03.png").unlink()
    (root / "labels/train/train05.txt").unlink()
    with pytest.raises(UserError, match=r"image '.*train05\.png' has no label file .*and 1 more"):
        boxes(config(), root)
    dataset = boxes(config(on_error=OnBadImage.skip), root)
    assert len(dataset.train) == 22 and "the label file '" in dataset.notes[0]


def test_voc_names_the_line_of_an_object(tmp_path: Path) -> None:
    root = made.write_voc(tmp_path / "set")
    edit(root / "Annotations/train03.xml", lambda text: text.replace("<xmin>", "<xmin>9", 1))
    with pytest.raises(UserError, match=r"train03\.xml', line 3: the box of \w+ has its corners swapped"):
        voc(config("voc"), root)
    edit(root / "Annotations/train03.xml", lambda text: text.replace("<xmin>9", "<xmin>", 1))
    edit(root / "Annotations/train02.xml", lambda text: text.replace("<difficult>0", "<difficult>1"))
    found = voc(config("voc"), root).train.targets[2]
    assert (found[found[:, CLASS] >= 0][:, KIND] == DIFFICULT).all()


def test_labels_of_another_image_are_found_by_its_size(tmp_path: Path) -> None:
    root = made.write_voc(tmp_path / "set")
    edit(root / "Annotations/val02.xml", lambda text: text.replace("<width>80", "<width>800"))
    with pytest.raises(UserError, match=r"val02\.png' has 80 x 64 pixels, its labels are for 800 x 64"):
        voc(config("voc"), root)


@pytest.mark.parametrize(
    ("layout", "text"),
    [(voc, "expects in .* JPEGImages"), (coco, "expects in .* annotations"), (boxes, "found no labels in")],
)
def test_a_folder_without_labels_is_told_what_is_expected(layout, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        layout(config("voc", targets=Targets.boxes), tmp_path)


@pytest.mark.skipif(not (SHARED / "data/bccd.tar").is_file(), reason="the blood cells are not here")
def test_the_blood_cells_have_two_boxes_without_area(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(SHARED / "data/bccd.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    with pytest.raises(UserError, match=r"has no area: .* \(and 1 more"):
        voc(config("voc"), tmp_path)
    dataset = voc(config("voc", on_error=OnBadImage.skip), tmp_path)
    counts = torch.stack([(dataset.train.targets[:, :, CLASS] == label).sum() for label in range(3)]).tolist()
    assert dataset.classes == ["Platelets", "RBC", "WBC"] and counts == [209, 2381, 214]
    assert dataset.test is not None and [len(dataset.train), len(dataset.val), len(dataset.test)] == [205, 87, 72]
