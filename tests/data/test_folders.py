"""Folders of images, ImageNet among them: layouts that are read, and those that are refused with a reason."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnbench.data import Files, load_dataset, load_judged
from cnnbench.data.folders import _imagenet_names
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, data_config, picture
from tests.helpers.paths import SHARED

pytestmark = pytest.mark.usefixtures("no_pictures")

HYMENOPTERA = SHARED / "data" / "hymenoptera_data.tar"


def names(source: object) -> list[str]:
    assert isinstance(source, Files)
    return ["/".join(Path(path).parts[-2:]) for path in source.paths]


@pytest.mark.parametrize(("folder", "split"), [("val", "val"), ("test", "test"), ("valid", "val")])
def test_train_with_val_or_test(tmp_path: Path, folder: str, split: str) -> None:
    class_tree(tmp_path / "train", {"cat": 3, "dog": 2})
    class_tree(tmp_path / folder, {"dog": 1, "cat": 2})
    dataset = load_dataset(data_config("folder", root=tmp_path))
    assert dataset.classes == ["cat", "dog"] and dataset.split == split and dataset.in_channels == 3
    assert names(dataset.train) == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert dataset.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert names(dataset.val) == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg"] and dataset.val.targets.tolist() == [0, 0, 1]


def test_val_goes_before_test(tmp_path: Path) -> None:
    for folder in ("train", "val", "test"):
        class_tree(tmp_path / folder, {"cat": 1, "dog": 1})
    assert load_dataset(data_config("folder", root=tmp_path)).split == "val"


@pytest.mark.parametrize("sub", [".", "train"])
def test_one_tree_is_held_out_of(tmp_path: Path, sub: str) -> None:
    class_tree(tmp_path / sub, {"cat": 10, "dog": 20})
    told: list[str] = []
    undivided = load_dataset(data_config("folder", root=tmp_path), told.append)
    assert told == ["data=folder is not divided: 80 % are trained on, 20 % held out to validate on, drawn with seed 0 "
                    "(as by data.val_fraction=0.2)"]  # fmt: skip
    dataset = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2), told.append)
    assert len(told) == 1 and names(dataset.val) == names(undivided.val) and dataset.alone and undivided.alone
    assert dataset.split == "held-out" and dataset.val.targets.tolist() == [0] * 2 + [1] * 4
    assert len(set(names(dataset.train) + names(dataset.val))) == 30
    trained = data_config("folder", root=tmp_path)
    for typed in ({"data.root"}, {"data.val_fraction"}):  # the images that are held out again, and nothing to warn of
        cfg = replace(trained, val_fraction=0.2 if "data.val_fraction" in typed else 0.0)
        again = load_judged(cfg, trained, dataset.identity, typed, test=False, tell=told.append)
        assert names(again.val) == names(dataset.val)
    assert [text for text in told if "in the training" in text] == []
    assert names(dataset.val) == names(load_dataset(data_config("folder", root=tmp_path, val_fraction=0.2)).val)


def test_what_is_no_image_is_ignored(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    for name in ("notes.txt", "._0.jpg", ".DS_Store"):
        (tmp_path / "cat" / name).write_text("not an image")
    (tmp_path / "dog" / "deeper").mkdir()
    picture().save(tmp_path / "dog" / "deeper" / "UPPER.JPG")
    dataset = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.5))
    assert dataset.classes == ["cat", "dog"]
    assert sorted(names(dataset.train) + names(dataset.val)) == [
        "cat/0.jpg", "cat/1.jpg", "deeper/UPPER.JPG", "dog/0.jpg", "dog/1.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (
            {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/cow": 1},
            r"(?s)only in .*train': dog.*only in .*val': cow",
        ),
        ({"train/cat": 1, "train/dog": 0, "val/cat": 1, "val/dog": 1}, r"no images in .*train' for class dog"),
        ({"train/cat": 1, "val/cat": 1}, r"one class only, 'cat'"),
        ({"train": 1, "val/cat": 1}, r"train' holds images, but not in one folder per class"),
        ({"train": 0, "val": 0}, r"train' has no class folders"),
        ({"pets/train/cat": 1, "pets/val/cat": 1}, r"use data\.root=.*pets"),
    ],
)
def test_refused_trees(tmp_path: Path, tree: dict[str, int], said: str) -> None:
    for path, count in tree.items():
        class_tree(tmp_path, {path: count})
    with pytest.raises(UserError, match=said) as error:
        load_dataset(data_config("folder", root=tmp_path))
    assert len(str(error.value).splitlines()) <= 3


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere'"):
        load_dataset(data_config("folder", root=tmp_path / "nowhere"))


@pytest.mark.skipif(not HYMENOPTERA.is_file(), reason="needs ../shared/data/hymenoptera_data.tar")
def test_ants_and_bees(tmp_path: Path) -> None:
    from cnnbench.data import eval_loader

    with tarfile.open(HYMENOPTERA) as archive:
        for member in archive:
            if member.isfile() and (member.name.endswith("gif") or Path(member.name).name < "12"):
                archive.extract(member, tmp_path, filter="data")
    dataset = load_dataset(data_config("folder", root=tmp_path / "hymenoptera_data", crop_ratio=0.875))
    assert dataset.classes == ["ants", "bees"] and any(name.endswith(".gif") for name in names(dataset.train))
    loader = eval_loader(dataset.train, dataset, image_size=64, batch_size=16, workers=0)
    assert sum(len(batch["target"]) for batch in loader.epoch()) == len(dataset.train) == 9


# ImageNet


def test_imagenet_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        class_tree(tmp_path / "ILSVRC2012" / split, {"n01440764": 2, "n02119789": 1})
    dataset = load_dataset(data_config("imagenet", root=tmp_path, crop_ratio=0.875))
    assert dataset.classes == ["n01440764", "n02119789"] and dataset.split == "val"
    assert dataset.mean == (0.485, 0.456, 0.406) and dataset.std == (0.229, 0.224, 0.225)


def test_imagenet_names_are_known_when_all_are_there(tmp_path: Path) -> None:
    wnids = ["n01440764", *(f"n{2000000 + index:08d}" for index in range(998)), "n15075141"]
    found = _imagenet_names(tmp_path, wnids)
    assert found[0] == "tench" and found[-1] == "toilet tissue" and len(set(found)) == 1000
    assert _imagenet_names(tmp_path, wnids[:-1]) == wnids[:-1]


def test_imagenet_missing(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"(?s)data=imagenet expects .*ILSVRC2012_img_train\.tar.*data\.root") as error:
        load_dataset(data_config("imagenet", root=tmp_path))
    assert len(str(error.value).splitlines()) <= 3


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three original archives, with two classes of three training and one or two validation images."""
    from scipy.io import savemat
    from torchvision.datasets import imagenet

    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    synsets = np.empty(3, dtype=[(field, object) for field in fields])
    synsets[0] = (1, "n02119789", "kit fox, Vulpes macrotis", "a fox", 0, 0, 0)
    synsets[1] = (2, "n01440764", "tench, Tinca tinca", "a fish", 0, 0, 0)
    synsets[2] = (3, "n00001740", "entity", "not a leaf", 2, 0, 9)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    kit = {"data/meta.mat": meta.getvalue(), "data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1\n"}
    train = {
        f"{wnid}.tar": tar({f"{wnid}_{index}.JPEG": jpeg(index) for index in range(3)})
        for wnid in ("n01440764", "n02119789")
    }
    contents = {
        "train": tar(train),
        "val": tar({f"ILSVRC2012_val_0000000{index}.JPEG": jpeg(index) for index in (1, 2, 3)}),
        "devkit": tar({f"ILSVRC2012_devkit_t12/{name}": content for name, content in kit.items()}, "w:gz"),
    }
    for part, content in contents.items():
        name = imagenet.ARCHIVE_META[part][0]
        (tmp_path / name).write_bytes(content)
        monkeypatch.setitem(imagenet.ARCHIVE_META, part, (name, hashlib.md5(content).hexdigest()))
    return tmp_path


