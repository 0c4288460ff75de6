"""The packed form of image folders: what is written, that it is whole, and that it trains as the raw files do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.sections import Crop, OnBadImage
from cnnbench.data import image_names, load_dataset, shared_files, train_loader
from cnnbench.data.jpeg import read_region
from cnnbench.data.shards import Packed
from cnnbench.data.sources import Files, read_bytes, read_item
from cnnbench.data.transforms import decode_transform
from cnnbench.data.workers import parallel_map
from cnnbench.tasks.classification.mistakes import mistake_cards
from cnnbench.utils.errors import UserError
from tests.helpers.batches import same_batch
from tests.helpers.data import augment_config, class_tree, data_config, picture
from tests.helpers.processes import until

SKIP = OnBadImage["skip"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Training and validation folders of two classes, with a PNG, and photographs of several shapes."""
    root = tmp_path / "tree"
    for split, count in (("train", 7), ("val", 3)):
        class_tree(root / split, {"cat": count, "dog": count - 1}, seed=len(split))
    picture(8, 300, 200).save(root / "train" / "cat" / "wide.jpg", quality=95)
    picture(9, 150, 260).save(root / "train" / "dog" / "high.png")
    return root


@pytest.fixture
def packed(tree: Path, tmp_path: Path, cnnbench: Callable[..., Any]) -> Path:
    ran = prepare(cnnbench, tree, tmp_path / "packed")
    assert ran.code == 0, ran.err
    return tmp_path / "packed"


def prepare(cnnbench: Callable[..., Any], tree: Path, out: Path, *more: str) -> Any:
    return cnnbench(
        "prepare", "data=folder", f"data.root={tree}", f"out={out}", "side=96", "shard=4", "data.workers=0", *more
    )


def test_what_is_written(tree: Path, packed: Path) -> None:
    raw = load_dataset(data_config("folder", root=tree))
    dataset = load_dataset(data_config("folder", packed=packed))
    assert (dataset.classes, dataset.split, dataset.mean) == (raw.classes, raw.split, raw.mean)
    for ours, theirs in ((dataset.train, raw.train), (dataset.val, raw.val)):
        assert isinstance(ours, Packed) and isinstance(theirs, Files)
        assert ours.targets.tolist() == theirs.targets.tolist()
        assert [name.removeprefix(f"{packed}/") for name in image_names(ours, torch.arange(len(ours)))] == [
            os.path.relpath(path, tree) for path in theirs.paths
        ]
        for index, path in enumerate(theirs.paths):
            with Image.open(path) as image:
                record = ours.item(index)
                assert (record.width, record.height) == image.size
                if min(image.size) <= 96 and image.format == "JPEG":  # no second loss for what is small enough
                    assert read_bytes(record) == Path(path).read_bytes()
                else:
                    assert min(read_item(record).size) == 96


def test_the_shards_are_plain_tar_files(packed: Path) -> None:
    about, members = json.loads((packed / "dataset.json").read_text()), []
    for shard in about["splits"]["train"]["shards"]:
        with tarfile.open(packed / shard["file"]) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None and Image.open(file).format == "JPEG"
                members.append(member.name)
    assert members[:2] == ["train/cat/0.jpg", "train/cat/1.jpg"] and len(members) == 15
    assert not (packed / ".parts").exists()


def test_the_same_seed_cuts_raw_and_packed_images_at_the_same_places(tree: Path, packed: Path) -> None:
    """The crops are drawn for the size before the packing: relative to the image they agree to a pixel of it."""
    raw = load_dataset(data_config("folder", root=tree)).train
    small = load_dataset(data_config("folder", packed=packed)).train
    transform = decode_transform(augment_config(crop=Crop.resized, flip=True), 32, 0.875, "bilinear")
    for index in range(len(raw)):
        edges = []
        for source in (raw, small):
            torch.manual_seed(index)
            item = source.item(index)
            region, pixels = read_region(read_bytes(item), item, transform.region)
            height, width = pixels.shape[1:]
            edges.append([region.top / height, region.left / width,
                          (region.top + region.height) / height, (region.left + region.width) / width])  # fmt: skip
        assert np.abs(np.subtract(*edges)).max() <= 0.51 / min(height, width)


