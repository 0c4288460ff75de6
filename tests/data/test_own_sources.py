"""Data by a function of the user's own: what it may return, what is refused, and which files run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.config.parsing import from_plain, to_plain
from cnnbench.config.sections import DataConfig
from cnnbench.data import Arrays, Dataset, Files, as_trained, load_dataset
from cnnbench.data.own_sources import identified
from cnnbench.models import own_files
from cnnbench.utils.errors import UserError
from tests.helpers.data import class_tree, data_config
from tests.helpers.runs import Ran

HEAD = "import numpy as np\nimport torch\nfrom pathlib import Path\n"
RETURNED = {
    "gray": "{'train': (np.arange(6 * 64).reshape(6, 8, 8).astype(np.uint8), [0, 1, 2] * 2)}",
    "colour": "{'train': (np.full((4, 8, 8, 3), 7, np.uint8), np.array([0, 1, 1, 0])), "
    "'test': (torch.ones(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([1, 0])), 'classes': ['cat', 'dog']}",
    "files": "{'train': ([*root.glob('*/[0-3].jpg')], [path.parent.name for path in root.glob('*/[0-3].jpg')]), "
    "'val': ([*root.glob('*/4.jpg')], [path.parent.name for path in root.glob('*/4.jpg')])}",
    "grouped": "{'train': (np.zeros((8, 4, 4), np.uint8), [0, 1] * 4, ['a', 'a', 'b', 'b', 'c', 'c', 'd', 'd'])}",
}


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_files, "GIVEN", {})


def mydata(folder: Path, **functions: str) -> Path:
    """A file with functions that return these expressions."""
    text = "\n".join(f"def {name}(root=Path('.')):\n    return {value}\n" for name, value in functions.items())
    (folder / "mydata.py").write_text(HEAD + text)
    return folder / "mydata.py"


def load(file: Path, name: str, told: list[str] | None = None, **keys: object) -> Dataset:
    cfg = data_config(name, source="python", file=str(file), **keys)
    return load_dataset(cfg, (told if told is not None else []).append)


def test_what_a_function_may_return(tmp_path: Path) -> None:
    class_tree(tmp_path, {"cat": 5, "dog": 5})
    file, told = mydata(tmp_path, **RETURNED), list[str]()
    gray = load(file, "gray", told)
    assert isinstance(gray.train, Arrays) and gray.train.images.shape[1:] == (1, 8, 8) and len(gray.val) == 3
    assert (gray.classes, gray.image_size, gray.in_channels, gray.name) == (["0", "1", "2"], 8, 1, "gray")
    assert len(told) == 1 and "data=gray is not divided" in told[0]
    colour = load(file, "colour")
    assert isinstance(colour.train, Arrays) and colour.train.images.shape == (4, 3, 8, 8)
    assert (colour.split, colour.classes, colour.val.targets.tolist()) == ("test", ["cat", "dog"], [1, 0])
    files = load(file, "files", root=tmp_path)
    assert isinstance(files.train, Files) and files.classes == ["cat", "dog"] and len(files.train) == 8
    assert (files.split, files.image_size, sorted(files.val.targets.tolist())) == ("val", 224, [0, 1])
    grouped = load(file, "grouped", val_fraction=0.25)
    assert grouped.train.groups is not None and grouped.val.groups is not None
    assert not set(grouped.train.groups.tolist()) & set(grouped.val.groups.tolist())
    identities = {dataset.identity for dataset in (gray, colour, files, grouped)}
    assert len(identities) == 4 and load(file, "gray").identity == gray.identity


PIXELS = "np.zeros((2, 4, 4), np.uint8)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1 / 0", r"bad\(\) of mydata\.py failed: ZeroDivisionError: division by zero \(mydata\.py, line 5\)$"),
        ("[1, 2]", r"bad\(\) of mydata\.py returned list: it must return a dict"),
        ("{'val': 1}", r"returned a dict of val: it must"),
        (f"{{'train': ({PIXELS}, [0, 1]), 'dev': 1}}", "returned 'dev'"),
        (f"{{'train': {PIXELS}}}", r"train of bad\(\) of mydata\.py is ndarray: it must be \(images, labels\)"),
        (f"{{'train': ({PIXELS}, [0])}}", "has 2 images, but 1 label"),
        (f"{{'train': ({PIXELS}, [0, 1], ['a'])}}", "has 2 images, but 1 group"),
        (f"{{'train': ({PIXELS}, [0, .5])}}", "has the label 0.5: labels are whole numbers"),
        (f"{{'train': ({PIXELS}, [0, 'a'])}}", "labels of two kinds"),
        (f"{{'train': ({PIXELS}, [0, -1])}}", "has the label -1, which is none of its 1 class"),
        (f"{{'train': ({PIXELS}, [0, 2]), 'classes': ['a', 'b']}}", "has the label 2, which is none of its 2 classes"),
        (f"{{'train': ({PIXELS}, [0, 0])}}", "has one class only"),
        (f"{{'train': ({PIXELS}, 7)}}", "int in place of a list"),
        (
            "{'train': (np.zeros((2, 4, 4)), [0, 1])}",
            r"has images as float64 \(2, 4, 4\): they must be paths of files, or",
        ),
        (
            f"{{'train': ({PIXELS}, [0, 1]), 'val': ({PIXELS}[:, :2], [0, 1])}}",
            "as 1 x 4 x 4, but val images as 1 x 2 x 4",
        ),
        (f"{{'train': ({PIXELS}, [0, 1]), 'val': ({PIXELS}, [0, 3])}}", r"val of bad.* has the label 3, which is none"),
        (f"{{'train': ({PIXELS}, [0, 1], 'ab'), 'val': ({PIXELS}, [0, 1])}}", "has groups for train, but not for all"),
        ("{'train': (['gone.jpg'], ['a'])}", r"names 'gone\.jpg', and there is no such file"),
        ("{'train': ([], [])}", "has no images"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load(mydata(tmp_path, bad=value), "bad")
    assert len(str(error.value).splitlines()) == 1


def test_files_that_do_not_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.file=.*gone\.py: cannot read it"):
        load(tmp_path / "gone.py", "shapes")
    with pytest.raises(UserError, match=r"unknown function in mydata\.py 'grey'\. Did you mean 'gray'\?"):
        load(mydata(tmp_path, gray=RETURNED["gray"]), "grey")
    (tmp_path / "mydata.py").write_text("from os.path import join\nimport nowhere_to_be_found\n")
    with pytest.raises(UserError, match=r"mydata\.py does not run: ModuleNotFoundError: .*\(mydata\.py, line 2\)"):
        load(tmp_path / "mydata.py", "join")
    (tmp_path / "mydata.py").write_text("from os.path import join\n")
    with pytest.raises(UserError, match=r"unknown function in mydata\.py 'join'"):  # it is not of the file's own
        load(tmp_path / "mydata.py", "join")
    with pytest.raises(UserError, match=r"needs a file and a function in it"):
        load_dataset(data_config("shapes", source="python"))


def test_a_saved_configuration_runs_only_the_file_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = mydata(tmp_path, gray=RETURNED["gray"])
    cfg = identified(data_config("gray", source="python", file=str(file)))
    assert cfg.sha256 and cfg.file == str(file)
    saved = to_plain(cfg)
    for key in ("sha256", "file"):
        with pytest.raises(UserError, match="no checkpoint may run code by itself"):
            from_plain(DataConfig, {**saved, key: None})
    monkeypatch.setattr(own_files, "GIVEN", {})
    known: DataConfig = from_plain(DataConfig, saved)
    assert len(load_dataset(known, lambda note: None).train) == 3  # it stands where it stood
    file.write_text(file.read_text() + "print('another')\n")
    with pytest.raises(
        UserError, match=r"has changed since .* the file again: data=python data\.file=mydata\.py data\.name=gray$"
    ):
        load_dataset(known, lambda note: None)
    given = as_trained(replace(known, file=str(file)), {}, {"data.file"})
    assert len(load_dataset(given, lambda note: None).train) == 3  # since the user names it
    monkeypatch.setattr(own_files, "GIVEN", {})
    file.unlink()
    with pytest.raises(UserError, match=r"which is not there: give the file again"):
        load_dataset(known, lambda note: None)


def test_a_training_evaluated_and_predicted_with(
    cnnbench: Callable[..., Ran], tmp_path: Path, no_pictures: None
) -> None:
    value = "{'train': (np.arange(40 * 64).reshape(40, 8, 8).astype(np.uint8), [0, 1] * 20), 'classes': ['a', 'b']}"
    file = mydata(tmp_path, shapes=value)
    args = ("data=python", f"data.file={file}", "data.name=shapes")
    ran = cnnbench("train", *args, "model=resnet8", "epochs=1", "run.root=o", "device=cpu")
    assert ran.code == 0 and "data=shapes is not divided" in ran.err + ran.out, ran.err
    assert (tmp_path / "o/train/resnet8-shapes-epochs_1/result.json").is_file()
    saved = (tmp_path / "o/train/resnet8-shapes-epochs_1/config.yaml").read_text()
    assert own_files.identified(str(file), "shapes")["sha256"] in saved
    judged = cnnbench("evaluate", "weights=o/train/resnet8-shapes-epochs_1", "device=cpu", "format=json")
    assert judged.code == 0 and '"n": 8' in judged.out, judged.err
    other = cnnbench("evaluate", "weights=o/train/resnet8-shapes-epochs_1", "data=digits", "device=cpu")
    assert other.code == 2 and "unknown data set" not in other.err  # another set, whose classes are others
    missing = cnnbench("train", "data=python", f"data.file={file}", "model=resnet8")
    assert missing.code == 2 and "data=python that of a function in data.file" in missing.err


def test_the_example_of_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/own-data.md").read_text()
    (tmp_path / "mydata.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    stripes = load(tmp_path / "mydata.py", "stripes")
    assert (len(stripes.train), len(stripes.val), stripes.classes) == (320, 80, ["level", "upright"])


def test_pixels_are_those_of_the_array(tmp_path: Path) -> None:
    train = load(mydata(tmp_path, colour=RETURNED["gray"]), "colour", val_fraction=0.5).train
    assert isinstance(train, Arrays)
    wanted = torch.from_numpy(np.arange(6 * 64).reshape(6, 1, 8, 8).astype(np.uint8))
    assert all(any(torch.equal(image, one) for one in wanted) for image in train.images)
