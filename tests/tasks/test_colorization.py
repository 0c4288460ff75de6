"""Colorization from the command line and from Python, on made-up photographs: sky above, grass below."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnbench as package
from cnnbench.tasks.colorization.lab import rgb_to_lab
from cnnbench.tasks.colorization.predictor import ColouredImage
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from tests.helpers.runs import Ran, assert_same_run, interrupt_after, rows, weights, without_pictures

SKY, GRASS = (120, 190, 250), (30, 110, 20)
TRAIN = ("train", "task=colorization", "data=folder", "data.root=photos", "data.image_size=16", "model.width=0.1",
         "batch_size=8", "data.workers=0", "device=cpu", "precision=fp32")  # fmt: skip


def read_image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.copy()


def photograph(rng: np.random.Generator, height: int = 20, width: int = 16) -> Image.Image:
    """Sky down to some row, grass below it, each pixel a little lighter or darker."""
    pixels = np.empty((height, width, 3))
    pixels[:], horizon = GRASS, rng.integers(height // 4, height - height // 4)
    pixels[:horizon] = SKY
    light = rng.uniform(0.85, 1.0, (height, width, 1))
    return Image.fromarray((pixels * light).round().astype(np.uint8))


@pytest.fixture(autouse=True)
def photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for index in range(count):
            file = tmp_path / "photos" / split / ("near", "far")[index % 2] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            photograph(rng).save(file)


def test_it_learns_evaluates_and_colours(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r", "epochs=12", "optim.lr=0.01")
    assert ran.code == 0, ran.err
    result = read_json(tmp_path / "r/result.json")
    assert (result["task"], result["primary"], result["n"]) == ("colorization", "auc_rebalanced", 8)
    assert "rebalanced AuC" in ran.out and "colourfulness" in ran.out and "top-1" not in ran.out
    pictures = ("train_batch.png", "val_predictions.png", "errors.png", "colours.png", "curves.png")
    assert all((tmp_path / "r" / name).is_file() for name in pictures)
    assert not [text for text in result["warnings"] if "write" in text]

    judged = cnnbench("evaluate", "weights=r", "device=cpu", "precision=fp32", "format=json", "run.dir=e")
    found = json.loads(judged.out)
    assert {key: found[key] for key in ("auc", "auc_rebalanced", "psnr", "colourfulness")} == {
        key: pytest.approx(result[key]) for key in ("auc", "auc_rebalanced", "psnr", "colourfulness")
    }
    table = found["colours"]
    assert table["gray"]["colourfulness"] < 1 and table["truth"]["colourfulness"] > 50
    assert table["this net"]["auc_rebalanced"] > table["gray"]["auc_rebalanced"] + 2, table
    assert 60 < table["mean ab"]["auc_rebalanced"] < 90, table
    shown = cnnbench("evaluate", "weights=r", "device=cpu", "run.dir=e2").out
    assert all(name in shown for name in ("this net", "gray", "mean ab", "truth", "rebalanced AuC %"))

    colour_photographs(cnnbench, tmp_path)
    report = cnnbench("report", "r")
    assert "rebalanced AuC" in report.out and "colourfulness" in report.out and "top-1" not in report.out


def colour_photographs(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """Answers from the command line, and the same ones from Python."""
    seen = photograph(np.random.default_rng(5), 50, 30)
    clear = seen.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(seen.size))
    for name, image in (("colour.png", seen), ("clear.png", clear), ("gray.png", seen.convert("L"))):
        image.save(tmp_path / name)
    ran = cnnbench("predict", "colour.png", "clear.png", "gray.png", "weights=r", "device=cpu", "format=json",
                   "sheet=sheet.png", "run.dir=p")  # fmt: skip
    said = json.loads(ran.out)
    assert [one["input"] for one in said] == ["colour, made gray", "colour, made gray", "gray"], ran.err
    assert (tmp_path / "sheet.png").is_file()
    answers = {name: read_image(tmp_path / "p" / name) for name in ("colour.png", "clear.png", "gray.png")}
    assert [image.size for image in answers.values()] == [(30, 50)] * 3
    assert np.array_equal(np.array(answers["clear.png"].getchannel("A")), np.array(clear.getchannel("A")))
    pixels = torch.from_numpy(np.array(answers["colour.png"])).permute(2, 0, 1)
    kept = rgb_to_lab(torch.from_numpy(np.array(seen)).permute(2, 0, 1))
    assert (rgb_to_lab(pixels)[0] - kept[0]).abs().mean() < 1
    blue, green = pixels[2].float() - pixels[0], pixels[1].float() - pixels[2]
    assert blue[:8].mean() > 20 and green[-8:].mean() > 4

    net = package.load(tmp_path / "r", device="cpu")
    (one,) = net.predict(tmp_path / "colour.png")
    assert isinstance(one, ColouredImage) and torch.equal(one.picture, pixels) and one.was_gray is False
    gray, pale = net.predict(kept[:1] / 100), net.predict(seen, temperature=1.0)
    assert gray[0].was_gray and pale[0].colourfulness <= one.colourfulness


def test_a_run_that_was_cut_goes_on_to_the_same_net(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch.setattr)
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=5)
        assert cnnbench(*TRAIN, "run.dir=cut", "epochs=2").code == INTERRUPTED
    assert cnnbench(*TRAIN, "run.dir=cut", "epochs=2").code == 0
    assert cnnbench(*TRAIN, "run.dir=whole", "epochs=2").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("loss", ["class", "l2"])
def test_other_losses_train_and_tune_alike(
    loss: str, cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch.setattr)
    ran = cnnbench(*TRAIN, f"model.loss={loss}", "run.dir=r", "epochs=2", "optim.lr=0.01")
    assert ran.code == 0, ran.err
    losses = [row["loss/train"] for row in rows(tmp_path / "r")]
    assert losses[-1] < losses[0]
    outputs = weights(tmp_path / "r")["model8.6.weight"].shape[0]
    assert outputs == (2 if loss == "l2" else 313)
    tuned = cnnbench("finetune", *TRAIN[1:4], *TRAIN[6:], "weights=r", "transfer=full", "epochs=1", "run.dir=t")
    assert tuned.code == 0 and "rebalanced AuC" in tuned.out, tuned.err
    assert read_json(tmp_path / "t/result.json")["train_loss"] < losses[0]
    photograph(np.random.default_rng(1)).save(tmp_path / "a.png")
    asked = cnnbench("predict", "a.png", "weights=r", "temperature=0.5", "device=cpu", "run.dir=p")
    assert asked.code == (2 if loss == "l2" else 0), asked.err
    assert loss == "class" or "answers with colours, not with shares of 313" in asked.err


# What is refused before the first step


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("data=digits",), "needs images in colour, but those of data=digits are gray"),
        (("model=resnet8",), "take colorizer"),
        (("model.loss=huber",), "loss must be class or class_rebalanced or l2"),
    ],
)
def test_what_does_not_fit_is_said(changed: tuple[str, ...], said: str, cnnbench: Callable[..., Ran]) -> None:
    kept = [one for one in TRAIN if not (changed[0].startswith("model=") and one.startswith("model."))]
    ran = cnnbench(*kept, *changed)
    assert ran.code == 2 and said in ran.err, ran.err


def test_gray_photographs_are_named_before_anything_is_learned(
    cnnbench: Callable[..., Ran], tmp_path: Path, no_pictures: None
) -> None:
    file = tmp_path / "photos/train/far/old.png"
    photograph(np.random.default_rng(2)).convert("L").save(file)
    photograph(np.random.default_rng(2)).convert("L").convert("RGB").save(file.with_name("older.jpg"))
    ran = cnnbench(*TRAIN, "run.dir=r")
    assert ran.code == 2 and "2 training images of 34 are gray: " in ran.err and "old.png" in ran.err, ran.err
    assert not (tmp_path / "r/metrics.jsonl").exists()
    skipped = cnnbench(*TRAIN, "run.dir=r", "data.on_error=skip", "epochs=1")
    assert skipped.code == 0 and "2 images are gray and are left out" in skipped.err, skipped.err
    assert read_json(tmp_path / "r/result.json")["train_n"] == 32


def test_keys_of_one_task_are_refused_by_another(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    photograph(np.random.default_rng(1)).save(tmp_path / "a.png")
    asked = cnnbench("predict", "a.png", "weights=zoo:resnet20-cifar10", "temperature=0.5", "device=cpu")
    assert asked.code == 2 and "classification takes no temperature" in asked.err


def test_a_judge_says_what_becomes_of_the_classes(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch.setattr)
    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    stranger = cnnbench("evaluate", "weights=r", "judge=zoo:resnet20-cifar10", "device=cpu")
    assert stranger.code == 2 and "does not know the class far of data=folder" in stranger.err
    classifier = ("train", "data=folder", "data.root=photos", "data.image_size=16", "model=resnet8", "batch_size=8",
                  "data.workers=0", "device=cpu", "epochs=1", "run.dir=c")  # fmt: skip
    assert cnnbench(*classifier).code == 0
    judged = json.loads(cnnbench("evaluate", "weights=r", "judge=c", "device=cpu", "format=json", "run.dir=e").out)
    own = json.loads(cnnbench("evaluate", "weights=c", "device=cpu", "format=json", "run.dir=f").out)
    errors = {name: row.get("judged_top1_error") for name, row in judged["colours"].items()}
    assert errors["truth"] == own["top1_error"] and errors["gray"] is not None and errors["mean ab"] is None