def test_batches_of_raw_and_packed_images_are_alike(tree: Path, packed: Path) -> None:
    augment = augment_config(crop=Crop.resized, scale=[0.3, 1.0], flip=True, cutout=5)
    loaders = [
        train_loader(load_dataset(data_config("folder", **where)), augment, image_size=32, batch_size=4, seed=3,
                     workers=0)
        for where in ({"root": tree}, {"packed": packed})
    ]  # fmt: skip
    for epoch in (0, 1):
        for ours, theirs in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in ("target", "index"))
            assert (ours["image"].int() - theirs["image"].int()).abs().float().mean() < 4


def test_workers_and_ranks_change_nothing(packed: Path) -> None:
    dataset = load_dataset(data_config("folder", packed=packed))
    augment = augment_config(crop=Crop.resized, flip=True)

    def batches(workers: int, start: int = 0) -> list[Any]:
        loader = train_loader(dataset, augment, image_size=24, batch_size=4, seed=0, workers=workers)
        return list(loader.epoch(2, start))

    here, there = batches(0), batches(2)
    assert all(same_batch(ours, theirs) for ours, theirs in zip(here, there, strict=True))
    assert same_batch(batches(0, start=2)[0], here[2])


def test_parts_of_a_packed_set(packed: Path) -> None:
    dataset = load_dataset(data_config("folder", packed=packed, fraction=0.5))
    assert isinstance(dataset.train, Packed) and len(dataset.train) == 8
    assert read_item(dataset.train.item(7)).mode == "RGB"
    held = load_dataset(data_config("folder", packed=packed, val_fraction=0.25))
    assert held.split == "held-out" and len(held.train) + len(held.val) == 15
    assert shared_files(dataset.train, dataset.val) == []
    pairs = shared_files(dataset.train, dataset.train)
    assert len(pairs) == 8 and all(a == b for a, b in pairs)


