"""Images in a list: what its columns say, which of its rows are refused, and by which line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.config.sections import OnBadImage
from cnnbench.data import Dataset, Files, load_dataset, load_judged
from cnnbench.data.tables import read_table
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, data_config

pytestmark = pytest.mark.usefixtures("no_pictures")


def listed(root: Path, text: str, name: str = "x.csv") -> Path:
    """A table beside six pictures of cats and six of dogs."""
    class_tree(root, {"cat": 6, "dog": 6})
    (root / name).write_text(text)
    return root / name


def table(**values: Any) -> str:
    """Rows of all twelve pictures; further columns by a function of the picture's number."""
    rows = [[f"{kind}/{number}.jpg", kind, *(str(of(number)) for of in values.values())]
            for kind in ("cat", "dog") for number in range(6)]  # fmt: skip
    return "\n".join(",".join(row) for row in [["path", "label", *values], *rows])


def load(file: Path, told: list[str] | None = None, **keys: Any) -> Dataset:
    return load_dataset(data_config("list", file=str(file), **keys), (told if told is not None else []).append)


def names(source: object) -> list[str]:
    assert isinstance(source, Files)
    return ["/".join(Path(path).parts[-2:]) for path in source.paths]


def test_a_list_without_a_split_is_divided_and_one_with_a_split_is_not(tmp_path: Path) -> None:
    told: list[str] = []
    alone = load(listed(tmp_path, table()), told)
    assert (alone.classes, len(alone.train), len(alone.val), alone.split) == (["cat", "dog"], 10, 2, "held-out")
    assert told == ["data=list is not divided: 80 % are trained on, 20 % held out to validate on, drawn with seed 0 "
                    "(as by data.val_fraction=0.2)"]  # fmt: skip
    splits = ("train", "training", "Validation", "val", "test", "train")
    (tmp_path / "y.csv").write_text(table(split=lambda number: splits[number]))
    cfg = data_config("list", file=str(tmp_path / "y.csv"))
    whole = load_dataset(cfg, told.append, test=True)
    assert names(whole.val) == ["cat/2.jpg", "cat/3.jpg", "dog/2.jpg", "dog/3.jpg"]
    assert names(whole.test) == ["cat/4.jpg", "dog/4.jpg"] and whole.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert (whole.split, whole.kept, len(told)) == ("val", f"the test rows of '{tmp_path}/y.csv'", 1)
    assert load_dataset(cfg).test is None and load_dataset(cfg).identity == whole.identity != alone.identity
    load_dataset(replace(cfg, val_fraction=0.34), told.append)
    assert told[1:] == [f"data.val_fraction holds out training images: the val rows of '{tmp_path}/y.csv' are not used"]


def test_paths_begin_at_the_table_or_at_the_root_or_are_absolute(tmp_path: Path) -> None:
    listed(tmp_path / "a", "")
    text = f"image;class\n{tmp_path}/a/cat/0.jpg;7\ncat\\1.jpg;10\ndog/0.jpg;7\ndog/1.jpg;10\n"
    (tmp_path / "a/x.csv").write_text(text)
    (tmp_path / "b.tsv").write_text(text.replace(";", "\t"))
    there = load(tmp_path / "a/x.csv", val_fraction=0.5)
    assert there.classes == ["7", "10"]  # numbers by their values
    assert names(there.train) == names(load(tmp_path / "b.tsv", root=tmp_path / "a", val_fraction=0.5).train)
    with pytest.raises(
        UserError, match=r"b\.tsv', line 3: there is no file 'cat\\1\.jpg' in '.*' \(2 more are missing"
    ):
        load(tmp_path / "b.tsv", val_fraction=0.5)


