"""`cnnbench visualize` and the pictures during training, as a user meets them."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench import models
from cnnbench.config.sections import Schedule, ScheduleConfig
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.training import schedules
from cnnbench.visual import registry, schedule
from cnnbench.visual.context import PlannedTraining
from cnnbench.weights import checkpoint
from cnnbench.weights.sources import save_safetensors
from tests.helpers.browser import CHROMIUM, screenshot
from tests.helpers.data import class_tree
from tests.helpers.runs import SMALL, Ran
from tests.helpers.trained import colour_run, digits_run

QUICK = ("steps=3", "limit=40", "top=4", "device=cpu")


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]


def other_net(path: Path, channels: int) -> Path:
    """An untrained resnet8 for images of so many channels."""
    net = models.build("resnet8", num_classes=2, in_channels=channels)
    given = InputSpec(image_size=32, in_channels=channels, mean=[0.5] * channels, std=[0.25] * channels)
    spec = ModelSpec(model={"name": "resnet8"}, labels=["cat", "dog"], input=given)
    save_safetensors(path, net.state_dict(), spec)
    return path


def test_everything_is_drawn_and_shown_on_one_page_that_loads_nothing(
    pictures: None, cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    out = tmp_path / "pictures"
    ran = cnnbench("visualize", f"weights={digits_run()}", f"run.dir={out}", "format=json", *QUICK)
    assert ran.code == 0, ran.err
    drawn, usual = json.loads(ran.out), {*registry.NEEDS_WEIGHTS} - {*registry.AT_LENGTH}
    assert {one["what"] for one in drawn} == usual
    for one in drawn:
        with Image.open(one["file"]) as image:
            assert min(image.size) > 150 and len(np.unique(image.convert("L"))) > 10
    page = (out / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert len([link for link in links.found if link.startswith("data:image/png;base64,")]) == len(drawn)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page and "<script" not in page
    events = EventAccumulator(str(out)).Reload()
    assert {tag.partition("/")[0] for tag in events.Tags()["images"]} == usual
    assert (out / "projector_config.pbtxt").exists()

    again = cnnbench("visualize", f"weights={digits_run()}", f"run.dir={out}", "what=filters", "format=json")
    assert again.code == 0 and len(list(out.glob("events*"))) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_real_browser_shows_the_page(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("visualize", f"weights={digits_run()}", "what=filters,gradcam", f"run.dir={tmp_path}/p", *QUICK)
    assert ran.code == 0, ran.err
    shot = tmp_path / "shot.png"
    screenshot(tmp_path / "p" / "index.html", shot)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    coloured = (pixels.max(2).astype(int) - pixels.min(2) > 60).mean()
    assert coloured > 0.01  # the heat of Grad-CAM: the pictures are there, not only their places
    assert (pixels < 80).all(2).mean() > 0.01


def test_names_of_layers_and_units_are_those_of_the_net(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for what, expected in (("maps", "maps-0-layer2.png"), ("patches", "patches-layer2.png"),
                           ("maximize", "maximize-layer2.png")):  # fmt: skip
        ran = cnnbench("visualize", f"weights={digits_run()}", f"what={what}", "layer=layer2", "units=3,1", "images=5",
                       f"run.dir={tmp_path}/{what}", *QUICK)  # fmt: skip
        assert ran.code == 0, ran.err
        assert (tmp_path / what / expected).exists()


def test_images_are_files_of_any_kind_and_the_class_is_named(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(50, 80, 3), dtype=np.uint8)).save(folder / "a=b.png")
    ran = cnnbench("visualize", f"weights={colour_run()}", "what=gradcam,saliency,occlusion,maps", f"images={folder}",
                   "target=class 3", f"run.dir={tmp_path}/p", *QUICK)  # fmt: skip
    assert ran.code == 0, ran.err
    captions = (tmp_path / "p" / "result.json").read_text()
    assert "a=b" in captions
    assert {path.stem for path in (tmp_path / "p").glob("*.png")} == {"gradcam", "saliency", "occlusion", "maps-0"}


MISTAKES = {
    "what=fliters": "unknown picture 'fliters'. Did you mean 'filters'?",
    "layer=layr1": "has no layer 'layr1'. Did you mean 'layer1'?",
    "what=maps layer=head": "gives one number for each unit, not a feature map",
    "what=gradcam layer=head": "Grad-CAM needs feature maps",
    "what=maximize units=10": "units=10: the units of head are numbered 0 to 9",
    "what=maximize units=ten": "units=ten: not a class or number",
    "what=gradcam images=359": "images=359: the test images of digits are numbered 0 to 358",
    "what=gradcam images=there.jpg": "there is no file or folder 'there.jpg'",
    "what=gradcam target=ten": "target=ten: not a class",
    "what=gradcam layer=fc": "Grad-CAM needs feature maps",
    "what=filters layer=layer9": "Did you mean",
    "top=0": "top=0 is out of range",
    "normalize=both": "unknown value 'both'",
}


@pytest.mark.parametrize("args", MISTAKES)
def test_a_mistake_is_one_clear_sentence_and_leaves_nothing(
    cnnbench: Callable[..., Ran], tmp_path: Path, args: str
) -> None:
    ran = cnnbench("visualize", f"weights={digits_run()}", *args.split(), *(k for k in QUICK if k[:3] not in args))
    assert ran.code == 2
    assert MISTAKES[args] in ran.err
    assert len(ran.err.strip().splitlines()) <= 3 and "Traceback" not in ran.err
    assert not list(tmp_path.glob("outputs/**/*.png"))


def test_without_weights_it_says_so(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("visualize", "what=patches")
    assert ran.code == 2 and "what=patches looks at a trained net: add weights=" in ran.err


@pytest.mark.parametrize("channels", [1, 4])
def test_nets_for_other_channels_than_three(cnnbench: Callable[..., Ran], tmp_path: Path, channels: int) -> None:
    file = other_net(tmp_path / "net.safetensors", channels)
    ran = cnnbench("visualize", f"weights={file}", "what=filters", f"run.dir={tmp_path}/f")
    assert ran.code == 0, ran.err
    ran = cnnbench("visualize", f"weights={file}", "what=maximize", f"run.dir={tmp_path}/m", *QUICK)
    if channels == 1:
        assert ran.code == 0, ran.err
    else:
        assert ran.code == 2 and "takes 4 channels, but images have 1 or 3" in ran.err
    ran = cnnbench("visualize", f"weights={file}", "what=patches")
    assert ran.code == 2 and ("does not name its training data" in ran.err or "channels" in ran.err)


def test_images_too_small_for_the_net(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    net = models.build("alexnet", num_classes=2)
    given = InputSpec(image_size=227, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    spec = ModelSpec(model={"name": "alexnet"}, labels=["a", "b"], input=given)
    save_safetensors(tmp_path / "net.safetensors", net.state_dict(), spec)
    ran = cnnbench("visualize", f"weights={tmp_path}/net.safetensors", "what=maps", "data.image_size=20")
    assert ran.code == 2 and re.search(r"alexnet needs images of at least \d+ x \d+ pixels, not 20 x 20", ran.err)


def test_the_curve_of_the_learning_rate_is_that_of_the_training(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("visualize", "what=batch,schedule", "schedule=cosine", "schedule.warmup_epochs=1", "epochs=4",
                   "batch_size=100", "optim.lr=0.2", "optim.lr_batch=50", f"run.dir={tmp_path}/p")  # fmt: skip
    assert ran.code == 0, ran.err
    events = EventAccumulator(str(tmp_path / "p"), size_guidance={"scalars": 0}).Reload()
    found = {one.step: one.value for one in events.Scalars("schedule/lr")}
    assert sorted(found) == list(range(60))  # 1,438 images in batches of 100, four times
    assert found[0] == pytest.approx(0.4 / 16) and max(found.values()) == pytest.approx(0.4)
    assert found[15 + 22] == pytest.approx(0.4 * schedules.cosine(22 / 45), rel=1e-3)
    assert {path.stem for path in (tmp_path / "p").glob("*.png")} == {"batch", "schedule"}


@pytest.mark.parametrize(("typed", "crop"), [([], "crop=pad, padding=4"), (["augment=resized_flip"], "crop=resized")])
def test_a_batch_is_augmented_as_a_training_would(
    cnnbench: Callable[..., Ran], tmp_path: Path, typed: list[str], crop: str
) -> None:
    """Small images are shifted, and that is said, unless an augmentation was typed."""
    for number, split in enumerate(("train", "val")):
        class_tree(tmp_path / "d" / split, {"a": 2, "b": 2}, seed=number)
    ran = cnnbench("visualize", "what=batch", "model=resnet8", "data=folder", "data.root=d", "device=cpu",
                   "run.dir=p", *typed)  # fmt: skip
    assert ran.code == 0, ran.err
    assert crop in json.loads((tmp_path / "p/result.json").read_text())["pictures"][0]["caption"]
    assert ("not cut as photographs are" in ran.err) == (not typed)


def test_a_trained_nets_own_settings_are_looked_at_unless_others_are_typed(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    cnnbench("visualize", "what=schedule", f"weights={digits_run()}", f"run.dir={tmp_path}/own")
    title = json.loads((tmp_path / "own" / "result.json").read_text())["pictures"][0]["title"]
    assert "multistep: 3 epochs of 12 steps, batch 128" in title
    cnnbench("visualize", "what=schedule", f"weights={digits_run()}", "schedule=plateau", f"run.dir={tmp_path}/typed")
    title = json.loads((tmp_path / "typed" / "result.json").read_text())["pictures"][0]["title"]
    assert "plateau: 3 epochs of 12 steps, batch 128\nbefore its drops to 0.1 of it" in title


def test_a_plateau_of_the_past_is_drawn_with_the_drops_that_it_had() -> None:
    """Drops follow the rows of the epochs, those of three steps each; a warm-up of four steps is not taken for one."""
    rows = [{"epoch": 0, "step": 0, "lr": 0.0}]
    rows += [{"epoch": n, "step": 3 * n, "lr": lr} for n, lr in enumerate([0.06, 0.1, 0.05, 0.05, 0.025], start=1)]
    settings = ScheduleConfig(
        name=Schedule.plateau, gamma=0.5, warmup_epochs=4 / 3, patience=1, milestones=[], every_epochs=1
    )
    planned = PlannedTraining(augment=None, optim=None, schedule=settings, epochs=5, batch_size=1, rows=rows)
    factor = schedules.build_schedule(settings, 15, 3)
    drops = schedule.recorded_drops(planned, lambda step: 0.1 * factor(step))
    assert [drops.at(step) for step in (0, 2, 3, 5, 6, 11, 12, 14, 20)] == pytest.approx(
        [1] * 4 + [0.5] * 2 + [0.25] * 3
    )
    assert drops.text(0.5) == "dropped to 0.5 of it after epoch 2, 4"
    assert schedule.recorded_drops(replace(planned, rows=[]), factor).at(7) == 1


def test_pictures_during_training_change_nothing_of_it(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    command = ("train", "epochs=2", *SMALL)
    for name in ("off", "on"):
        ran = cnnbench(*command, f"tracking.images={str(name == 'on').lower()}", f"run.dir={tmp_path}/{name}")
        assert ran.code == 0, ran.err
    off, on = (checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("off", "on"))
    assert all(torch.equal(off["model"][key], on["model"][key]) for key in off["model"])
    events = EventAccumulator(str(tmp_path / "on")).Reload()
    tags = events.Tags()
    assert {"pictures/mistakes", "pictures/confusion_matrix", "pictures/train_batch", "filters"} <= set(tags["images"])
    assert len(events.Images("filters")) == 3  # before, and after each of two epochs
    for stage in ("stem", "layer1", "layer2", "layer3", "head"):
        assert {f"activation/rms/{stage}", f"activation/zeros/{stage}", f"gradient/rms/{stage}"} <= set(tags["scalars"])
        assert all(one.value > 0 for one in events.Scalars(f"gradient/rms/{stage}"))
    on_disk = [{path.name for path in (tmp_path / name).glob("*.png")} for name in ("off", "on")]
    assert on_disk[1] - on_disk[0] == {"filters.png", "signals.png", "mistakes.png"}
    assert not EventAccumulator(str(tmp_path / "off")).Reload().Tags()["images"]


@pytest.mark.parametrize("what", ["maps", "maximize", "saliency", "occlusion", "gradcam"])
def test_numbers_that_are_not_finite_are_no_picture(cnnbench: Callable[..., Ran], tmp_path: Path, what: str) -> None:
    net = models.build("resnet8", num_classes=2)
    state = {name: 1e30 * value if value.ndim == 4 else value for name, value in net.state_dict().items()}
    given = InputSpec(image_size=32, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3)
    spec = ModelSpec(model={"name": "resnet8"}, labels=["cat", "dog"], input=given)
    save_safetensors(tmp_path / "w.safetensors", state, spec)
    Image.effect_noise((40, 40), 90).save(tmp_path / "i.png")
    ran = cnnbench("visualize", "weights=w.safetensors", f"what={what}", "images=i.png", *QUICK)
    assert ran.code == 1 and "not finite" in ran.err and "Warning" not in ran.err, ran.err
