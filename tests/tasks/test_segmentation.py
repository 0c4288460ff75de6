"""Segmentation from the command line: trained, resumed, evaluated, predicted with; its metric beside scikit-learn's."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

import cnnbench as package
from cnnbench.data.sources import IGNORE
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.segmentation.balance import class_weights
from cnnbench.tasks.segmentation.metrics import ImagesMeter, MaskMeter
from cnnbench.tasks.segmentation.palette import colors_of, voc_colors
from cnnbench.tasks.segmentation.task import Segmentation
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from tests.helpers import shapes
from tests.helpers.runs import Ran, assert_same_run, interrupt_after, rows, without_pictures

TRAIN = ("train", "data=masks", "data.root=set", "model=fcn8s", "model.backbone=resnet8", "data.image_size=24",
         "batch_size=8", "optim=adamw", "optim.lr=0.01", "optim.lr_batch=null", "device=cpu",
         "precision=fp32")  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return shapes.write_set(tmp_path / "set", palette=True)


def answered(classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and masks of five images, in which class 2 does not occur and some pixels do not count."""
    rng = np.random.default_rng(0)
    masks = rng.choice([0, 1, 3, IGNORE], (5, 7, 9)).astype(np.uint8)
    masks[4] = IGNORE
    return torch.from_numpy(rng.normal(size=(5, classes, 7, 9)).astype(np.float32)), torch.from_numpy(masks)


def test_the_metric_is_that_of_one_confusion_matrix_by_scikit_learn() -> None:
    scores, masks = answered()
    meter = ImagesMeter(create_runtime("cpu", "fp32", seed=None), 4)
    for part in (slice(0, 2), slice(2, 5)):
        meter.add(torch.tensor(1.0), scores[part], masks[part])
    known = (masks != IGNORE).numpy()
    truth, answer = masks.numpy()[known], scores.argmax(1).numpy()[known]
    expected = confusion_matrix(truth, answer, labels=range(4)).astype(float)
    assert (meter.confusion.numpy() == expected).all()
    right, rows_, columns = np.diag(expected), expected.sum(1), expected.sum(0)
    occur = rows_ > 0
    assert occur.tolist() == [True, True, False, True]
    found = meter.metrics()
    assert found["miou"] == pytest.approx(100 * (right / (rows_ + columns - right))[occur].mean())
    assert found["pixel_accuracy"] == pytest.approx(100 * right.sum() / expected.sum())
    assert found["class_accuracy"] == pytest.approx(100 * (right[occur] / rows_[occur]).mean())
    each = meter.answers()
    assert each[4].tolist() == [0, 0, 0]  # no pixel counts
    alone = confusion_matrix(masks[0].numpy()[known[0]], scores[0].argmax(0).numpy()[known[0]], labels=range(4))
    assert each[0, 1] == pytest.approx(100 * np.trace(alone) / alone.sum(), rel=1e-6) and each[0, 2] == alone.sum()


def test_sums_of_a_meter_go_on_from_a_state() -> None:
    scores, masks = answered()
    runtime = create_runtime("cpu", "fp32", seed=None)
    first, second = MaskMeter(runtime, 4), MaskMeter(runtime, 4)
    first.add(torch.tensor(1.0), scores, masks)
    second.load_state_dict(first.state_dict())
    assert second.compute() == first.compute() and second.n == 5


