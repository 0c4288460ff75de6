"""Boxes move with their images: by the same crop, mirror, turn and size, and independently of batch and workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.sections import AugmentConfig, Crop
from cnnbench.data import Dataset, eval_loader, train_loader
from cnnbench.data.boxes import AREA, BOTTOM, CLASS, CORNERS, NONE, RIGHT, BoxTransform, present, tables
from cnnbench.data.sources import Files, Pair
from cnnbench.data.unreadable import why_unreadable
from cnnbench.utils.errors import UserError

GRAY = (104, 104, 104)


def augment(**changes):
    usual = {"crop": Crop.none, "padding": 0, "scale": [0.1, 1.0], "ratio": [0.8, 1.2], "flip": False,
             "alternate": False, "color": 0.0, "cutout": 0}  # fmt: skip
    return AugmentConfig(**{**usual, **changes})


def image_with(left, top, right, bottom, width=96, height=64):
    """Gray picture with a bright box, and the table that says where."""
    pixels = np.full((height, width, 3), 104, np.uint8)
    pixels[top:bottom, left:right] = (250, 30, 30)
    row = torch.tensor([[0, left, top, right, bottom, 0, (right - left) * (bottom - top)]], dtype=torch.float32)
    return Image.fromarray(pixels), tables([row], [(width, height)])[0]


def seen(image):
    """Corners of the bright box in an image."""
    found = (image[0].int() - image[1].int() > 70).nonzero()
    (top, left), (bottom, right) = found.min(0).values.tolist(), (found.max(0).values + 1).tolist()
    return torch.tensor([left, top, right, bottom], dtype=torch.float32)


ALL = {"crop": Crop.iou, "zoom_out": 2.0, "flip": True, "turn": True, "flip_vertical": True, "color": 0.2, "blur": 0.5}


@pytest.mark.parametrize(
    "changes",
    [{}, {"flip": True}, {"turn": True}, {"flip_vertical": True}, {"zoom_out": 3.0}, {"crop": Crop.iou}, ALL],
    ids=str,
)
def test_the_box_is_where_the_picture_shows_it(changes):
    picture, table = image_with(30, 20, 70, 50)
    transform, different = BoxTransform(128, "nearest", augment(**changes), GRAY), set()
    for seed in range(12):
        torch.manual_seed(seed)
        image, moved = transform(picture, table)
        assert image.shape == (3, 128, 128) and image.dtype == torch.uint8 and moved.shape == table.shape
        assert moved[0].tolist() == table[0].tolist()  # the size of the file stays
        boxes = present(moved)
        assert len(boxes) == 1 and torch.allclose(boxes[0, CORNERS], seen(image), atol=3.0)
        different.add(tuple(boxes[0, CORNERS].tolist()))
    assert (len(different) > 1) == bool(changes)


def test_evaluation_squashes_the_whole_image():
    picture, table = image_with(30, 20, 70, 50)
    _, moved = BoxTransform(128, "bilinear")(picture, table)
    assert present(moved)[0, CORNERS].tolist() == pytest.approx([40, 40, 93.333, 100], abs=1e-2)
    assert present(moved)[0, AREA] == 40 * 30  # in pixels of the file


def test_an_image_without_boxes_is_no_error():
    picture, _ = image_with(30, 20, 70, 50)
    table = tables([torch.zeros(0, 7)], [(96, 64)])[0]
    image, moved = BoxTransform(32, "bilinear", augment(crop=Crop.iou, zoom_out=2.0, flip=True))(picture, table)
    assert image.shape == (3, 32, 32) and not len(present(moved))
    assert moved[0, [RIGHT, BOTTOM]].tolist() == [96, 64] and moved[0, CLASS] == NONE


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    boxes = []
    for number in range(6):
        picture, table = image_with(10 + 5 * number, 10, 50 + 5 * number, 40)
        picture.save(tmp_path / f"{number}.png")
        boxes.append(present(table).repeat(number, 1))
    source = Files([str(tmp_path / f"{number}.png") for number in range(6)], tables(boxes, [(96, 64)] * 6))
    return Dataset(name="made", classes=["red"], mean=(0.4,) * 3, std=(0.2,) * 3, image_size=64, crop_ratio=1.0,
                   in_channels=3, train=source, val=source, split="val", task="detection")  # fmt: skip


def batches(dataset, **loading):
    how = augment(crop=Crop.iou, zoom_out=2.0, flip=True, color=0.2)
    loader = train_loader(dataset, how, image_size=64, seed=0, **{"batch_size": 3, "workers": 0, **loading})
    return list(loader.epoch(1))


def by_image(found):
    return {int(index): (batch["image"][place], batch["target"][place])
            for batch in found for place, index in enumerate(batch["index"])}  # fmt: skip


def test_batches_are_tensors_that_can_be_cut_into_microbatches(dataset):
    first, *_ = batches(dataset)
    assert first["image"].shape == (3, 3, 64, 64) and first["target"].shape == (3, 6, 7)
    assert [len(part) for part in first["target"].chunk(2)] == [2, 1]


@pytest.mark.parametrize("other", [{"batch_size": 6}, {"workers": 1}])
def test_augmentation_depends_on_the_image_alone(dataset, other):
    usual, changed = by_image(batches(dataset)), by_image(batches(dataset, **other))
    for index, (image, table) in usual.items():
        assert torch.equal(image, changed[index][0]) and torch.equal(table, changed[index][1])


def test_evaluation_reads_every_image_once(dataset):
    loader = eval_loader(dataset.val, dataset, image_size=64, batch_size=4, workers=0)
    counts = [len(present(table)) for batch in loader.epoch() for table in batch["target"]]
    assert counts == list(range(6))


def test_what_boxes_cannot_follow_is_refused(dataset):
    with pytest.raises(UserError, match="does not move boxes"):
        train_loader(dataset, augment(crop=Crop.resized), image_size=64, seed=0, batch_size=3, workers=0)
    classes = Dataset(**{**vars(dataset), "train": Files(dataset.train.paths, torch.zeros(6, dtype=torch.int64))})
    with pytest.raises(UserError, match="are for images with boxes"):
        train_loader(classes, augment(crop=Crop.iou), image_size=64, seed=0, batch_size=3, workers=0)


def test_a_broken_image_is_found_whatever_its_target_is(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "a.png" in why_unreadable(Pair(str(tmp_path / "a.png"), np.zeros((1, 7))))
