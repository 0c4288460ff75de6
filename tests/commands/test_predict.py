"""`cnnbench predict` and `cnnbench.load(...).predict(...)`: what a net says of images, and of files that are none."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import get_model, get_model_weights

import cnnbench as package
from cnnbench import models
from cnnbench.data import inputs, load_dataset
from cnnbench.output import prediction_cards
from cnnbench.tasks.predictor import in_threads
from cnnbench.utils.errors import UserError
from cnnbench.weights import sources
from tests.helpers.data import data_config, picture
from tests.helpers.paths import SHARED
from tests.helpers.runs import Ran
from tests.helpers.trained import colour_run, digits_run, foreign_file, photo_run, random_net

SQUEEZENET = SHARED / "data" / "weights" / "squeezenet1_0-deepcompression-imagenet.safetensors"
FLOWER = Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures of several formats, sizes and depths of folders."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.png", "c.gif", "d.bmp", "e.webp", "deeper/f.jpeg", "deeper/g.tif")):
        picture(number, 40 + number, 50).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._a.jpg").write_bytes(b"what a Mac leaves")
    return folder


def asked(cnnbench: Callable[..., Ran], *args: str) -> list[dict[str, Any]]:
    ran = cnnbench("predict", *args, f"weights={colour_run()}", "device=cpu", "format=json")
    assert ran.code == 0, ran.err
    other = "warning: 'photos': files of other kinds are not read: 1 .txt\n"
    assert ran.err == (other if "photos" in args else "")
    return json.loads(ran.out)


# The answers


def test_answers_are_those_of_the_net_on_the_images_as_torchvision_prepares_them(photos: Path) -> None:
    loaded = sources.load(str(colour_run()))
    known, net = loaded.spec, sources.build(loaded)
    assert known is not None
    preset = get_model_weights("alexnet").DEFAULT.transforms(
        crop_size=32, resize_size=32, mean=known.input.mean, std=known.input.std
    )
    files = [str(photos / name) for name in ("a.jpg", "b.png", "d.bmp")]
    with torch.no_grad():
        expected = net(torch.stack([preset(Image.open(file).convert("RGB")) for file in files])).softmax(1)
    answers = package.load(colour_run(), device="cpu").predict(files, top=10)
    for answer, row in zip(answers, expected, strict=True):
        assert [known.labels.index(found.name) for found in answer.predictions] == row.argsort(descending=True).tolist()
        torch.testing.assert_close(
            torch.tensor([found.probability for found in answer.predictions]), row.sort(descending=True).values
        )


def test_files_folders_patterns_and_lists_are_found(
    cnnbench: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven = sorted(
        os.path.relpath(path, photos.parent) for path in photos.rglob("[!.]*") if path.suffix not in (".txt", "")
    )
    assert [answer["file"] for answer in asked(cnnbench, "photos")] == seven
    assert [answer["file"] for answer in asked(cnnbench, "photos/b.png", "photos/deeper", "photos/b.png")] == [
        "photos/b.png", "photos/deeper/f.jpeg", "photos/deeper/g.tif"
    ]  # fmt: skip
    assert len(asked(cnnbench, "input=photos/*.jpg")) == 1
    assert len(asked(cnnbench, "input=[photos/a.jpg,photos/b.png]")) == 2
    assert len(asked(cnnbench, "photos/**/*.jpeg")) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffphotos/a.jpg\r\n\nphotos/deeper/g.tif\n"))
    assert [answer["file"] for answer in asked(cnnbench, "-")] == ["photos/a.jpg", "photos/deeper/g.tif"]


def test_a_name_may_hold_anything(cnnbench: Callable[..., Ran], photos: Path) -> None:
    odd = "it's 100 % [new], really; {x}.jpg"
    picture(0).save(photos / odd)
    assert [answer["file"] for answer in asked(cnnbench, f"photos/{odd}")] == [f"photos/{odd}"]
    picture(0).save(photos / "a=b.jpg")
    assert asked(cnnbench, "input=photos/a=b.jpg")[0]["file"] == "photos/a=b.jpg"


def test_the_formats_say_the_same(cnnbench: Callable[..., Ran], photos: Path) -> None:
    command = ("predict", "photos", f"weights={colour_run()}", "device=cpu", "top=3")
    answers = json.loads(cnnbench(*command, "format=json", "out=answers.csv").out)
    assert [set(answer) for answer in answers] == [{"file", "predictions", "error"}] * 7
    assert all(len(answer["predictions"]) == 3 for answer in answers)
    with Path("answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    flat = [
        {"file": answer["file"], "rank": str(rank), "class": found["class"], "probability": str(found["probability"]),
         "error": ""}
        for answer in answers for rank, found in enumerate(answer["predictions"], start=1)
    ]  # fmt: skip
    assert rows == flat
    table = cnnbench(*command, "out=answers.json").out.splitlines()
    assert json.loads(Path("answers.json").read_text()) == answers
    assert len(table) == 8 and table[0].split()[:3] == ["file", "answer", "probability"]
    for line, answer in zip(table[1:], answers, strict=True):
        assert line.startswith(answer["file"]) and answer["predictions"][0]["class"] in line
    single = cnnbench("predict", "photos/a.jpg", f"weights={colour_run()}", "device=cpu").out.splitlines()
    assert single[0] == "photos/a.jpg" and len(single) == 6 and single[1].endswith(" %")


def test_an_answer_below_the_probability_asked_for_is_unsure(
    cnnbench: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {answer["file"]: answer["predictions"][0] for answer in asked(cnnbench, "photos")}
    least = sorted(one["probability"] for one in best.values())[3] - 1e-9  # three of seven have less
    expected = [one["class"] if one["probability"] >= least else "unsure" for one in best.values()]
    assert expected.count("unsure") == 3
    command = ("predict", "photos", f"weights={colour_run()}", "device=cpu", f"min_probability={least!r}")
    titles: list[str] = []

    def draw(cards: list[prediction_cards.Card], path: Path, title: str) -> None:
        titles.extend(card.title for card in cards)
        path.touch()

    monkeypatch.setattr(prediction_cards, "draw_cards", draw)
    ran = cnnbench(*command, "format=json", "out=answers.csv", "sheet=sheet.png")
    assert "1 sheet -> sheet.png" in ran.err and "answers -> answers.csv" in ran.err
    said = json.loads(ran.out)
    assert [answer["answer"] for answer in said] == expected == titles
    assert [answer["predictions"][0] for answer in said] == list(best.values())
    assert f"3 of 7 answers unsure (min_probability={least:g})" in ran.err and ran.code == 0
    with Path("answers.csv").open() as file:
        assert [row["answer"] for row in csv.DictReader(file) if row["rank"] == "1"] == expected
    table = cnnbench(*command).out.splitlines()[1:]
    assert [("unsure" in line) for line in table] == [answer == "unsure" for answer in expected]
    for line, one in zip(table, best.values(), strict=True):
        assert one["class"] in line
    single = cnnbench("predict", "photos/a.jpg", f"weights={colour_run()}", "device=cpu", "min_probability=1").out
    assert single.splitlines()[1] == "  unsure" and len(single.splitlines()) == 7
    assert "answer" not in asked(cnnbench, "photos/a.jpg")[0]


@pytest.mark.parametrize("value", ["0", "-0.1", "1.01", "nan", "inf", "high"])
def test_a_probability_out_of_range_is_said(cnnbench: Callable[..., Ran], photos: Path, value: str) -> None:
    ran = cnnbench("predict", "photos/a.jpg", f"weights={colour_run()}", f"min_probability={value}")
    assert ran.code == 2 and "min_probability" in ran.err and ran.err.count("\n") <= 3
    if value != "high":
        with pytest.raises(UserError, match="min_probability"):
            package.load(colour_run(), min_probability=float(value))


def test_a_probability_that_every_answer_has_is_said(cnnbench: Callable[..., Ran], photos: Path) -> None:
    command = ("predict", "photos/a.jpg", f"weights={colour_run()}", "device=cpu")
    ran = cnnbench(*command, "min_probability=0.1")
    assert "min_probability=0.1 changes nothing: the likeliest of 10 classes always has 0.1 or more" in ran.err
    assert "changes nothing" not in cnnbench(*command, "min_probability=0.11").err


def of_evaluate(cnnbench: Callable[..., Ran], *args: str) -> list[tuple[str, float]]:
    """The answer to each photograph of the tree `d`, and its probability, by answers.csv."""
    ran = cnnbench("evaluate", *args, "split=val", "run.dir=judged", "device=cpu", "precision=fp32")
    assert ran.code == 0, ran.err
    with Path("judged/answers.csv").open() as file:
        return [(row["answer"], float(row["probability"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("crop", ["center", "six", "ten", "multi_scale_dense", "144"])
def test_views_are_those_of_evaluate(cnnbench: Callable[..., Ran], tmp_path: Path, crop: str) -> None:
    run = photo_run()
    tree = run.parent / "d"
    room = "0.8" if crop == "ten" else "1.0"
    judged = of_evaluate(cnnbench, f"weights={run}", f"crop={crop}", f"data.crop_ratio={room}")
    files = sorted(str(file) for file in (tree / "val").rglob("*.*"))
    command = ("predict", *files, f"weights={run}", f"crop={crop}", f"prepare.crop_ratio={room}", "device=cpu")
    for batch_size in ("7", "400"):
        said = json.loads(cnnbench(*command, f"batch_size={batch_size}", "format=json").out)
        first = [answer["predictions"][0] for answer in said]
        assert [one["class"] for one in first] == [answer for answer, _ in judged]
        assert [one["probability"] for one in first] == pytest.approx([one for _, one in judged], rel=1e-4)
    net = package.load(run, device="cpu", crop=crop, crop_ratio=float(room))
    assert [one.best.probability for one in net.predict(files)] == pytest.approx([one for _, one in judged], rel=1e-4)


def test_a_crop_without_room_names_the_key_of_predict(cnnbench: Callable[..., Ran], photos: Path) -> None:
    ran = cnnbench("predict", "photos/a.jpg", f"weights={colour_run()}", "crop=ten")
    assert ran.code == 2 and "prepare.crop_ratio=0.875" in ran.err


def test_several_nets_are_asked_each_in_its_own_way(cnnbench: Callable[..., Ran], photos: Path) -> None:
    """Of other sizes, normalisations, channels and temperatures, and with their classes in another order."""
    first = sources.load(str(photo_run()))
    assert first.spec is not None
    given = first.spec.input
    order = [2, 0, 1]
    state = dict(first.state)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][order] * 5, state["fc.bias"][order]
    sources.save_safetensors(Path("b.safetensors"), state, replace(
        first.spec, labels=[first.spec.labels[index] for index in order], extra={"temperature": 2.0},
        input=replace(given, image_size=24, mean=[0.3, 0.4, 0.5], std=[0.1, 0.2, 0.3], crop_ratio=0.8),
    ))  # fmt: skip
    torch.manual_seed(0)
    gray = models.build("resnet8", num_classes=3, in_channels=1)
    sources.save_safetensors(Path("c.safetensors"), gray.state_dict(), replace(
        first.spec, model={**first.spec.model, "name": "resnet8"},
        input=replace(given, in_channels=1, mean=[0.5], std=[0.25]),
    ))  # fmt: skip
    nets = [str(photo_run()), "b.safetensors", "c.safetensors"]
    alone = [package.load(net, device="cpu").predict("photos/a.jpg", top=3)[0] for net in nets]
    by_class = [{one.name: one.probability for one in answer.predictions} for answer in alone]
    mean = {name: sum(one[name] for one in by_class) / 3 for name in first.spec.labels}
    together = package.load(nets, device="cpu").predict("photos/a.jpg", top=3)[0]
    assert {one.name: one.probability for one in together.predictions} == pytest.approx(mean, rel=1e-5)
    ran = cnnbench("predict", "photos", f"weights=[{','.join(nets)}]", "device=cpu", "format=json", "sheet=s.png")
    assert ran.code == 0 and ran.err.count("b.safetensors: probabilities by its temperature 2\n") == 1, ran.err
    said = json.loads(ran.out)[0]["predictions"]
    assert {one["class"]: one["probability"] for one in said} == pytest.approx(mean, rel=1e-5)


def test_nets_that_do_not_go_together_are_refused(cnnbench: Callable[..., Ran], photos: Path) -> None:
    both = f"weights=[{colour_run()},{photo_run()}]"
    ran = cnnbench("predict", "photos/a.jpg", both, "device=cpu")
    assert ran.code == 2 and ran.err.count("\n") == 1 and "was trained for other classes than" in ran.err, ran.err
    for wrong in ("weights=[]", "weights=[3]", f"weights=[{colour_run()},gone]"):
        refused = cnnbench("predict", "photos/a.jpg", wrong, "device=cpu")
        assert refused.code == 2 and refused.err.count("\n") <= 3, refused.err
    with pytest.raises(UserError, match="other classes"):
        package.load([colour_run(), photo_run()], device="cpu")
    with pytest.raises(UserError, match="unknown crop"):
        package.load(colour_run(), device="cpu", crop="eleven")


def test_batches_change_nothing(photos: Path) -> None:
    classifier = package.load(colour_run(), device="cpu")
    one, four = (classifier.predict(str(photos), batch_size=size) for size in (1, 4))
    for first, second in zip(one, four, strict=True):
        assert first.file == second.file
        assert first.best.name == second.best.name
        assert first.best.probability == pytest.approx(second.best.probability, rel=1e-5)


# Files that are no images


def test_of_a_thousand_files_with_three_bad_ones_all_others_are_answered(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1000):
        picture(number % 50, 9, 8).save(folder / f"{number:03}.png")
    (folder / "017.png").write_text("a text")
    (folder / "500.png").write_bytes(b"")
    content = (folder / "999.png").read_bytes()
    (folder / "999.png").write_bytes(content[: len(content) // 2])
    command = ("predict", "many", f"weights={digits_run()}", "device=cpu", "batch_size=100")
    ran = cnnbench(*command, "format=json")
    assert ran.code == 1
    answers = json.loads(ran.out)
    bad = [answer["file"] for answer in answers if answer["error"]]
    assert bad == ["many/017.png", "many/500.png", "many/999.png"]
    assert sum(len(answer["predictions"]) == 5 for answer in answers) == 997
    assert "3 of 1,000 images could not be read" in ran.err
    assert all(name in ran.err for name in bad) and "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 4


@pytest.mark.parametrize("kind", ["text", "empty", "directory gone", "cut"])
def test_an_unreadable_image_is_named(cnnbench: Callable[..., Ran], tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.jpg"
    picture(0, 200, 200).save(file)
    content = file.read_bytes()
    file.write_bytes({"text": b"hello", "empty": b"", "cut": content[:1500]}.get(kind, content))
    if kind == "directory gone":
        file.unlink()
        file.symlink_to("nowhere")
        ran = cnnbench("predict", "x.jpg", f"weights={colour_run()}")
        assert (ran.code, "there is no file or folder 'x.jpg'" in ran.err) == (2, True)
        return
    ran = cnnbench("predict", "x.jpg", f"weights={colour_run()}")
    assert ran.code == 1
    assert "cannot read the image 'x.jpg'" in ran.err and "(not read)" in ran.out
    long = cnnbench("predict", "x.jpg", f"weights={colour_run()}", "format=csv").out.splitlines()
    assert long[0] == "file,rank,class,probability,error" and "cannot read" in long[1]


def test_what_cannot_be_found_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    mistakes = {
        f"{tmp_path}/empty": "no images in",
        f"{tmp_path}/no": "there is no file or folder",
        f"{tmp_path}/*.jpg": "no file matches",
        "https://a.org/b.jpg": "fetch the image yourself",
    }
    for given, words in mistakes.items():
        with pytest.raises(UserError, match=words):
            inputs.find_images([given])
    with pytest.raises(UserError, match="the list is empty"):
        inputs.find_images(["-"], stdin=[])

    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder '.*empty': Permission denied"):
        inputs.find_images([str(tmp_path / "empty")])


def test_a_place_that_cannot_be_written_to_is_said(cnnbench: Callable[..., Ran], photos: Path) -> None:
    for given, words in (("out=no/a.csv", "there is no folder no"), ("sheet=no/a.png", "there is no folder no"),
                         ("sheet=a.jpg", "its name ends in .png"), ("out=photos", "is a folder")):  # fmt: skip
        ran = cnnbench("predict", "photos", f"weights={colour_run()}", given)
        assert (ran.code, words in ran.err) == (2, True), ran.err
        assert ran.out == ""


def test_paths_of_both_kinds_and_long_ones_are_named_as_they_are(
    cnnbench: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("predict", "-", f"weights={colour_run()}", "device=cpu")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"photos/a.jpg\n{photos}/b.png\n{'x' * 300}.png\n"))
    ran = cnnbench(*command)
    assert ran.code == 1 and "could not be read" in ran.err
    assert ran.out.splitlines()[1].startswith("photos/a.jpg") and "b.png" in ran.out.splitlines()[2]
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/a.jpg\0photos/b.png\0"))
    ran = cnnbench(*command)
    assert (ran.code, "holds a NUL character" in ran.err) == (2, True) and len(ran.err.splitlines()) == 1


def test_a_pattern_does_not_follow_loops_of_links(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "deeper" / "up").symlink_to("..")
    (photos / "deeper" / "self").symlink_to(".")
    (photos / "gone").symlink_to("nowhere")
    (photos / ".hidden").mkdir()
    picture(0).save(photos / ".hidden" / "h.jpg")
    monkeypatch.chdir(photos.parent)
    found = [f"photos/{name}" for name in ("a.jpg", "deeper/f.jpeg")]
    assert inputs.find_images(["photos/**/*.jp*g"]) == found
    assert inputs.find_images(["**/*.jp*g"]) == found
    assert inputs.find_images([f"{photos}/**/*.jp*g"]) == [f"{photos.parent}/{name}" for name in found]
    assert inputs.find_images(["ph*s/**/**/*.jpeg"]) == ["photos/deeper/f.jpeg"]
    assert len(inputs.find_images(["photos/**"])) == 9  # also what is no image: the pattern names it
    assert inputs.find_images(["photos/d*/*.jpeg"]) == ["photos/deeper/f.jpeg"]


# Nets and their images


def test_a_net_for_gray_images_sees_photographs_in_gray(photos: Path) -> None:
    classifier = package.load(digits_run(), device="cpu")
    gray = Image.open(photos / "a.jpg").convert("RGB").convert("L")
    assert classifier.predict(photos / "a.jpg")[0].predictions == classifier.predict(gray)[0].predictions


def test_a_digit_is_recognised_from_a_picture_of_it(tmp_path: Path) -> None:
    val = load_dataset(data_config("digits")).val
    classifier = package.load(digits_run(), device="cpu")
    pictures = [Image.fromarray(val.item(index)[0]) for index in range(60)]
    pairs = zip(classifier.predict(pictures), val.targets[:60], strict=True)
    right = [answer.best.name == str(int(target)) for answer, target in pairs]
    assert sum(right) > 40


def test_paths_images_and_tensors_are_the_same_to_python(photos: Path) -> None:
    classifier = package.load(str(colour_run()), device="cpu")
    file = photos / "b.png"
    image = Image.open(file)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    answers = classifier.predict([str(file), file, image])
    array = np.array(image)
    assert len({answer.predictions for answer in [*answers, *classifier.predict([array] * 3)]}) == 1
    alone = [*classifier.predict(image), *classifier.predict(array), *classifier.predict(array[None])]
    assert len({answer.predictions for answer in alone}) == 1
    gray = np.array(image.convert("L"))
    in_gray = [
        *classifier.predict(gray),
        *classifier.predict([gray[:, :, None]]),
        *classifier.predict(image.convert("L")),
    ]
    assert len({answer.predictions for answer in in_gray}) == 1
    assert [answer.file for answer in answers] == [str(file), str(file), None]
    by_tensor = [*classifier.predict(pixels), *classifier.predict(pixels[None] / 255), *classifier.predict([pixels])]
    for answer in by_tensor:  # resized by torch, not by Pillow
        assert answer.best.name == answers[0].best.name
        assert answer.best.probability == pytest.approx(answers[0].best.probability, abs=0.02)
    assert len(classifier.predict(str(photos))) == 7
    assert classifier.classes == [f"class {index}" for index in range(10)]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(5, 8, 8), "1 or 3 channels, not \\(5, 8, 8\\)"),
        (torch.full((3, 8, 8), 2.0), "before normalisation"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "uint8, or float in 0..1"),
        (np.zeros((8, 8, 3)), "must be uint8 .*, not float64 \\(8, 8, 3\\)"),
        (np.zeros((3, 8, 8), np.uint8), "with 1, 3 or 4 channels, not uint8 \\(3, 8, 8\\)"),
        ([np.zeros(8, np.uint8)], "\\(H, W\\) or \\(H, W, C\\)"),
        (np.zeros((0, 8), np.uint8), "must have pixels"),
        (17, "not int"),
        ("nope.jpg", "there is no file or folder"),
    ],
)
def test_what_is_no_image_is_a_mistake_in_python(image: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        package.load(colour_run(), device="cpu").predict(image)


def test_an_unreadable_file_in_python_has_an_error_in_the_place_of_answers(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("hello")
    picture(0).save(tmp_path / "y.jpg")
    bad, good = package.load(colour_run(), device="cpu").predict([tmp_path / "x.jpg", tmp_path / "y.jpg"])
    assert bad.predictions == () and bad.error and good.error is None
    with pytest.raises(UserError, match=r"cannot read the image '.*x\.jpg'"):
        _ = bad.best


def test_loading_does_not_touch_the_callers_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    package.load(colour_run(), device="cpu").predict(picture(0))
    assert torch.equal(torch.rand(3), expected)


def test_python_is_told_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        package.load(tmp_path / "nope")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sizes'"):
        package.load(colour_run(), sizes=3)
    net = random_net("nin_cifar", 10)
    known = sources.load(str(colour_run())).spec
    assert known is not None
    sources.save_safetensors(tmp_path / "n.safetensors", net.state_dict(), replace(known, model={"name": "nin_cifar"}))
    with pytest.raises(UserError, match="nin_cifar needs images of at least"):
        package.load(tmp_path / "n.safetensors", image_size=2)
    with pytest.raises(UserError, match="mean has 1 values"):
        package.load(colour_run(), mean=[0.5])
    with pytest.raises(UserError, match="tells 10 classes apart, but 2 are named"):
        package.load(colour_run(), classes=["a", "b"])


# Weights from elsewhere


def test_a_file_of_another_implementation_needs_to_be_told_of(cnnbench: Callable[..., Ran], photos: Path) -> None:
    net = random_net("resnet20", 10)
    file = foreign_file(net, photos.parent / "resnet20.th")
    command = ("predict", "photos/a.jpg", f"weights={file}", "device=cpu", "format=json")
    rename = ("model=resnet20", "weights_rename={linear: fc}")
    assert "add model=" in cnnbench(*command).err
    unnamed = cnnbench(*command, *rename)
    assert (unnamed.code, "does not name its 10 classes" in unnamed.err) == (2, True)
    ran = cnnbench(*command, *rename, "prepare=cifar10")
    assert ran.code == 0, ran.err
    names = [found["class"] for found in json.loads(ran.out)[0]["predictions"]]
    assert set(names) <= {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
    Path("names.txt").write_text(
        "\n".join(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]) + "\n"
    )
    named = cnnbench(*command, *rename, "prepare=cifar10", "prepare.classes=names.txt")
    assert named.code == 0, named.err
    assert "cannot read nope.txt" in cnnbench(*command, *rename, "prepare.classes=nope.txt").err
    from_python = package.load(
        file, model="resnet20", rename={"linear": "fc"}, classes=list("0123456789"), device="cpu"
    )
    assert from_python.spec.input.image_size == 32


@pytest.mark.skipif(not SQUEEZENET.is_file(), reason="needs ../shared/data/weights")
def test_real_weights_of_imagenet_know_a_flower(cnnbench: Callable[..., Ran]) -> None:
    """Tensors alone of a net with 1,000 outputs: the names are ImageNet's, the images prepared as for it."""
    ran = cnnbench("predict", f"input={FLOWER}", f"weights={SQUEEZENET}", "model=torchvision",
                   "model.name=squeezenet1_0", "device=cpu", "format=json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "the 1,000 of ImageNet" in ran.err and "normalised as usual for ImageNet" in ran.err
    (answer,) = json.loads(ran.out)
    net = get_model("squeezenet1_0")
    net.load_state_dict(load_file(SQUEEZENET))
    entry = get_model_weights("squeezenet1_0").DEFAULT
    with torch.no_grad():
        best = net.eval()(entry.transforms()(Image.open(FLOWER))[None]).softmax(1)[0].topk(5)
    assert [found["class"] for found in answer["predictions"]] == [entry.meta["categories"][i] for i in best.indices]
    assert answer["predictions"][0]["probability"] == pytest.approx(best.values[0].item(), rel=1e-4)


# Pictures and speed


def test_a_sheet_shows_every_image_that_was_read(cnnbench: Callable[..., Ran], photos: Path) -> None:
    (photos / "broken.jpg").write_text("hello")
    ran = cnnbench("predict", "photos", f"weights={colour_run()}", "sheet=answers.png", "device=cpu")
    assert ran.code == 1
    with Image.open("answers.png") as sheet:
        assert sheet.width > 700 and len(sheet.convert("RGB").getcolors(2**24)) > 500
    assert not Path("answers-2.png").exists()


def test_a_sheet_that_is_full_goes_on_beside(
    cnnbench: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnbench.output.prediction_cards.PAGE", 3)
    assert cnnbench("predict", "photos", f"weights={colour_run()}", "sheet=s.png", "device=cpu").code == 0
    assert sorted(path.name for path in Path().glob("s*.png")) == ["s-2.png", "s-3.png", "s.png"]


def test_one_image_is_answered_without_the_heavy_libraries(photos: Path) -> None:
    """They take longer to import than the answer takes: torchvision, matplotlib, and torch's own compiler."""
    code = f"""
import sys
from cnnbench.cli import main
code = main.main(["predict", "photos/a.jpg", "weights={colour_run()}", "device=cpu"])
heavy = ("torchvision", "matplotlib", "sklearn", "tensorboard", "torch._dynamo", "sympy")
assert not [name for name in heavy if name in sys.modules]
sys.exit(code)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=photos.parent, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photos/a.jpg\n")


def test_threads_keep_the_order_and_do_not_run_ahead() -> None:
    taken: list[int] = []

    def items() -> Any:
        for number in range(20):
            taken.append(number)
            yield number

    found = in_threads(lambda number: number * number, items(), 3, 5)
    assert next(found) == 0
    assert len(taken) <= 5
    assert list(found) == [number * number for number in range(1, 20)]