def test_the_loss_is_the_mean_of_each_images_own() -> None:
    """So microbatches and processes of any size add up to the same; an image without a pixel that counts adds 0."""
    scores, masks = answered()
    task = Segmentation(4)
    each = [task.training_loss(scores[i : i + 1], masks[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(task.training_loss(scores, masks), torch.stack(each).mean())
    assert each[4] == 0
    one = torch.nn.functional.cross_entropy(scores[:1], masks[:1].long(), ignore_index=IGNORE)
    torch.testing.assert_close(each[0], one)


def test_colours_are_those_of_pascal_voc_or_the_data_sets() -> None:
    assert voc_colors()[[1, 7, 15, 20]].tolist() == [[128, 0, 0], [128, 128, 128], [192, 128, 128], [0, 64, 128]]
    own = colors_of({"colors": [[1, 2, 3]]})
    assert own[0].tolist() == [1, 2, 3] and own[1].tolist() == [128, 0, 0]


def test_a_net_is_trained_evaluated_and_predicted_with(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path
) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r", "epochs=12")
    assert ran.code == 0, ran.err
    result = read_json(tmp_path / "r/result.json")
    assert (result["task"], result["primary"], result["crop"]) == ("segmentation", "miou", "whole images")
    assert result["miou"] > 75 and "warning: cannot" not in ran.err, ran.err
    assert f"mean IoU {result['miou']:.2f} %" in ran.out and "top-1" not in ran.out
    for name in ("curves", "train_batch", "val_predictions", "classes", "confusion_matrix"):
        assert (tmp_path / f"r/{name}.png").stat().st_size > 5000, name

    judged = cnnbench("evaluate", "weights=r", "run.dir=e", "device=cpu")
    found = read_json(tmp_path / "e/result.json")
    assert found["miou"] == pytest.approx(result["miou"], abs=1e-6) and "class " in judged.out, judged.err
    assert found["iou"].keys() == set(shapes.NAMES) and (tmp_path / "e/mistakes.png").is_file()
    lines = list(csv.DictReader((tmp_path / "e/answers.csv").read_text().splitlines()))
    assert len(lines) == 8 and lines[0]["image"].endswith("00.png") and 0 < float(lines[0]["miou"]) <= 100
    assert "one way to look" in cnnbench("train", *TRAIN[1:], "run.dir=x", "crop=ten").err
    assert "for classification" in cnnbench("evaluate", "weights=r", "crop=ten").err

    said = cnnbench(
        "predict", "set/val/images", "weights=r", "run.dir=p", "device=cpu", "sheet=sheet.png", "format=json"
    )
    assert said.code == 0 and json.loads(said.out)[0]["pixels"] == "32 x 24", said.err
    mask = Image.open(tmp_path / "p/00.png")
    truth = np.array(Image.open(data / "val/masks/00.png"))
    assert mask.mode == "P" and mask.getpalette()[3:6] == [10, 200, 30]  # the data set's own colours
    assert (np.array(mask) == truth)[truth != IGNORE].mean() > 0.9
    assert (tmp_path / "p/00.overlay.png").is_file() and (tmp_path / "sheet.png").is_file()
    assert "mean IoU" in cnnbench("report", "r").out

    net = package.load(tmp_path / "r", device="cpu")
    (one,) = net.predict(str(data / "val/images/00.png"))
    assert one.mask.dtype == torch.uint8 and (one.mask.numpy() == np.array(mask)).all()
    assert sum(one.shares.values()) == pytest.approx(1) and set(one.shares) <= set(shapes.NAMES)
    (bad,) = net.predict(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)) if net.least > 1 else [one]
    assert bad is one or "the net needs" in bad.error


def test_a_large_image_is_answered_tile_by_tile(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    from cnnbench.tasks.segmentation import predictor

    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    net = package.load(tmp_path / "r", device="cpu")
    image = torch.randint(0, 256, (3, 75, 90), dtype=torch.uint8)
    whole = net.classes_of(image)
    monkeypatch.setattr(predictor, "TILE", 32)
    monkeypatch.setattr(predictor, "MARGIN", 32)
    assert (net.classes_of(image) == whole).float().mean() > 0.97  # what lies further away hardly matters


def test_it_goes_on_in_mid_epoch(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=4)
        assert cnnbench(*TRAIN, "run.dir=cut", "epochs=2").code == INTERRUPTED
    assert cnnbench(*TRAIN, "run.dir=cut", "epochs=2").code == 0
    assert cnnbench(*TRAIN, "run.dir=whole", "epochs=2").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_classifiers_weights_are_finetuned(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, no_pictures: None
) -> None:
    keys = ("data=masks", "data.root=set", "model=fcn8s", "model.backbone=resnet20", "data.image_size=24", "epochs=1")
    ran = cnnbench("finetune", *keys, "run.dir=f", "device=cpu")
    assert ran.code == 0 and "114 of 120 tensors from zoo:resnet20-cifar10" in ran.out, ran.err
    assert "transfer=auto: for segmentation all stages train" in ran.out
    ran = cnnbench("finetune", *keys, "run.dir=h", "device=cpu", "transfer=head")
    assert ran.code == 0, ran.err
    before, after = (torch.load(tmp_path / f"{name}/checkpoints/last.pt", weights_only=False)["model"] for name in "fh")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    refused = cnnbench("finetune", *keys, "transfer=svm")
    assert refused.code == 2 and "transfer=svm fits a classifier" in refused.err


def test_a_wrong_mask_is_named_before_anything_begins(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, no_pictures: None
) -> None:
    def refused(*more: str) -> str:
        ran = cnnbench(*TRAIN, *more)
        assert ran.code == 2 and len(ran.err.splitlines()) <= 3 and not (tmp_path / "outputs").exists(), ran.err
        return ran.err

    mask = data / "train/masks/03.png"
    good = mask.read_bytes()

    def write(pixels: np.ndarray) -> None:
        Image.fromarray(pixels).save(mask)

    write(np.zeros((24, 31), np.uint8))
    assert "03.png' has 31 x 24 pixels, its image 32 x 24" in refused()
    write(np.full((24, 32), 7, np.uint8))
    assert "03.png' has class 7, but the 3 classes are 0 to 2" in refused()
    write(np.full((24, 32), IGNORE, np.uint8))
    assert "03.png' marks no pixel" in refused()
    write(np.zeros((24, 32, 3), np.uint8))
    assert "03.png' has mode RGB: it needs one class number for each pixel" in refused()
    write(np.zeros((24, 32), np.uint16))
    assert "03.png' has mode I;16" in refused()
    assert cnnbench(*TRAIN, "data.on_error=skip", "debug=fast", "run.dir=skipped").code == 0
    mask.unlink()
    assert "1 image in 'set/train/images' without a mask: 03.png" in refused()
    mask.write_bytes(good)
    assert "needs images of at least" in refused("model.backbone=squeezenet1_0", "data.image_size=16")
    other = cnnbench("train", "data=masks", "data.root=set", "model=resnet8")
    assert other.code == 2 and "resnet8 answers with a class for each image" in other.err
    assert "Use data.root=set, or data.val_fraction=0.2" in refused("data.root=set/train")
    assert "has no folders images and masks" in refused("data.root=set/val/images")


def test_masks_of_0_and_255_alone_are_not_taken_for_ignored_ones(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    root = shapes.write_set(tmp_path / "set", train=2, val=2, named=False)
    for file in root.glob("*/masks/*.png"):
        pixels = np.array(Image.open(file))
        Image.fromarray(np.where(pixels == 1, 255, 0).astype(np.uint8)).save(file)
    ran = cnnbench(*TRAIN)
    assert ran.code == 2 and "write the class as 1" in ran.err, ran.err


def test_sets_are_found_as_their_authors_lay_them_out(
    cnnbench: Callable[..., Ran], tmp_path: Path, no_pictures: None
) -> None:
    """CamVid and Pascal VOC, made up."""
    for split in ("train", "val", "test"):
        shapes.write(tmp_path / "raw" / split, 3, size=(30, 40))
        (tmp_path / f"camvid/{split}annot").mkdir(parents=True)
        (tmp_path / "raw" / split / "images").rename(tmp_path / f"camvid/{split}")
        for file in (tmp_path / "raw" / split / "masks").iterdir():
            pixels = np.array(Image.open(file))
            pixels[pixels == 255] = 11
            Image.fromarray(pixels).save(tmp_path / f"camvid/{split}annot/{file.name}")
    small = ("model=unet", "model.width=2", "data.image_size=16", "debug=fast", "device=cpu")
    ran = cnnbench("train", "data=camvid", "data.root=camvid", *small, "run.dir=c")
    assert ran.code == 0 and "11 classes" in ran.out, ran.err
    assert cnnbench("evaluate", "weights=c", "split=test", "run.dir=ct").code == 0
    assert read_json(tmp_path / "ct/result.json")["n"] == 3 and len(rows(tmp_path / "c")) == 1

    shapes.write(tmp_path / "voc", 6, size=(30, 40))
    home = tmp_path / "VOCdevkit/VOC2012"
    (home / "ImageSets/Segmentation").mkdir(parents=True)
    (home / "JPEGImages").mkdir()
    (tmp_path / "voc/masks").rename(home / "SegmentationClass")
    for file in (tmp_path / "voc/images").iterdir():
        Image.open(file).save(home / f"JPEGImages/{file.stem}.jpg")
    (home / "ImageSets/Segmentation/train.txt").write_text("00\n01\n02\n03\n")
    (home / "ImageSets/Segmentation/val.txt").write_text("04\n05\n")
    ran = cnnbench("train", "data=voc", "data.root=.", *small, "run.dir=v")
    assert ran.code == 0 and "21 classes" in ran.out, ran.err


def test_pixels_of_rare_classes_count_for_more(cnnbench: Callable[..., Ran], data: Path, no_pictures: None) -> None:
    weights = class_weights(torch.tensor([900, 100, 0]))
    rare = 9**0.25
    assert weights.tolist() == pytest.approx([1000 / (900 + 100 * rare), 1000 * rare / (900 + 100 * rare), 0])
    scores, masks = answered()
    weighed = Segmentation(4, weights=torch.tensor([2.0, 2.0, 2.0, 2.0]))
    torch.testing.assert_close(weighed.training_loss(scores, masks), 2 * Segmentation(4).training_loss(scores, masks))
    assert weighed.loss(scores, masks) == Segmentation(4).loss(scores, masks)  # validation compares across weights
    ran = cnnbench(*TRAIN, "run.dir=w", "debug=fast", "loss.class_weights=balanced")
    assert ran.code == 0, ran.err


def test_what_works_without_classes_of_images_is_drawn(
    cnnbench: Callable[..., Ran], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without_pictures(patch.setattr)  # of the training; what=batch draws below
        assert cnnbench(*TRAIN, "run.dir=r", "debug=fast").code == 0
    drawn = cnnbench("visualize", "weights=r", "what=[filters,maps,patches,batch,schedule]", "device=cpu", "run.dir=v")
    assert drawn.code == 0 and (tmp_path / "v/batch.png").is_file(), drawn.err
    refused = cnnbench("visualize", "weights=r", "what=gradcam", "device=cpu")
    assert refused.code == 2 and "fcn8s answers with a class for each pixel: use filters, maps or" in refused.err
    assert cnnbench("visualize", "data=masks", "data.root=set", "what=[batch,schedule]", "run.dir=b").code == 0
    for line, said in (
        (("prepare", "out=packed"), "prepare packs images with a class each; data=masks is for segmentation"),
        (("doctor", "data"), "judges images with a label each; data=masks is for segmentation"),
        (("benchmark", *TRAIN[3:5], "device=cpu"), "benchmark times nets that classify, and fcn8s answers with"),
    ):
        ran = cnnbench(*line, "data=masks", "data.root=set")
        assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) == 1, ran.err
    assert not (tmp_path / "packed").exists()
