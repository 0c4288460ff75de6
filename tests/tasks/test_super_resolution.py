"""Super-resolution from the command line: trained, resumed, evaluated, predicted with, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cnnbench as package
from cnnbench import tasks
from cnnbench.data import load_dataset, train_loader
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.data.sources import read_image
from cnnbench.models.enlarging import enlarged
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.super_resolution import predictor
from cnnbench.tasks.super_resolution.predictor import Enlarged
from cnnbench.tasks.super_resolution.task import SuperResolution
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from tests.helpers.model_facts import make
from tests.helpers.runs import Ran, assert_same_run, interrupt_after, rows
from tests.helpers.scenes import scene, write_scenes

TRAIN = ("train", "data=images", "data.root=photos", "data.stride=16", "data.image_size=24", "model=srcnn",
         "model.scale=2", "augment=turn_flip", "batch_size=8", "epochs=2", "device=cpu", "precision=fp32")  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "photos/train", 4)
    write_scenes(tmp_path / "photos/val", 2, first=50, height=41, width=53)
    return tmp_path / "photos"


def test_a_net_is_trained_evaluated_and_reported_beside_bicubic(
    cnnbench: Callable[..., Ran], photos: Path, tmp_path: Path
) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r")
    assert ran.code == 0, ran.err
    result, lines = read_json(tmp_path / "r/result.json"), rows(tmp_path / "r")
    assert (result["task"], result["primary"], result["n"], result["train_n"]) == ("super_resolution", "psnr_y", 2, 24)
    assert result["psnr_y"] == lines[-1]["psnr_y/val"] > 15 and "psnr_rgb" not in result
    assert f"PSNR {result['psnr_y']:.2f} dB, bicubic {result['bicubic_psnr_y']:.2f} dB" in ran.out
    assert {file.name for file in (tmp_path / "r").glob("*.png")} == {
        "train_batch.png", "val_predictions.png", "curves.png"}  # fmt: skip

    judged = cnnbench("evaluate", "weights=r", "device=cpu", "run.dir=e", "format=json")
    found = json.loads(judged.out)
    assert found["psnr_y"] == pytest.approx(result["psnr_y"], abs=1e-3), judged.err
    assert found["protocol"] == {"name": "Y of BT.601", "shaved": 2, "rounded": True, "cut": 2}
    table = (tmp_path / "e/answers.csv").read_text().splitlines()
    assert len(table) == 3 and table[0] == "image,psnr_y,bicubic_psnr_y,ssim_y,bicubic_ssim_y,consistency"
    assert (tmp_path / "e/examples.png").stat().st_size > 10_000
    shown = cnnbench("evaluate", "weights=r", "device=cpu", "run.dir=e").out
    assert "bicubic  " in shown and "2 images cut to sides that 2 divides" in shown

    report = cnnbench("report", "r")
    assert "bicubic" in report.out and f"{result['psnr_y']:.2f}" in report.out and "top-1" not in report.out
    tuned = cnnbench("finetune", *TRAIN[1:5], "augment=turn_flip", "weights=r", "transfer=full", "epochs=1",
                     "device=cpu", "run.dir=t")  # fmt: skip
    assert tuned.code == 0 and "PSNR" in tuned.out, tuned.err


def test_it_goes_on_in_mid_epoch(
    cnnbench: Callable[..., Ran], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=2)
        assert cnnbench(*TRAIN, "run.dir=cut").code == INTERRUPTED
    assert cnnbench(*TRAIN, "run.dir=cut").code == 0
    assert cnnbench(*TRAIN, "run.dir=whole").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_predict_writes_the_enlarged_picture_whatever_its_mode(
    cnnbench: Callable[..., Ran], photos: Path, tmp_path: Path, no_pictures: None
) -> None:
    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    colour = scene(7, 20, 30)
    alpha = np.linspace(0, 255, 600).reshape(20, 30, 1).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(np.concatenate([colour, alpha], 2)).save(tmp_path / "veiled.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    ran = cnnbench("predict", "colour.png", "gray.png", "veiled.png", "deep.png", "weights=r", "device=cpu",
                   "run.dir=p", "sheet=sheet.png", "format=json")  # fmt: skip
    assert ran.code == 1 and "deep.png': it has more than 8 bits in a channel" in ran.err
    said = json.loads(ran.out)
    assert [one.get("size") for one in said] == ["60 x 40", "60 x 40", "60 x 40", None]
    for name, mode in {"colour": "RGB", "gray": "L", "veiled": "RGBA"}.items():
        with Image.open(tmp_path / f"p/{name}.png") as picture:
            assert picture.mode == mode
    assert (tmp_path / "sheet.png").exists()

    before = (tmp_path / "colour.png").read_bytes()
    refused = cnnbench("predict", "colour.png", "weights=r", "device=cpu", "run.dir=.")
    assert (refused.code, "which holds images that are read" in refused.err) == (2, True)
    assert (tmp_path / "colour.png").read_bytes() == before
    net = package.load(tmp_path / "r", device="cpu")
    (found,) = net.predict(tmp_path / "colour.png")
    assert isinstance(found, Enlarged) and found.picture.shape == (3, 40, 60) and found.scale == 2
    assert np.array_equal(np.asarray(found.image()), np.asarray(read_image(tmp_path / "p/colour.png")))


@pytest.mark.parametrize("spec", ["srcnn scale=3", "espcn scale=4 in_channels=3", "edsr_baseline blocks=1 width=8"])
def test_tiles_give_what_the_whole_image_gives(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = make(spec)
    known = ModelSpec(
        task="super_resolution",
        model={"name": net.name},
        labels=[],
        input=InputSpec(image_size=24, in_channels=net.in_channels, mean=[0.0], std=[1.0]),
        extra={"outputs": net.in_channels, "scale": net.scale},
    )
    asked = predictor.Enlarging(SuperResolution.of(known), net, known, "net", create_runtime("cpu", "fp32", seed=None))
    image = torch.from_numpy(scene(3, 45, 58)).permute(2, 0, 1)
    pixels = image[: net.in_channels].float()
    with torch.no_grad():
        whole, levels = asked.ask(pixels), asked.enlarge(image.float())
        radius = max(net.radius, 2)
        part = asked.ask(pixels[:, 20 - min(radius, 20) :])[:, net.scale * min(radius, 20) :]
    assert (part - whole[:, net.scale * 20 :]).abs().max() / 255 < 1e-4
    monkeypatch.setattr(predictor, "TILE", 16)
    (tiled,) = asked.predict(image)
    assert (levels.int() - tiled.picture.int()).abs().max() <= 1  # a level where a value lies between two


def test_pairs_of_files_are_trained_on_and_judged_by_their_own_small_images(
    cnnbench: Callable[..., Ran], tmp_path: Path, no_pictures: None
) -> None:
    for split, first in (("train", 0), ("val", 50)):
        for file in write_scenes(tmp_path / "high" / split, 2, first=first):
            small = Image.open(file).resize((30, 24), Image.Resampling.BOX)
            (tmp_path / "low" / split).mkdir(parents=True, exist_ok=True)
            small.save(tmp_path / "low" / split / file.name)
    pairs = ("data.root=high", "data.lr=low", "model=espcn", "model.in_channels=3")
    kept = [arg for arg in TRAIN if not arg.startswith(("data.root", "model="))]
    ran = cnnbench(*kept, *pairs, "run.dir=r")
    assert ran.code == 0, ran.err
    truth = torch.stack([torch.from_numpy(scene(number)).permute(2, 0, 1) for number in (50, 51)]).float()
    low = truth.unflatten(2, (24, 2)).unflatten(4, (30, 2)).mean((3, 5)).round()
    error = (enlarged(low, 2).round().clamp(0, 255) - truth).square().mean((1, 2, 3))
    psnr = (10 * torch.log10(255**2 / error)).mean().item()
    assert read_json(tmp_path / "r/result.json")["bicubic_psnr_rgb"] == pytest.approx(psnr, abs=0.05)

    odd = cnnbench(*kept, *pairs, "data.stride=15", "run.dir=w")
    assert odd.code == 2 and "data.stride=15 is not a multiple of model.scale=2" in odd.err
    whole = [arg for arg in kept if not arg.startswith(("data.stride", "augment"))]
    cut = cnnbench(*whole, *pairs, "augment=patch_turn", "epochs=1", "run.dir=p")
    assert cut.code == 0 and read_json(tmp_path / "p/result.json")["train_n"] == 2, cut.err
    coloured = cnnbench(*whole, *pairs, "augment=patch_turn", "augment.color=0.2", "run.dir=w")
    assert coloured.code == 2 and "augment.color=0.2 would colour an image otherwise than its small one" in coloured.err

    Image.open(tmp_path / "low/val/scene50.png").resize((29, 24)).save(tmp_path / "low/val/scene50.png")
    wrong = cnnbench(*kept, *pairs, "run.dir=w")
    assert wrong.code == 2 and "low/val/scene50.png' has 29 x 24 pixels and" in wrong.err
    (tmp_path / "low/val/scene50.png").unlink()
    assert "data.lr: there is no 'low/val/scene50.png'" in cnnbench(*kept, *pairs, "run.dir=w").err


def test_random_squares_of_pairs_show_the_same_part(tmp_path: Path, compose: Callable[..., Any]) -> None:
    """Mirrored, turned and cut alike: each pixel of a small image is the mean of its block, from whatever place."""
    write_scenes(tmp_path / "high/train", 3)
    write_scenes(tmp_path / "high/val", 1)
    for file in tmp_path.glob("high/*/*.png"):
        small = tmp_path / "low" / file.relative_to(tmp_path / "high")
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).resize((20, 16), Image.Resampling.BOX).save(small)
    cfg = compose("data=images", f"data.root={tmp_path / 'high'}", f"data.lr={tmp_path / 'low'}", "model=srcnn",
                  "model.in_channels=3", "model.scale=3", "augment=patch_turn")  # fmt: skip
    dataset = tasks.adopt(load_dataset(cfg.data), cfg.task, cfg.model)
    loader = train_loader(dataset, cfg.augment, image_size=12, batch_size=3, seed=0, workers=0)
    batches = [batch for epoch in range(4) for batch in loader.epoch(epoch)]
    for batch in batches:
        means = torch.nn.functional.avg_pool2d(batch["target"][:, :3].float(), 3)
        assert (means - batch["image"]).abs().max() < 0.7  # Pillow rounds to whole numbers
    assert len({batch["image"].sum().item() for batch in batches}) == 4  # and not one and the same place


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model=resnet8"], "the net resnet8 answers with a class for each image, but task=super_resolution needs"),
        (["data.image_size=25"], "data.image_size=25 is not a multiple of model.scale=2"),
        (["data.stride=null"], "set augment=patch_turn for squares cut at random, or data.stride=14"),
        (["data.stride=null", "augment=patch_turn", "data.image_size=50"], "scene0.png' has 60 x 48 pixels, less than"),
        (["data.image_size=50"], "scene0.png' has 60 x 48 pixels, less than the squares of 50"),
        (["augment=shift"], "augment.crop=pad changes the pixels that are to be found"),
        (["data.root=photos/train"], "set data.val_fraction=0.1"),
        (["model.scale=5"], "scale must be 2 or 3 or 4, not 5"),
        (["data.root=none"], "there is no folder 'none'"),
    ],
)
def test_mistakes_are_found_before_the_first_step(
    cnnbench: Callable[..., Ran], photos: Path, args: list[str], said: str
) -> None:
    keys = {arg.split("=")[0] for arg in args}
    kept = [arg for arg in TRAIN if arg.split("=")[0] not in keys and not ("model=resnet8" in args and "model." in arg)]
    ran = cnnbench(*kept, *args, "run.dir=r")
    assert ran.code == 2 and said.casefold() in ran.err.casefold(), ran.err
    assert len(ran.err.splitlines()) <= 3 and not (photos.parent / "r").exists()


def test_images_too_small_to_be_judged_are_named(cnnbench: Callable[..., Ran], photos: Path) -> None:
    write_scenes(photos / "val", 1, first=90, height=12, width=40)
    ran = cnnbench(*TRAIN, "run.dir=r")
    assert ran.code == 2 and "scene90.png' has 40 x 12 pixels: to be judged at scale 2 it needs 16" in ran.err


def test_other_data_serve_it_too(cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path) -> None:
    """Sets of classified images lose their labels; patches of photographs are cut at random."""
    write_scenes(tmp_path / "photos/all", 5)
    args = [arg for arg in TRAIN if not arg.startswith(("data.stride", "augment"))]
    ran = cnnbench(*args, "augment=patch_turn", "data.val_fraction=0.2", "run.dir=r")
    assert ran.code == 0 and "4 training and 1 held-out image" in ran.out, ran.err
