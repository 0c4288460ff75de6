"""Files that are both in the training and in the validation split."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cnnbench import data
from cnnbench.data.sources import Files
from cnnbench.utils.files import read_json
from tests.helpers.data import class_tree
from tests.helpers.runs import Ran


def test_files_in_both_splits_are_found_by_name_link_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = class_tree(tmp_path / "train", {"a": 4}), class_tree(tmp_path / "val", {"a": 3}, seed=1)
    sources = [Files(sorted(map(str, root.rglob("*.jpg"))), torch.zeros(4, dtype=torch.int64)) for root in (train, val)]
    assert data.shared_files(*sources) == []
    (val / "a/7.jpg").symlink_to(train / "a/0.jpg")
    (val / "a/8.jpg").write_bytes((train / "a/1.jpg").read_bytes())
    (val / "a/9.jpg").hardlink_to(train / "a/2.jpg")
    (val / "a/2.jpg").write_bytes((train / "a/2.jpg").read_bytes())
    paths = sorted(map(str, val.rglob("*.jpg")))
    shared = data.shared_files(sources[0], Files(paths, torch.zeros(len(paths), dtype=torch.int64)))
    assert [Path(path).name for _, path in shared] == ["7.jpg", "8.jpg", "2.jpg", "9.jpg"]
    monkeypatch.setattr("cnnbench.data.overlap.ALL", 3)  # of so many files only those of one name are looked at
    shared = data.shared_files(sources[0], Files(paths, torch.zeros(len(paths), dtype=torch.int64)))
    assert [Path(path).name for _, path in shared] == ["2.jpg"]


@pytest.mark.usefixtures("no_pictures")
def test_shared_files_are_warned_of_and_in_the_result(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    class_tree(tmp_path / "d/train", {"a": 6, "b": 6})
    (tmp_path / "d/val").symlink_to("train")
    ran = cnnbench("train", "data=folder", "data.root=d", "data.image_size=8", "epochs=1", "batch_size=6", "device=cpu",
                   "run.dir=r")  # fmt: skip
    assert ran.code == 0
    assert "12 of the 12 val images are training images too" in ran.out
    assert any("training images too" in text for text in read_json(tmp_path / "r/result.json")["warnings"])
