"""MNIST, Fashion-MNIST, SVHN and STL-10: small files of their formats are read as torchvision reads them."""

import gzip
import hashlib
import http.server
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets as theirs
from scipy.io import savemat

from cnnbench.data import Arrays, Dataset, load_dataset
from cnnbench.data.small_images import SETS, read_idx
from cnnbench.utils.errors import UserError
from tests.helpers.data import data_config

PARTS = ("train", "test")
COUNTS = {"train": 12, "test": 5}


def values(part: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(len(part)).integers(256, size=shape, dtype=np.uint8)


def labels(part: str) -> np.ndarray:
    return (np.arange(COUNTS[part]) * 3 % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_mnist(home: Path, *, packed: bool = False) -> Path:
    home.mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for name, array in (("images-idx3", values(part, COUNTS[part], 28, 28)), ("labels-idx1", labels(part))):
            content = idx(array)
            (home / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}").write_bytes(
                gzip.compress(content) if packed else content
            )
    return home


def write_svhn(home: Path) -> None:
    for part in PARTS:
        digits = labels(part)[:, None]
        held = {"X": values(part, 32, 32, 3, COUNTS[part]), "y": np.where(digits == 0, 10, digits)}
        savemat(home / f"{part}_32x32.mat", held)


def write_stl10(home: Path) -> None:
    (home / "stl10_binary").mkdir()
    for part in PARTS:
        values(part, COUNTS[part], 3, 96, 96).tofile(home / f"stl10_binary/{part}_X.bin")
        (labels(part) + 1).tofile(home / f"stl10_binary/{part}_y.bin")
    (home / "stl10_binary/class_names.txt").write_text("\n".join(SETS["stl10"].classes))


def same(ours: Any, images: Any, targets: Any) -> None:
    assert isinstance(ours, Arrays)
    assert torch.equal(ours.images, torch.as_tensor(np.asarray(images)).reshape(ours.images.shape))
    assert ours.targets.dtype == torch.int64 and ours.targets.tolist() == np.asarray(targets).tolist()


def load(name: str, root: Path, **keys: Any) -> Dataset:
    return load_dataset(data_config(name, root=root, **keys))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_as_torchvision_does(name: str, tmp_path: Path) -> None:
    kind = SETS[name].name
    raw = write_mnist(tmp_path / kind / "raw")
    dataset = load(name, tmp_path)
    for part, source in zip(PARTS, (dataset.train, dataset.val), strict=True):
        truth = getattr(theirs, kind)(str(tmp_path), train=part == "train")
        same(source, truth.data, truth.targets)
    assert (dataset.image_size, dataset.in_channels, dataset.split, len(dataset.classes)) == (28, 1, "test", 10)
    if name == "fashion_mnist":
        assert dataset.classes == theirs.FashionMNIST.classes
    pixels = values("train", 12, 28, 28) / 255
    assert dataset.mean == pytest.approx((pixels.mean(),)) and dataset.std == pytest.approx((pixels.std(),))
    for file in raw.iterdir():  # as they lie in other places, under their other names, packed
        (tmp_path / f"{file.name.replace('-idx', '.idx')}.gz").write_bytes(gzip.compress(file.read_bytes()))
    shutil.rmtree(tmp_path / kind)
    assert torch.equal(load(name, tmp_path).train.images, dataset.train.images)  # type: ignore[union-attr]


def test_svhn_and_stl10_are_read_as_torchvision_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path)
    write_stl10(tmp_path)
    monkeypatch.setattr(theirs.SVHN, "_check_integrity", lambda self: True)  # of the whole files
    monkeypatch.setattr(theirs.STL10, "_check_integrity", lambda self: True)
    for name, side in (("svhn", 32), ("stl10", 96)):
        dataset = load(name, tmp_path)
        for part, source in zip(PARTS, (dataset.train, dataset.val), strict=True):
            truth = getattr(theirs, SETS[name].name)(str(tmp_path), split=part)
            same(source, truth.data, truth.labels)
        assert (dataset.image_size, dataset.in_channels, dataset.split) == (side, 3, "test")
    held = load("stl10", tmp_path, val_fraction=0.2)
    assert held.split == "held-out" and held.kept == "its test images"


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"(?s)expects in '.*MNIST/raw' train-images-idx3-ubyte and .*download=true to f"
    ):
        load("mnist", tmp_path)
    write_mnist(tmp_path / "raw")
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "raw"))  # of which set they are, only who names the folder knows
    with pytest.raises(UserError, match="expects in"):
        load_dataset(data_config("fashion_mnist"))
    file = tmp_path / "raw/train-images-idx3-ubyte"
    whole = file.read_bytes()
    for content, said in ((whole[:-1], "has 9,423 bytes, but should have 9,424"), (b"text", "is no IDX file"),
                          (idx(values("train", 11, 28, 28)), "are 11, but they have 12 labels: a")):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(UserError, match=said):
            load("mnist", tmp_path / "raw")
    file.unlink()
    (tmp_path / "raw/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-40])
    with pytest.raises(UserError, match=r"cannot read the train images in '.*raw': .*end"):
        load("mnist", tmp_path / "raw")
    write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(b"no mat")
    write_stl10(tmp_path)
    (tmp_path / "stl10_binary/test_X.bin").unlink()
    for name in ("svhn", "stl10"):
        with pytest.raises(UserError, match=r"cannot read the test images in"):
            load(name, tmp_path)
    with pytest.raises(ValueError, match="no IDX"):
        read_idx(tmp_path / "test_32x32.mat")


def test_mnist_is_fetched_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = write_mnist(tmp_path / "served", packed=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    resources = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in sorted(served.iterdir())]
    monkeypatch.setattr(theirs.MNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as listener:
        monkeypatch.setattr(theirs.MNIST, "mirrors", [f"http://127.0.0.1:{listener.server_port}/"])
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        dataset = load("mnist", tmp_path / "new", download=True)
        listener.shutdown()
        thread.join()
    same(dataset.train, values("train", 12, 28, 28), labels("train"))
    with pytest.raises(UserError, match=r"could not fetch MNIST into '.*other'"):
        load("mnist", tmp_path / "other", download=True)
