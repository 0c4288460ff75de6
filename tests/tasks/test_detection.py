"""Detection from the command line: trained, resumed, evaluated, predicted with, exported; what does not fit is said."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnbench as package
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from tests.helpers import boxes as made
from tests.helpers.runs import Ran, assert_same_run, interrupt_after

SMALL = ("model=ssd", "model.backbone=resnet8", "model.maps=1", "model.extras=1", "model.pyramid=32",
         "model.smallest=0.2", "model.largest=0.35", "data.image_size=64")  # fmt: skip
TRAIN = ("train", "task=detection", "data=voc", "data.root=set", *SMALL, "augment.crop=none", "augment.zoom_out=1",
         "augment.color=0", "batch_size=6", "optim=adamw", "optim.lr=0.004", "optim.lr_batch=null", "optim.clip=5",
         "device=cpu", "precision=fp32", "data.workers=0")  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return made.write_voc(tmp_path / "set", {"train": 24, "val": 8, "test": 4})


def test_a_net_is_trained_evaluated_and_predicted_with(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path
) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r", "epochs=30")
    assert ran.code == 0, ran.err
    result = read_json(tmp_path / "r/result.json")
    assert (result["task"], result["primary"], result["train_map"]) == ("detection", "map", None)
    assert result["ap50"] > 60 and "warning: cannot" not in ran.err, (result["ap50"], ran.err)
    assert f"mAP {result['map']:.2f} %" in ran.out
    for name in ("curves", "train_batch", "val_predictions", "precision_recall"):
        assert (tmp_path / f"r/{name}.png").stat().st_size > 5000, name

    judged = cnnbench("evaluate", "weights=r", "run.dir=e", "device=cpu")
    found = read_json(tmp_path / "e/result.json")
    assert judged.code == 0 and found["map"] == pytest.approx(result["map"], abs=1e-6), judged.err
    assert found["rule"].startswith("COCO's: IoU 0.5 to 0.95") and "VOC 11-point" in judged.out
    assert abs(found["voc_ap"] - found["ap50"]) < 3 and found["ap50_of"].keys() == set(made.NAMES)
    for name in ("classes.png", "precision_recall.png", "mistakes.png", "classes.csv", "mistakes.csv"):
        assert (tmp_path / f"e/{name}").is_file(), name
    boxes = json.loads((tmp_path / "e/detections.json").read_text())
    assert boxes[0].keys() == {"image_id", "category_id", "bbox", "score"} and boxes[0]["image_id"] == "val00.png"
    assert read_json(tmp_path / "e/result.json")["n"] == 8
    assert cnnbench("evaluate", "weights=r", "split=test", "run.dir=t", "device=cpu").code == 0
    assert "one way to look" in cnnbench("train", *TRAIN[1:], "run.dir=x", "crop=ten").err

    said = cnnbench("predict", "set/JPEGImages/val03.png", "weights=r", "run.dir=p", "format=json", "device=cpu",
                    "sheet=sheet.png", "out=boxes.csv", "score=0.3")  # fmt: skip
    rows, truth = json.loads(said.out), made.made({"train": 24, "val": 8, "test": 4})["val"]["val03"][1]
    assert said.code == 0 and len(rows) >= len(truth) > 1, said.err
    for name, (left, top, right, bottom) in truth:
        assert any(row["category"] == name and np.abs(np.array(row["bbox"]) - (left, top, right - left, bottom - top)
                                                      ).max() < 5 for row in rows), (name, rows)  # fmt: skip
    lines = list(csv.DictReader((tmp_path / "boxes.csv").read_text().splitlines()))
    assert len(lines) == len(rows) and float(lines[0]["score"]) == pytest.approx(rows[0]["score"], abs=1e-4)
    with Image.open(tmp_path / "p/val03.png") as drawn:
        assert drawn.size == (80, 64) and (tmp_path / "sheet.png").is_file()
    (one,) = package.load(tmp_path / "r").predict(data / "JPEGImages/val03.png", score=0.3)
    assert [box.name for box in one.boxes] == [row["category"] for row in rows] and one.picture.shape == (3, 64, 80)
    assert "takes no score" in cnnbench("predict", "set/JPEGImages", "weights=zoo:resnet20-cifar10", "score=0.3").err


def test_a_training_that_was_cut_ends_as_if_it_had_not_been(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    keys = (*TRAIN, "augment.crop=iou", "augment.flip=true", "epochs=2", "accumulate=2")
    assert cnnbench(*keys, "run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=5)
        assert cnnbench(*keys, "run.dir=cut").code == INTERRUPTED
    assert cnnbench(*keys, "run.dir=cut").code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_weights_of_a_classifier_and_of_a_detector_are_a_beginning(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, no_pictures: None
) -> None:
    keys = ("task=detection", "data=voc", "data.root=set", "epochs=1", "max_steps=1", "device=cpu", "data.workers=0")
    first = cnnbench("finetune", *keys, *SMALL, "model.backbone=resnet20", "weights=zoo:resnet20-cifar10",
                     "run.dir=a", "freeze=backbone")  # fmt: skip
    assert first.code == 0 and "the weights are of the backbone" in first.out, first.err
    made.write_coco(tmp_path / "other")
    again = cnnbench("finetune", "task=detection", "data=coco", "data.root=other", "weights=a", *keys[3:], "run.dir=b")
    assert again.code == 0 and "initialised anew" not in again.out, again.err
    (made.write_yolo(tmp_path / "swapped") / "data.yaml").write_text("names: [square, bar]\n")
    turned = cnnbench("finetune", "task=detection", "data=boxes", "data.root=swapped", "weights=a", *keys[3:],
                      "run.dir=c")  # fmt: skip
    assert turned.code == 0 and "classes: the 2 of boxes are matched by name" in turned.out, turned.err
    assert "initialised anew" not in turned.out
    (tmp_path / "swapped/data.yaml").write_text("names: [square, cat]\n")
    keys = ("data=boxes", "data.root=swapped")
    other = cnnbench("finetune", "task=detection", *keys, "weights=a", "epochs=1", "max_steps=1", "device=cpu",
                     "data.workers=0", "run.dir=d")  # fmt: skip
    assert other.code == 0 and "(new classes)" in other.out, other.err
    judged = cnnbench("evaluate", "weights=a", *keys, "run.dir=e", "device=cpu")
    assert judged.code == 2 and "no class of the net is called 'cat'" in judged.err, judged.err


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("augment.crop=resized",), "augment.crop=resized does not move boxes"),
        (("data.sampler=balanced",), "data.sampler=balanced needs images of one class each"),
        (("data=digits",), "task=detection does not go with data=digits"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_begins(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, keys: tuple[str, ...], said: str
) -> None:
    other = cnnbench("train", "task=detection", "data=voc", "data.root=set", "model=resnet8", "run.dir=x")
    assert "task=detection needs boxes with a class each: take ssd300, ssd" in other.err
    refused = cnnbench(*TRAIN, *keys, "epochs=1", "run.dir=x")
    assert refused.code == 2 and said in refused.err, refused.err
    assert len(refused.err.strip().splitlines()) <= 3 and not (tmp_path / "x").exists()


def test_torchvisions_detector_is_trained_by_its_own_losses(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, no_pictures: None
) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    keys = ("train", "task=detection", "data=voc", "data.root=set", "model=torchvision", f"model.name={name}",
            "data.image_size=64", "augment.crop=none", "augment.zoom_out=1", "batch_size=4", "epochs=1", "max_steps=2",
            "optim.lr=0.001", "device=cpu", "data.workers=0", "precision=fp32")  # fmt: skip
    said = cnnbench(*keys, "run.dir=x", "label_smoothing=0.1")
    assert said.code == 2 and f"is for the loss of SSD: {name} computes its loss itself" in said.err
    ran = cnnbench(*keys, "run.dir=r", "accumulate=2")
    assert ran.code == 0, ran.err
    result = read_json(tmp_path / "r/result.json")
    assert 0 < result["loss"] < 5 and result["n"] == 8
    judged = cnnbench("evaluate", "weights=r", "run.dir=e", "device=cpu")
    assert judged.code == 0, judged.err
    found = read_json(tmp_path / "e/result.json")
    assert found["loss"] == pytest.approx(result["loss"], abs=1e-5)  # it samples the same proposals
    said = cnnbench("predict", "set/JPEGImages/val03.png", "weights=r", "run.dir=p", "format=csv", "device=cpu",
                    "score=0.001")  # fmt: skip
    rows = list(csv.DictReader(said.out.splitlines()))
    assert said.code == 0 and rows and {row["class"] for row in rows} <= set(made.NAMES), said.err
    assert all(0 <= float(row["left"]) < float(row["right"]) <= 80.01 for row in rows)
