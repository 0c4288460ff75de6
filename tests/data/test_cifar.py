"""CIFAR: a tiny set in the original format, under its own checksums."""

import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.data import Arrays, cifar, load_dataset
from cnnbench.utils.errors import UserError
from tests.helpers.data import data_config


def cifar_images(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with cifar-10-python.tar.gz alone: 2 x 10 training and 6 test images, all that is then expected."""
    known = cifar.SETS["cifar10"]
    files = {"batches.meta": pickle.dumps({"label_names": ["airplane", "automobile", "bird"]})}
    for name, seed, count in (("data_batch_1", 1, 10), ("data_batch_2", 2, 10), ("test_batch", 3, 6)):
        labels = [index % 3 for index in range(count)]
        files[name] = pickle.dumps({"data": cifar_images(seed, count).reshape(count, -1), "labels": labels})
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / known.archive, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{known.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    tiny = replace(
        known,
        train={name: md5[name] for name in ("data_batch_1", "data_batch_2")},
        test={"test_batch": md5["test_batch"]},
        meta={"batches.meta": md5["batches.meta"]},
        archive_md5=hashlib.md5((folder / known.archive).read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(cifar.SETS, "cifar10", tiny)
    return folder


@pytest.fixture
def server(tiny_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves the archive on the loopback; the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tiny_cifar))) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        served = replace(cifar.SETS["cifar10"], url=f"http://127.0.0.1:{listener.server_port}/")
        monkeypatch.setitem(cifar.SETS, "cifar10", served)
        yield asked
        listener.shutdown()
        thread.join()


def test_cifar_is_unpacked_and_read(tiny_cifar: Path) -> None:
    dataset = load_dataset(data_config("cifar10", root=tiny_cifar))
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    expected = np.concatenate([cifar_images(1, 10), cifar_images(2, 10)])
    assert np.array_equal(dataset.train.images.numpy(), expected)
    assert np.array_equal(dataset.val.images.numpy(), cifar_images(3, 6))
    assert dataset.val.targets.tolist() == [0, 1, 2, 0, 1, 2] and dataset.val.targets.dtype == torch.int64
    assert dataset.classes == ["airplane", "automobile", "bird"]
    assert dataset.std == (0.2470, 0.2435, 0.2616) and dataset.split == "test"
    inside = load_dataset(data_config("cifar10", root=tiny_cifar / "cifar-10-batches-py"))
    assert len(inside.train) == 20


def test_cifar_is_where_torchvision_says() -> None:
    """The addresses and checksums of both sets, against torchvision's."""
    from torchvision import datasets

    for known, theirs in ((cifar.SETS["cifar10"], datasets.CIFAR10), (cifar.SETS["cifar100"], datasets.CIFAR100)):
        assert (known.folder, known.archive, known.archive_md5) == (theirs.base_folder, theirs.filename, theirs.tgz_md5)
        assert known.url + known.archive == theirs.url
        assert [list(known.train.items()), list(known.test.items())] == [
            [tuple(item) for item in part] for part in (theirs.train_list, theirs.test_list)
        ]
        assert (known.meta, known.label_names) == ({theirs.meta["filename"]: theirs.meta["md5"]}, theirs.meta["key"])


def test_cifar_root_may_come_from_the_environment(tiny_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNBENCH_DATA", str(tiny_cifar))
    assert len(load_dataset(data_config("cifar10")).train) == 20


def test_cifar_is_downloaded_when_asked(tmp_path: Path, server: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "new" / "place"
    with pytest.raises(UserError, match=r"(?s)cifar-10-batches-py.*data\.download=true"):
        load_dataset(data_config("cifar10", root=root))
    assert server == [] and not root.exists()
    assert len(load_dataset(data_config("cifar10", root=root, download=True)).train) == 20
    fetched = len(server)
    assert fetched > 0
    assert len(load_dataset(data_config("cifar10", root=root, download=True)).train) == 20
    assert len(server) == fetched  # nothing is fetched twice


def test_cifar_download_that_fails(tmp_path: Path, server: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = cifar.SETS["cifar10"]
    monkeypatch.setitem(cifar.SETS, "cifar10", replace(known, url=known.url + "gone/"))
    with pytest.raises(UserError, match=r"could not fetch http://127.*404"):
        load_dataset(data_config("cifar10", root=tmp_path, download=True))
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match="could not fetch"):
        load_dataset(data_config("cifar10", root=blocked, download=True))


def test_damaged_cifar(tiny_cifar: Path) -> None:
    load_dataset(data_config("cifar10", root=tiny_cifar))
    batch = tiny_cifar / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"cifar-10-batches-py is incomplete or damaged"):
        load_dataset(data_config("cifar10", root=tiny_cifar))
    assert len(load_dataset(data_config("cifar10", root=tiny_cifar, download=True)).train) == 20  # from the archive


def test_damaged_cifar_archive_is_not_fetched_unasked(tiny_cifar: Path) -> None:
    archive = tiny_cifar / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged"):
        load_dataset(data_config("cifar10", root=tiny_cifar))


def test_a_pickle_in_place_of_a_batch_is_not_run(tiny_cifar: Path) -> None:
    """The batches are Python pickles, and those can run anything: only the ones of the known checksums are opened."""

    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tiny_cifar / "ran"),))

    load_dataset(data_config("cifar10", root=tiny_cifar))
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        file = tiny_cifar / "cifar-10-batches-py" / name
        content = file.read_bytes()
        file.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(UserError, match="damaged"):
            load_dataset(data_config("cifar10", root=tiny_cifar))
        file.write_bytes(content)
    assert not (tiny_cifar / "ran").exists()
