"""`cnnbench doctor data`: planted errors are found, and what cannot be looked at is said."""

import csv
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench import data
from cnnbench.commands import doctor_data
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree
from tests.helpers.paths import SHARED
from tests.helpers.runs import Ran

PHOTOGRAPHS = SHARED / "data/hymenoptera_data.tar"
SQUEEZENET = SHARED / "data/weights/squeezenet1_0-deepcompression-imagenet.safetensors"
CPU = ("device=cpu", "precision=fp32", "run.dir=found")
ZOO = "weights=zoo:resnet20-cifar10"


def issues(kind: str, path: Path = Path("found")) -> list[dict[str, str]]:
    with (path / "issues.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def details(ran: Ran) -> dict[str, tuple[str, str]]:
    return {row["check"]: (row["status"], row["detail"]) for row in json.loads(ran.out)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, train and val."""
    class_tree(tmp_path / "d/train", {"ant": 12, "bee": 12})
    class_tree(tmp_path / "d/val", {"ant": 4, "bee": 4}, seed=1)
    return tmp_path / "d"


def test_every_kind_of_planted_fault_is_found(cnnbench: Callable[..., Ran], tree: Path) -> None:
    whole = (tree / "train/ant/0.jpg").read_bytes()
    (tree / "train/ant/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "train/ant/photo.heic").write_text("x")
    shutil.copy(tree / "train/ant/1.jpg", tree / "val/ant/same.jpg")
    shutil.copy(tree / "train/ant/2.jpg", tree / "train/bee/two.jpg")
    Image.open(tree / "train/bee/3.jpg").save(tree / "val/bee/resaved.jpg", quality=60)
    ran = cnnbench("doctor", "data", "data=folder", f"data.root={tree}", ZOO, *CPU, "format=json")
    assert ran.code == 1, ran.err
    found = details(ran)
    assert found["images"] == ("ok", "35 images that can be read: 25 train, 10 val")
    assert found["unreadable"][0] == "problem"
    assert "train/ant/cut.jpg (" in found["unreadable"][1]
    assert found["ignored"] == ("warning", "1 file beside the images not used: train/ant/photo.heic")
    assert found["sizes"] == ("ok", "all 40 x 30 px")
    assert found["modes"] == ("ok", "35 JPEG RGB")
    assert found["exact copies"] == ("warning", "2 pairs of images with the same content, 1 of them in two splits")
    assert "2.jpg = train/bee/two.jpg (ant, bee)" in found["two labels"][1]
    assert found["two labels"][0] == "problem"
    near = {(row["file"], row["other_file"]) for row in issues("near copy")}
    assert ("train/bee/3.jpg", "val/bee/resaved.jpg") in near
    assert [row["other_file"] for row in issues("exact copy")] == ["train/bee/two.jpg", "val/ant/same.jpg"]
    assert (Path("found") / "copies.png").stat().st_size > 1000
    assert (Path("found") / "classes.csv").read_text() == "class,train,val\nant,12,5\nbee,13,5\n"


def test_a_folder_of_classes_alone_is_examined_as_it_is(cnnbench: Callable[..., Ran], tree: Path) -> None:
    common = ("doctor", "data", "data=folder", f"data.root={tree / 'train'}", ZOO, *CPU)
    ran = cnnbench(*common)
    assert ran.code == 0, ran.err
    assert "24 images that can be read: 24 train" in ran.out
    assert "warning  folders" not in ran.out
    assert "features by resnet20 (zoo:resnet20-cifar10), 32 px" in ran.out
    split = cnnbench(*common, "data.val_fraction=0.25")
    assert "18 train, 6 held-out" in split.out


def test_labels_that_the_net_cannot_judge_are_not_doubted(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    class_tree(tmp_path / "d", {"ant": 5, "bee": 5})  # noise
    ran = cnnbench("doctor", "data", "data=folder", "data.root=d", ZOO, *CPU)
    assert ran.code == 0, ran.err
    assert "hardly less than chance (50.0 %): this net cannot judge these labels" in ran.out
    assert "the likeliest wrong labels" not in ran.out
    assert not issues("label")
    assert not (Path("found") / "labels.png").exists()


def test_without_the_weights_for_photographs_the_rest_is_said(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        folder = tmp_path / "d" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((90, 120, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")

    def offline(model: dict) -> None:
        raise UserError("could not fetch https://example.org/net.pth: no network\nDownload it elsewhere")

    monkeypatch.setattr(doctor_data.sources, "published", offline)
    ran = cnnbench("doctor", "data", "data=folder", "data.root=d", *CPU, "format=json")
    assert ran.code == 0, ran.err
    found = details(ran)
    assert found["net"][0] == "warning"
    assert (
        "near copies and labels were not looked at: could not fetch https://example.org/net.pth: no network; Download"
        in (found["net"][1])
    )
    assert "labels" not in found
    assert found["classes"] == ("ok", "train: class0 2, class1 2")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["data.image_size=64"], "data.image_size changes nothing here"),
        (["similarity=2"], "similarity=2"),
        (["weights=nowhere"], "nowhere"),
        (["data=folder", "data.root=nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_mistakes_are_a_sentence(cnnbench: Callable[..., Ran], args: list[str], says: str) -> None:
    ran = cnnbench("doctor", "data", *args)
    assert ran.code == 2
    assert says in ran.err
    assert len(ran.err.strip().splitlines()) <= 3
    assert not Path("outputs").exists()


def test_images_none_of_which_can_be_read_are_a_sentence(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "0.jpg").write_text("no image")
    ran = cnnbench("doctor", "data", "data=folder", "data.root=d", ZOO)
    assert ran.code == 2
    assert "none of the 2 images can be read" in ran.err


def test_twenty_swapped_labels_of_the_digits_are_among_the_first_thirty(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    digits = data.load_dataset
    swapped = torch.from_numpy(rng.choice(1438, 20, replace=False))
    shifts = torch.from_numpy(rng.integers(1, 10, 20))

    def planted(cfg, **keys):
        dataset = digits(cfg, **keys)
        targets = dataset.train.targets.clone()
        targets[swapped] = (targets[swapped] + shifts) % 10
        return replace(dataset, train=data.Arrays(dataset.train.images, targets))

    monkeypatch.setattr(data, "load_dataset", planted)
    ran = cnnbench("doctor", "data", *CPU)
    assert ran.code == 0, ran.err
    first = {row["file"] for row in issues("label")[:30] if row["split"] == "train"}
    assert len(first & {f"image {index}" for index in swapped.tolist()}) >= 15
    assert "the likeliest wrong labels, 10 of" in ran.out
    assert (Path("found") / "labels.png").stat().st_size > 1000
    again = cnnbench("doctor", "data", *CPU)
    assert again.out == ran.out  # from the features on the disk


@pytest.mark.slow
@pytest.mark.skipif(not SQUEEZENET.exists(), reason="the shared weights are not there")
def test_planted_errors_of_ants_and_bees_are_found(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    with tarfile.open(PHOTOGRAPHS) as archive:
        archive.extractall(tmp_path, filter="data")
    root, rng = tmp_path / "hymenoptera_data", np.random.default_rng(0)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    swapped = set()
    for index in rng.choice(len(files), 20, replace=False):
        old = files[index]
        new = old.parent.parent / {"ants": "bees", "bees": "ants"}[old.parent.name] / old.name
        old.rename(new)
        swapped.add(str(new.relative_to(root)))
    left = [path for path in files if path.exists() and path.parts[-3] == "train" and path.suffix == ".jpg"]
    pairs = set()
    for number, index in enumerate(rng.choice(len(left), 20, replace=False)):
        copy = root / "val" / left[index].parent.name / f"copy{number}.jpg"
        Image.open(left[index]).convert("RGB").save(copy, quality=60)
        pairs.add((str(left[index].relative_to(root)), str(copy.relative_to(root))))
    net = ("model=torchvision", "model.name=squeezenet1_0", f"weights={SQUEEZENET}")
    ran = cnnbench("doctor", "data", "data=folder", f"data.root={root}", *net, *CPU)
    assert ran.code == 0, ran.err
    assert len({row["file"] for row in issues("label")[:30]} & swapped) >= 15
    near = {(row["file"], row["other_file"]) for row in issues("near copy")}
    assert len(pairs & near) >= 19  # a narrow picture is at the threshold
    assert len(near) <= 25  # and little else