def test_imagenet_archives_are_unpacked(archives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (archives / "train.partial" / "n01440764").mkdir(parents=True)  # as an interrupted run leaves it
    dataset = load_dataset(data_config("imagenet", root=archives))
    assert dataset.classes == ["tench", "kit fox"]
    assert names(dataset.train)[:2] == ["n01440764/n01440764_0.JPEG", "n01440764/n01440764_1.JPEG"]
    assert len(dataset.train) == 6
    expected = (("n01440764", 2), ("n02119789", 1), ("n02119789", 3))  # by the devkit's list
    assert names(dataset.val) == [f"{wnid}/ILSVRC2012_val_0000000{index}.JPEG" for wnid, index in expected]
    assert "unpacking" in capsys.readouterr().err
    load_dataset(data_config("imagenet", root=archives))
    assert capsys.readouterr().err == ""  # once is enough


def test_imagenet_archive_missing(archives: Path) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(UserError, match=r"lacks ILSVRC2012_devkit_t12\.tar\.gz"):
        load_dataset(data_config("imagenet", root=archives))
    assert not (archives / "train").exists()


def test_imagenet_archive_damaged(archives: Path) -> None:
    file = archives / "ILSVRC2012_img_train.tar"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"(?s)could not unpack ImageNet.*ILSVRC2012_img_train\.tar.*corrupted"):
        load_dataset(data_config("imagenet", root=archives))
    assert not (archives / "train").exists()


