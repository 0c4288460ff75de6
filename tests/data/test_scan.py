"""Files below folders: which are images, what is left out and said, and where links lead."""

import os
from pathlib import Path

import pytest
from PIL import features

from cnnbench.config.sections import Decoder, OnBadImage
from cnnbench.data import load_dataset, train_loader
from cnnbench.data.formats import SUFFIXES, image_suffixes
from cnnbench.data.inputs import find_images
from cnnbench.data.scan import images_below
from cnnbench.data.sources import Files, read_image
from cnnbench.utils.errors import UserError
from tests.helpers.data import augment_config, class_tree, data_config, picture

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
FORMATS = [(".jfif", "JPEG"), (".jpe", "JPEG"), (".JP2", "JPEG2000"), (".qoi", "QOI"), (".pbm", "PPM"), (".dib", "DIB"),
           (".ico", "ICO"), (".pcx", "PCX"), (".avif", "AVIF"), (".webp", "WEBP")]  # fmt: skip


def files(root: Path, **keys: object) -> list[str]:
    dataset = load_dataset(data_config("folder", root=root, val_fraction=0.34, **keys))
    assert isinstance(dataset.train, Files) and isinstance(dataset.val, Files)
    return sorted(os.path.relpath(path, root) for path in [*dataset.train.paths, *dataset.val.paths])


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Three images of each of two classes, those of one class in formats that are seldom met."""
    class_tree(tmp_path / "odd", {"cat": 3, "dog": 1})
    for number, (suffix, format) in enumerate(FORMATS):
        if format in ("AVIF", "JPEG2000") and not features.check({"AVIF": "avif"}.get(format, "jpg_2000")):
            continue
        picture(number, 64, 64).save(tmp_path / "odd" / "dog" / f"{number}{suffix}", format)
    return tmp_path / "odd"


def test_what_pillow_reads_is_read_by_each_way(odd: Path) -> None:
    """By Pillow, by the fast decoder and by `predict`."""
    dataset = load_dataset(data_config("folder", root=odd, val_fraction=0.1))
    assert dataset.left_out == {} and len(files(odd)) == len(list(odd.rglob("*.*")))
    for decode in (Decoder.auto, Decoder.pillow):
        loader = train_loader(dataset, augment_config(), image_size=16, batch_size=4, seed=0, workers=0, decode=decode)
        assert sum(len(batch["image"]) for batch in loader.epoch(0)) == len(dataset.train)
    found = find_images([str(odd / "dog")])
    assert len(found) == len(list((odd / "dog").iterdir()))
    assert all(read_image(path).mode == "RGB" for path in found)


def test_every_format_has_its_suffixes() -> None:
    from PIL import Image

    Image.init()
    known = {suffix for suffix, format in Image.registered_extensions().items() if format in SUFFIXES}
    assert known <= set(image_suffixes()) and {".jpg", ".jpeg", ".png"} <= known


def test_what_is_left_out_is_counted_and_said_once(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 3, "dog": 3})
    for name in ("a.HEIC", "b.heic", "notes.txt", "README", ".hidden.jpg", "._0.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(HEIC)
    picture().save(tmp_path / "loose.jpg")
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=tmp_path, val_fraction=0.34), told.append)
    assert dataset.left_out == {".heic": 2, ".txt": 1, "without suffix": 1, "hidden image": 1,
                                "outside the class folders": 1}  # fmt: skip
    assert len(told) == 2 and "not read: 2 .heic, " in told[0] and "HEIC is not read: convert" in told[0]
    assert "1 image outside the class folders" in told[1]


def test_a_folder_of_heic_alone_says_how_to_convert(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.HEIC").write_bytes(HEIC)
    for ask in (lambda: files(tmp_path), lambda: find_images([str(tmp_path)])):
        with pytest.raises(UserError, match=r"no images in .*2 \.heic\. HEIC is not read: convert"):
            ask()


def test_heic_under_another_name_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(HEIC)
    with pytest.raises(UserError, match=r"a\.jpg': HEIC is not read: convert"):
        read_image(tmp_path / "a.jpg")


def test_predict_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_tree(tmp_path, {"cat": 1})
    (tmp_path / "cat" / "b.tga").touch()
    assert len(find_images([str(tmp_path)])) == 1
    assert capsys.readouterr().err == f"warning: '{tmp_path}': files of other kinds are not read: 1 .tga\n"


def test_what_is_no_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "dog" / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "dog" / "pipe.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg' \(and 2 more\): a broken link, or no regular file"):
        files(tmp_path)
    assert len(files(tmp_path, on_error=OnBadImage["skip"])) == 6


# Links, and folders that are no data


def test_links_lead_nowhere_twice(tmp_path: Path) -> None:
    """Each image belongs to the class where it really lies, whatever links lead there."""
    class_tree(tmp_path / "data", {"cat": 3, "dog": 3})
    class_tree(tmp_path / "data" / "dog", {"deeper": 1}, seed=1)
    class_tree(tmp_path / "pool", {"more": 2}, seed=2)
    links = {"cat/loop": "..", "cat/self": "self", "cat/dogs": "../dog", "cat/some": "../dog/deeper", "cat/top": "/",
             "cat/more": "../../pool", "dog/more": "../../pool/more", "dog/deeper/up": "../.."}  # fmt: skip
    for name, target in links.items():
        (tmp_path / "data" / name).symlink_to(target)
    told: list[str] = []
    dataset = load_dataset(data_config("folder", root=tmp_path / "data", val_fraction=0.2), told.append)
    assert dataset.left_out["link back"] == 6 and any("6 links to folders not followed" in note for note in told)
    assert files(tmp_path / "data") == [
        "cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "cat/more/more/0.jpg", "cat/more/more/1.jpg",
        "dog/0.jpg", "dog/1.jpg", "dog/2.jpg", "dog/deeper/0.jpg",
    ]  # fmt: skip


def test_class_folders_may_be_links_but_not_to_one_folder(tmp_path: Path) -> None:
    class_tree(tmp_path / "pool", {"a": 3, "b": 3})
    root = tmp_path / "data"
    root.mkdir()
    for name, target in {"a": "../pool/a", "b": "../pool/b"}.items():
        (root / name).symlink_to(target)
    assert len(files(root)) == 6
    (root / "up").symlink_to("..")  # leads back: no class
    assert len(files(root)) == 6
    (root / "c").symlink_to("../pool/b")
    with pytest.raises(UserError, match=r"the classes 'b' and 'c' in .* are one and the same folder"):
        files(root)


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", ".thumbnails"])
def test_folders_that_programs_leave_behind_are_no_data(tmp_path: Path, name: str) -> None:
    class_tree(tmp_path, {"cat": 3, "dog": 3, f"cat/{name}/x": 1, f"{name}/cat": 1})
    assert len(files(tmp_path)) == 6
    assert len(images_below(tmp_path).names) == 6


def test_paths_are_put_together_when_asked_for(tmp_path: Path) -> None:
    class_tree(tmp_path / "train", {"cat": 3, "dog": 2})
    class_tree(tmp_path / "val", {"cat": 1, "dog": 1})
    paths = load_dataset(data_config("folder", root=tmp_path)).train.paths  # type: ignore[union-attr]
    assert list(paths) == [paths[index] for index in range(5)] == list(paths[0:5]) and paths[-1] == paths[4]
    assert all(Path(path).is_file() for path in paths) and len(paths) == 5
    with pytest.raises(IndexError):
        paths[5]
