"""Torchvision's sets: images, labels and splits are those of its own objects, on small files of each layout."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as theirs

from cnnbench.data import Arrays, Dataset, Files, load_dataset
from cnnbench.data.sources import read_image
from cnnbench.data.torchvision_sets import SETS
from cnnbench.utils.errors import UserError
from tests.data.test_small_images import write_mnist
from tests.helpers.data import class_tree, data_config, picture

PETS = {"cat": 3, "dog": 4}


def load(name: str, root: Path, told: list[str] | None = None, **keys: object) -> Dataset:
    cfg = data_config(name, source="torchvision", root=root, **keys)
    return load_dataset(cfg, (told if told is not None else []).append, test=True)


def eurosat(root: Path) -> None:
    class_tree(root / "eurosat/2750", PETS)


def country(root: Path) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        class_tree(root / "country211" / split, PETS, seed=number)


def pets(root: Path) -> None:
    home = root / "oxford-iiit-pet"
    class_tree(home, {"images": 7})
    (home / "annotations").mkdir()
    for split, numbers in (("trainval", range(5)), ("test", range(5, 7))):
        lines = []
        for n in numbers:
            name = f"{'cat_dog'[4 * (n % 2) :][:3]}_{n}"
            (home / f"images/{n}.jpg").rename(home / f"images/{name}.jpg")
            lines.append(f"{name} {n % 2 + 1} 1 1\n")
        (home / f"annotations/{split}.txt").write_text("".join(lines))


def textures(root: Path) -> None:
    class_tree(root / "dtd/dtd/images", PETS)
    (root / "dtd/dtd/labels").mkdir()
    for number, split in enumerate(("train", "val", "test")):
        (root / f"dtd/dtd/labels/{split}1.txt").write_text(f"cat/{number}.jpg\ndog/{number}.jpg\n")


def signs(root: Path) -> None:
    for number in range(4):
        (root / f"gtsrb/GTSRB/Training/0000{number % 2}").mkdir(parents=True, exist_ok=True)
        picture(number).save(root / f"gtsrb/GTSRB/Training/0000{number % 2}/{number}.ppm")
    class_tree(root / "gtsrb/GTSRB/Final_Test", {"Images": 2})
    (root / "gtsrb/GT-final_test.csv").write_text("Filename;ClassId\n0.jpg;1\n1.jpg;0\n")


def caltech(root: Path) -> None:
    class_tree(root / "caltech101/101_ObjectCategories", {**PETS, "BACKGROUND_Google": 1})
    for folder in (root / "caltech101/101_ObjectCategories").iterdir():
        for number, file in enumerate(sorted(folder.iterdir())):
            file.rename(folder / f"image_{number + 1:04d}.jpg")


def emotions(root: Path) -> None:
    (root / "fer2013").mkdir()
    with (root / "fer2013/fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for number in range(6):
            pixels = np.random.default_rng(number).integers(256, size=48 * 48)
            writer.writerow([number % 2, " ".join(map(str, pixels)), "Training" if number < 4 else "PrivateTest"])


def kuzushiji(root: Path) -> None:
    write_mnist(root / "KMNIST/raw")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "EuroSAT": (eurosat, "held-out"),
    "Country211": (country, "val"),
    "OxfordIIITPet": (pets, "test"),
    "DTD": (textures, "val"),
    "GTSRB": (signs, "test"),
    "Caltech101": (caltech, "held-out"),
    "FER2013": (emotions, "test"),
    "KMNIST": (kuzushiji, "test"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_and_labels_are_torchvisions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs.fer2013, "check_integrity", lambda *args, **keys: True)  # of the whole file
    write, split = LAYOUTS[name]
    write(tmp_path)
    told: list[str] = []
    dataset = load(name, tmp_path, told)
    assert dataset.split == split and dataset.name == name and bool(told) == (split == "held-out")
    parts = {"train": dataset.train, split: dataset.val, **({"test": dataset.test} if dataset.test else {})}
    if split == "held-out":
        parts = {"train": load(name, tmp_path, fraction=1.0, val_fraction=0.1).train}
    for part, arguments in SETS[name].items():
        truth = getattr(theirs, name)(str(tmp_path), **arguments)
        source = parts[part]
        assert source is not None and (split == "held-out" or len(source) == len(truth))
        wanted = {np.asarray(image.convert("RGB")).tobytes(): label for image, label in truth}
        if isinstance(source, Files):
            found = {np.asarray(read_image(path)).tobytes(): int(label)
                     for path, label in zip(source.paths, source.targets, strict=True)}  # fmt: skip
        else:
            assert isinstance(source, Arrays)
            pixels = source.images.repeat(1, 3, 1, 1) if source.images.shape[1] == 1 else source.images
            found = {image.permute(1, 2, 0).contiguous().numpy().tobytes(): int(label)
                     for image, label in zip(pixels, source.targets, strict=True)}  # fmt: skip
        assert found.items() <= wanted.items() and found


def test_names_and_sizes(tmp_path: Path) -> None:
    textures(tmp_path)
    signs(tmp_path)
    kuzushiji(tmp_path)
    assert load("DTD", tmp_path).classes == ["cat", "dog"] and load("DTD", tmp_path).kept == "its test images"
    numbered = load("GTSRB", tmp_path)
    assert (numbered.classes, numbered.image_size, numbered.in_channels) == (["0", "1"], 224, 3)
    small = load("KMNIST", tmp_path)
    assert (small.image_size, small.in_channels, small.classes[0]) == (28, 1, "o")
    assert torch.equal(small.val.targets, load("KMNIST", tmp_path).val.targets)


def test_a_set_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"(?s)unknown data set of torchvision .* 'Flowers'\. Did you mean 'Flowers102'"
    ):
        load("Flowers", tmp_path)
    with pytest.raises(
        UserError, match=r"cannot read DTD in '.*': Dataset not found\.\n.*, or data\.download=true to fetch"
    ):
        load("DTD", tmp_path)
    with pytest.raises(UserError, match=r"fer2013\.csv|train\.csv not found") as error:
        load("FER2013", tmp_path)
    assert "data.download" not in str(error.value)  # torchvision does not fetch it
    with pytest.raises(UserError, match="there is no folder"):
        load("Caltech101", tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert set(SETS) <= set(theirs.__all__)