@pytest.mark.parametrize("kind", ["up", "absolute", "link"])
def test_no_archive_writes_outside_its_folder(archives: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Also one inside another, as the training images are."""
    from torchvision.datasets import imagenet

    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        name = {"up": "../../../escaped", "absolute": str(archives / "escaped"), "link": "way/escaped"}[kind]
        if kind == "link":
            link = tarfile.TarInfo("way")
            link.type, link.linkname = tarfile.SYMTYPE, "../../.."
            archive.addfile(link)
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"out"))
    content = tar({"n01440764.tar": inner.getvalue()})
    file = imagenet.ARCHIVE_META["train"][0]
    (archives / file).write_bytes(content)
    monkeypatch.setitem(imagenet.ARCHIVE_META, "train", (file, hashlib.md5(content).hexdigest()))
    try:
        load_dataset(data_config("imagenet", root=archives))
    except UserError as error:  # an absolute name is made a relative one, which is safe as well
        assert kind == "absolute" or "could not unpack ImageNet" in str(error)
    assert not list(archives.rglob("escaped")) or kind == "absolute"
    assert not (archives / "escaped").exists() and not (archives.parent / "escaped").exists()


# Validation images in one folder


def flat(root: Path, file: str, lines: list[str], home: str = "val") -> Path:
    """Training images of two classes, and four validation images in one folder, with a file that says their classes."""
    class_tree(root / "train", {"n01": 2, "n02": 2})
    class_tree(root / Path(home).parent, {Path(home).name: 4})
    (root / file).write_text("\n".join(lines))
    return root


ANNOTATIONS = [f"{number}.jpg\tn0{1 + number // 3}\t0\t0\t9\t9" for number in range(4)]


@pytest.mark.parametrize(
    ("file", "lines", "home"),
    [
        ("val/val_annotations.txt", ANNOTATIONS, "val/images"),
        ("val.txt", [f"val/{number}.jpg {number // 3}" for number in range(4)], "val"),
        ("../imagenet_2012_validation_synset_labels.txt", ["n01", "n01", "n01", "n02"], "val"),
    ],
)
def test_classes_of_a_flat_validation_folder_are_read_from_their_file(
    tmp_path: Path, file: str, lines: list[str], home: str
) -> None:
    told: list[str] = []
    root = flat(tmp_path / "d", file, lines, home)
    class_tree(root / "test", {"images": 1})  # as tiny-imagenet's, without labels
    dataset = load_dataset(data_config("folder", root=root), told.append)
    assert names(dataset.val) == [f"{Path(home).name}/{number}.jpg" for number in range(4)]
    assert dataset.val.targets.tolist() == [0, 0, 0, 1] and (dataset.split, dataset.kept) == ("val", "")
    assert sum("the classes of its images are those of" in note for note in told) == 1
    assert f"'{root}/test' has no class folders: not used" in told
    known = load_dataset(data_config("imagenet", root=root))
    assert known.val.targets.tolist() == [0, 0, 0, 1]


def test_the_layout_of_kaggle_is_imagenets(tmp_path: Path) -> None:
    root = tmp_path / "ILSVRC/Data/CLS-LOC"
    class_tree(root / "train", {"n01": 2, "n02": 2})
    (root / "val").mkdir()
    for number in range(2):
        picture(number).save(root / f"val/ILSVRC2012_val_{number}.JPEG")
    rows = [f"ILSVRC2012_val_{number},n0{2 - number} 1 2 3 4" for number in range(2)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    assert load_dataset(data_config("imagenet", root=tmp_path)).val.targets.tolist() == [0, 1]
    dataset = load_dataset(data_config("folder", root=root), lambda note: None)
    assert names(dataset.val) == ["val/ILSVRC2012_val_1.JPEG", "val/ILSVRC2012_val_0.JPEG"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*ANNOTATIONS, "9.jpg\tn01"], r"val_annotations\.txt', line 5: there is no image '9\.jpg' in '.*images'"),
        ([*ANNOTATIONS, "3.jpg\tn01"], r"line 5: there is no image '3\.jpg' .*listed twice"),
        (ANNOTATIONS[:2], r"says no class for 2 of the 4 images in '.*images': 2\.jpg, 3\.jpg"),
        (["0.jpg\tn03"], r"line 1: no training image is of class 'n03'"),
        (["0.jpg"], r"cannot read the classes in"),
    ],
)
def test_a_file_of_classes_that_does_not_serve_is_refused(tmp_path: Path, lines: list[str], said: str) -> None:
    flat(tmp_path, "val/val_annotations.txt", lines, "val/images")
    with pytest.raises(UserError, match=said):
        load_dataset(data_config("folder", root=tmp_path))