def test_groups_are_packed_with_their_images(tmp_path: Path, cnnbench: Callable[..., Any]) -> None:
    """Those of a list; of the images that are there, where some are left out."""
    root = class_tree(tmp_path / "tree", {"cat": 6, "dog": 6})
    (root / "cat/1.jpg").write_bytes(b"none")
    rows = [
        f"{kind}/{n}.jpg,{kind},{'val' if n == 5 else 'train'},g{n // 2}" for kind in ("cat", "dog") for n in range(6)
    ]
    (root / "x.csv").write_text("\n".join(["path,label,split,group", *rows]))
    ran = cnnbench("prepare", "data=list", f"data.file={root / 'x.csv'}", f"out={tmp_path / 'packed'}", "side=96",
                   "shard=4", "data.workers=0", "data.on_error=skip")  # fmt: skip
    assert ran.code == 0, ran.err
    dataset = load_dataset(data_config("list", packed=tmp_path / "packed"))
    assert dataset.train.groups is not None
    found = [Path(name).stem for name in image_names(dataset.train, torch.arange(len(dataset.train)))]
    assert [int(name) // 2 for name in found] == dataset.train.groups.tolist() and "1" in found and len(found) == 9
    held = load_dataset(data_config("list", packed=tmp_path / "packed", val_fraction=0.4), lambda note: None)
    assert held.train.groups is not None and held.val.groups is not None
    assert not set(held.train.groups.tolist()) & set(held.val.groups.tolist())
    np.save(tmp_path / "packed/train.groups.npy", np.zeros(3, dtype=np.int64))
    with pytest.raises(UserError, match=r"train\.groups\.npy is damaged: it has \(3,\) groups of 9 images"):
        load_dataset(data_config("list", packed=tmp_path / "packed"))


def test_a_test_split_is_packed_too(tree: Path, tmp_path: Path, cnnbench: Callable[..., Any]) -> None:
    class_tree(tree / "test", {"dog": 2}, seed=9)
    ran = prepare(cnnbench, tree, tmp_path / "three")
    assert "5 validation images, and 2 test images" in ran.out, ran.err
    cfg = data_config("folder", packed=tmp_path / "three")
    dataset = load_dataset(cfg, test=True)
    assert dataset.test is not None and dataset.test.targets.tolist() == [1, 1] and dataset.split == "val"
    assert load_dataset(cfg).test is None and load_dataset(cfg).identity == dataset.identity
    grouped = load_dataset(data_config("folder", packed=tmp_path / "three", val_fraction=0.3, group=r"/(\w)\w*\."))
    assert grouped.split == "held-out" and len(grouped.train) + len(grouped.val) == 15


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_byte_is_found_and_named(packed: Path, workers: int) -> None:
    dataset = load_dataset(data_config("folder", packed=packed))
    assert isinstance(dataset.train, Packed)
    record = dataset.train.item(5)
    flip_byte(Path(record.shard), record.offset + record.size // 2)
    loader = train_loader(dataset, augment_config(), image_size=16, batch_size=4, seed=0, workers=workers)
    with pytest.raises(UserError) as error:
        list(loader.epoch(0))
    assert "train-00001.tar" in str(error.value) and "'train/cat/5.jpg'" in str(error.value)
    assert "checksum" in str(error.value) and len(str(error.value).splitlines()) == 1
    skipped = load_dataset(data_config("folder", packed=packed, on_error=SKIP))
    assert len(skipped.train) == 14 and len(skipped.unreadable) == 1 and "train/cat/5.jpg" in skipped.unreadable[0]


def test_damage_that_is_found_at_the_start(packed: Path, tmp_path: Path) -> None:
    def refused(said: str, name: str = "folder", **keys: Any) -> None:
        with pytest.raises(UserError, match=said) as error:
            load_dataset(data_config(name, packed=packed, **keys))
        assert len(str(error.value).splitlines()) == 1

    refused("packed from data=folder, not from data=imagenet", name="imagenet")
    whole = (packed / "train-00001.tar").read_bytes()
    (packed / "train-00001.tar").write_bytes(whole[:-1024])
    refused(r"train-00001\.tar has .* bytes instead of")
    (packed / "train-00001.tar").unlink()
    refused(r"cannot read .*train-00001\.tar")
    (packed / "train-00001.tar").write_bytes(whole)
    flip_byte(packed / "val.npy", 140)
    refused(r"val\.npy is damaged: its checksum is wrong")
    (packed / "dataset.json").write_text("{")
    refused(r"cannot read .*dataset\.json")
    (packed / "dataset.json").write_text("{}")
    refused("prepare the images again")
    (packed / "dataset.json").unlink()
    refused("not a folder that `cnnbench prepare` wrote")


# The command


def test_the_summary(tree: Path, tmp_path: Path, cnnbench: Callable[..., Any]) -> None:
    ran = prepare(cnnbench, tree, tmp_path / "out", "format=json")
    result = json.loads(ran.out)
    assert (result["train_images"], result["val_images"], result["shards"], result["skipped"]) == (15, 5, 6, 0)
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert "20 images in 6 shards" in ran.err and "free" in ran.err  # the disk needed, before the work
    again = prepare(cnnbench, tree, tmp_path / "out")
    assert again.code == 0 and "already done" in again.out
    other = prepare(cnnbench, tree, tmp_path / "out", "quality=50")
    assert other.code == 2 and "other settings" in other.err and len(other.err.splitlines()) == 1


def test_refusals(tree: Path, tmp_path: Path, cnnbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cnnbench("prepare", "data=digits", f"out={tmp_path / 'out'}")
    assert ran.code == 2 and "no folder of image files" in ran.err and not (tmp_path / "out").exists()
    ran = prepare(cnnbench, tree, tree)
    assert ran.code == 2 and "holds other files" in ran.err and not (tree / ".parts").exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    ran = prepare(cnnbench, tree, tmp_path / "out")
    assert ran.code == 2 and "need about" in ran.err and len(ran.err.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.tar"))


def test_images_that_cannot_be_read(tree: Path, tmp_path: Path, cnnbench: Callable[..., Any]) -> None:
    (tree / "train" / "cat" / "3.jpg").write_bytes(b"")
    (tree / "val" / "dog" / "0.jpg").write_bytes((tree / "val" / "dog" / "1.jpg").read_bytes()[:300])
    ran = prepare(cnnbench, tree, tmp_path / "out")
    assert ran.code == 2 and "train/cat/3.jpg" in ran.err and "data.on_error=skip" in ran.err
    assert "has not finished this folder: run the same command again" in cnnbench(
        "train", "data=folder", f"data.packed={tmp_path / 'out'}", "model=resnet8"
    ).err  # fmt: skip
    ran = prepare(cnnbench, tree, tmp_path / "skipping", "data.on_error=skip")
    assert ran.code == 0 and "train/cat/3.jpg" in ran.err and "2 images cannot be read" in ran.err
    dataset = load_dataset(data_config("folder", packed=tmp_path / "skipping"))
    assert (len(dataset.train), len(dataset.val)) == (14, 4)
    raw = load_dataset(data_config("folder", root=tree, on_error=SKIP, workers=0))
    assert (len(raw.train), len(raw.val), len(raw.unreadable)) == (14, 4, 2)
    assert raw.train.targets.tolist() == dataset.train.targets.tolist()


def test_a_class_whose_images_are_all_unreadable(tree: Path) -> None:
    for path in (tree / "train" / "dog").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the training images of class dog can be read"):
        load_dataset(data_config("folder", root=tree, on_error=SKIP, workers=0))


DYING = """
import os, signal, sys, zlib
from cnnbench.cli import main
from cnnbench.data import packing

left = iter(range(30))

class Zlib:
    def crc32(data):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return zlib.crc32(data)

packing.zlib = Zlib
main.main(sys.argv[1:])
"""


def test_a_killed_prepare_goes_on_where_it_was(tmp_path: Path, cnnbench: Callable[..., Any]) -> None:
    """kill -9 within the fourth shard leaves three, and no process; in the end all is what it would have been."""
    tree = class_tree(tmp_path / "tree" / "train", {"cat": 20, "dog": 20}).parent
    class_tree(tree / "val", {"cat": 2, "dog": 2}, seed=1)
    args, out = ["prepare", "data=folder", f"data.root={tree}", "shard=8"], tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", DYING, *args, f"out={out}", "data.workers=1"], start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:  # fmt: skip
        assert job.wait() == -signal.SIGKILL
    assert not (out / "dataset.json").exists() and list(out.glob(".*.tmp"))
    finished = {path: path.stat().st_ino for path in out.glob("*.tar")}
    assert sorted(path.name for path in finished) == [f"train-0000{number}.tar" for number in range(3)]
    assert cnnbench(*args, f"out={out}", "data.workers=0").code == 0
    assert all(path.stat().st_ino == inode for path, inode in finished.items())
    assert cnnbench(*args, f"out={tmp_path / 'whole'}", "data.workers=0").code == 0
    ours, whole = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (out, tmp_path / "whole"))
    assert ours == whole
    until("all processes end", lambda: not alive(job.pid))


def alive(session: int) -> bool:
    """Whether a process of this session is left."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def kill_itself(item: int) -> int:
    if item == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_process_is_an_error_not_a_hang() -> None:
    with pytest.raises(UserError, match="a process that reads images was killed"):
        list(parallel_map(kill_itself, range(1000), 2))
    assert list(parallel_map(abs, range(-100, 0), 2)) == list(range(100, 0, -1))


@pytest.mark.usefixtures("no_pictures")
def test_train_and_evaluate_read_it(packed: Path, cnnbench: Callable[..., Any]) -> None:
    ran = cnnbench("train", "model=resnet8", "data=folder", f"data.packed={packed}", "epochs=1", "data.workers=0",
                   "data.image_size=32", "batch_size=4", "format=json")  # fmt: skip
    assert ran.code == 0, ran.err
    trained = json.loads(ran.out)
    assert (trained["n"], trained["train_n"], trained["skipped_images"]) == (5, 15, 0)
    ran = cnnbench("evaluate", f"weights={trained['run_dir']}", "format=json")
    result = json.loads(ran.out)
    assert ran.code == 0 and result["n"] == 5 and result["top1_error"] == trained["top1_error"]
    dataset = load_dataset(data_config("folder", packed=packed))
    cells = mistake_cards(dataset.val, dataset.classes, torch.nn.functional.one_hot(1 - dataset.val.targets).float())
    assert sorted(cell.note for cell in cells) == ["0.jpg", "0.jpg", "1.jpg", "1.jpg", "2.jpg"]