def test_groups_of_a_list_stay_whole_and_are_said_where_the_splits_part_them(tmp_path: Path) -> None:
    told: list[str] = []
    held = load(listed(tmp_path, table(group=lambda number: f"g{number // 2}")), told, val_fraction=0.34)
    of = [{int(name[-5]) // 2 for name in names(source)} for source in (held.train, held.val)]
    assert held.val.groups is not None and not of[0] & of[1] and told == []
    (tmp_path / "y.csv").write_text(table(split=lambda n: ("train", "val")[n % 2], group=lambda n: f"g{n // 4}"))
    load(tmp_path / "y.csv", told)
    assert told == ["2 of the 2 groups of the val images have training images too, as 'g0': the error measured on "
                    "them is too low"]  # fmt: skip


def test_a_fraction_of_a_list_takes_whole_groups(tmp_path: Path) -> None:
    file = listed(tmp_path, table(group=lambda number: f"g{number // 2}"))
    whole, part = load(file, val_fraction=0.34).train, load(file, val_fraction=0.34, fraction=0.5).train
    assert whole.groups is not None and part.groups is not None and 0 < len(part) < len(whole)
    for group in part.groups.unique():
        assert (part.groups == group).sum() == (whole.groups == group).sum()


def test_a_typed_list_is_judged_as_a_whole(tmp_path: Path) -> None:
    trained = data_config("list", file=str(listed(tmp_path, table())))
    identity = load_dataset(trained, lambda note: None).identity
    (tmp_path / "new.csv").write_text("path,label,split\ncat/0.jpg,cat,test\ncat/1.jpg,cat,test\n")
    for text in ("path,label\ncat/0.jpg,cat\n", "path,label,split\ncat/0.jpg,cat,test\n"):
        (tmp_path / "new.csv").write_text(text)
        cfg = replace(trained, file=str(tmp_path / "new.csv"))
        judged = load_judged(cfg, trained, identity, {"data.file"}, test=False, tell=lambda note: None)
        assert names(judged.val) == ["cat/0.jpg"] and judged.classes == ["cat"]


HEAD = "path,label\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}cat/0.jpg,cat\n\ngone.jpg,dog", r"x\.csv', line 4: there is no file 'gone\.jpg' in"),
        (
            f"{HEAD}cat/0.jpg,cat\ncat/../cat/0.jpg,dog",
            r"line 3: '.*' is listed twice, in line 2 too with the label 'ca",
        ),
        (f"{HEAD}cat/0.jpg,cat\ncat/0.jpg,cat", r"line 3: 'cat/0\.jpg' is listed twice, in line 2 too$"),
        (f"{HEAD}cat/0.jpg,", r"line 2: the label is empty"),
        (f"{HEAD}cat/0.jpg,cat\ncat/1.jpg,cat", r"one label only, 'cat'"),
        (
            "path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,fold1",
            "line 3: the split 'fold1' is none of train, val",
        ),
        ("path,label,split\ncat/0.jpg,cat,train\ndog/0.jpg,dog,val", r"line 3: no training image has the label 'dog'"),
        ("path,label,split\ncat/0.jpg,cat,test\ndog/0.jpg,dog,val", r"no row is for the training"),
        ("path,label,group\ncat/0.jpg,cat,", r"line 2: the group is empty"),
        ("photo,label\ncat/0.jpg,cat", r"x\.csv': there is no column path; its columns are photo, label"),
        ("path,label\ncat/0.jpg,cat,1", r"line 2: it has 3 values, but there are 2 columns"),
        (HEAD, r"there are no rows"),
        ("", r"no column path"),
    ],
)
def test_rows_that_do_not_serve_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load(listed(tmp_path, text))
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs data\.file=TABLE"):
        load_dataset(data_config("list"))
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("gone.csv", "x.csv", "."):
        with pytest.raises(UserError, match=r"data\.file: cannot read the table"):
            load(tmp_path / name)
    with pytest.raises(UserError, match=r"it is no text in UTF-8 \(from byte 0 on\)"):
        load(tmp_path / "x.csv")


def test_missing_images_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = load(listed(tmp_path, f"{table()}\ngone.jpg,cat"), val_fraction=0.5, on_error=OnBadImage.skip, workers=0)
    assert len(dataset.train) + len(dataset.val) == 12 and "gone.jpg" in dataset.unreadable[0]
    assert "1 image cannot be read and is left out" in capsys.readouterr().err


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listed(tmp_path, "", "x.parquet")
    with monkeypatch.context() as without:
        without.setattr("cnnbench.data.tables.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"takes pyarrow: pip install 'cnnbench\[parquet\]', or write it as CSV$"):
            load(file)
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    with pytest.raises(UserError, match=r"cannot read the table '.*x\.parquet'"):
        load(file)
    paths = ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"]
    columns = {"path": paths, "label": [0, 0, 1, 1], "box": [[1.0]] * 4}
    pq.write_table(pyarrow.table(columns), file)
    assert read_table(file, "data.file").header == ["path", "label"]
    assert load(file, val_fraction=0.5).train.targets.tolist() == [0, 1]
    pq.write_table(pyarrow.table({**columns, "label": [0, 0, None, 1]}), file)
    with pytest.raises(UserError, match=r"x\.parquet', row 3: the label is empty"):
        load(file)


def test_labels_are_in_one_normalisation(tmp_path: Path) -> None:
    file = listed(
        tmp_path, "path,label,split\ncat/0.jpg,caf\u00e9,train\ndog/0.jpg,zoo,train\ncat/1.jpg,cafe\u0301,val\n"
    )
    dataset = load(file)
    assert dataset.classes == ["caf\u00e9", "zoo"] and torch.equal(dataset.val.targets, torch.tensor([0]))
