"""Grids in an .npz: `data=arrays`, and what a trained net is asked about by an .npy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnbench.data import Arrays, Dataset, as_trained, load_dataset
from cnnbench.data.grids import grids_in, in_bytes, read_grid
from cnnbench.utils.errors import UserError
from tests.helpers.data import data_config


def load(path: Path, **keys: Any) -> Dataset:
    return load_dataset(data_config("arrays", file=str(path), **keys), lambda note: None)


def saved(path: Path, **held: Any) -> Path:
    np.savez(path, **held)
    return path


def grids(count: int = 12, channels: int = 2, height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(5, 2, (count, channels, height, width)).astype(np.float32)


def test_values_become_256_steps_from_the_least_to_the_largest(tmp_path: Path) -> None:
    x = grids()
    dataset = load(saved(tmp_path / "a.npz", x=x, y=np.arange(12) % 3, x_val=x[:3] + 100, y_val=[0, 1, 2]))
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    low, high = dataset.extra["values"]
    assert (low, high) == (x.min(), x.max())
    again = dataset.train.images.double() / 255 * (high - low) + low
    np.testing.assert_allclose(again.numpy(), x, atol=(high - low) / 500)
    assert dataset.val.images.min() == 255, "beyond the largest of the training, the largest"
    assert (dataset.in_channels, dataset.classes, dataset.split) == (2, ["0", "1", "2"], "val")
    assert any("256 steps" in note for note in dataset.notes)
    np.save(tmp_path / "one.npy", x[4])
    assert torch.equal(read_grid(str(tmp_path / "one.npy"), (low, high), 2, 6), dataset.train.images[4])


def test_bytes_stay_as_they_are_and_other_shapes_are_made_square(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(256, size=(8, 5, 5), dtype=np.uint8)
    labels = np.array(["up", "down"] * 4)
    dataset = load(saved(tmp_path / "a.npz", x_train=x, y_train=labels, x_test=x, y_test=labels))
    assert isinstance(dataset.train, Arrays) and torch.equal(dataset.train.images[:, 0], torch.from_numpy(x))
    assert (dataset.classes, dataset.split, dataset.in_channels) == (["down", "up"], "test", 1)
    assert dataset.train.targets.tolist() == [1, 0] * 4 and not dataset.notes
    wide = load(saved(tmp_path / "b.npz", x=grids(width=12), y=np.arange(12) % 2), val_fraction=0.5)
    assert wide.train.images.shape[1:] == (2, 12, 12)  # type: ignore[union-attr]
    assert any("6 x 12 are stretched to 12 x 12" in note for note in wide.notes)
    assert in_bytes(np.ones((1, 1, 2, 4)), 0, 1, 4).unique().tolist() == [255]


def test_names_of_classes_and_groups(tmp_path: Path) -> None:
    held = {"x": grids(), "y": np.arange(12) % 2, "classes": ["cat", "dog"], "groups": np.repeat([7, 8, 9], 4)}
    dataset = load(saved(tmp_path / "a.npz", **held), val_fraction=0.3)
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.train.groups is not None and dataset.val.groups is not None
    assert not set(dataset.train.groups.tolist()) & set(dataset.val.groups.tolist())


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": grids()}, "has no x, but a; it must hold x"),
        ({"x": grids()}, "has no y"),
        ({"x": grids(), "y": np.arange(9)}, "12 grids, but y 9 labels"),
        ({"x": grids(), "y": np.zeros(12)}, "one class only"),
        ({"x": grids()[0, 0], "y": np.arange(6)}, "of 2 dimensions"),
        ({"x": np.full((4, 2, 2), np.nan), "y": np.arange(4)}, "number 0 holds values that are not finite"),
        ({"x": np.ones((4, 2, 2)), "y": np.arange(4)}, "all values of x"),
        ({"x": grids(), "y": np.arange(12) % 2, "x_val": grids(2), "y_val": [0, 5]}, "y_val in .* has 5, which is no"),
        ({"x": grids(), "y": np.arange(12) % 2, "x_val": grids(2, 1), "y_val": [0, 1]}, "x_val in .* has grids of"),
    ],
)
def test_files_that_do_not_serve_are_refused(held: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        load(saved(tmp_path / "a.npz", **held))


def test_what_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("no numbers")
    np.save(tmp_path / "b.npy", grids())
    saved(tmp_path / "c.npz", x=np.array([{}, {}], dtype=object), y=[0, 1])
    for name in ("a.npz", "b.npy", "c.npz", "gone.npz"):
        with pytest.raises(UserError, match=name):
            load(tmp_path / name)
    with pytest.raises(UserError, match=r"needs data\.file"):
        load_dataset(data_config("arrays"))
    for name in ("text.npy", "gone.npy"):
        (tmp_path / "text.npy").write_text("no numbers")
        with pytest.raises(UserError, match=f"cannot read the grid .*{name}"):
            read_grid(str(tmp_path / name), (0, 1), 2, 6)
    with pytest.raises(UserError, match=r"has the shape \(12, 2, 6, 6\): the net takes finite ones of 2 channels"):
        read_grid(str(tmp_path / "b.npy"), (0, 1), 2, 6)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": grids(), "y": [0]}, "has no x, but a, y"),
        ({"x": grids()[0, 0]}, r"x has the shape \(6, 6\); it must be"),
    ],
)
def test_an_npz_to_ask_about_holds_grids(held: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.npz': .*{said}"):
        grids_in(str(saved(tmp_path / "a.npz", **held)))
    (tmp_path / "text.npz").write_text("no numbers")
    with pytest.raises(UserError, match=r"cannot read the grids .*text\.npz"):
        grids_in(str(tmp_path / "text.npz"))


def test_each_grid_of_an_npz_is_named_by_its_number(tmp_path: Path) -> None:
    x = grids(3)
    x[2, 0, 0, 0] = np.nan
    first, second, third = grids_in(str(saved(tmp_path / "a.npz", x=x, y=np.zeros(1))))
    assert second.__fspath__().endswith("a.npz@1")
    np.testing.assert_array_equal(read_grid(first, (0, 10), 2, 6), in_bytes(x[:1], 0, 10, 6)[0])
    with pytest.raises(UserError, match=r"a\.npz@2' .*finite"):
        read_grid(third, (0, 10), 2, 6)


def test_another_file_is_taken_in_the_values_that_a_net_knows(tmp_path: Path) -> None:
    """As evaluate and finetune do; the same grid is then the same picture."""
    x = grids()
    learned = load(saved(tmp_path / "a.npz", x=x, y=np.arange(12) % 3), val_fraction=0.5)
    other = data_config("arrays", file=str(saved(tmp_path / "b.npz", x=x[:4] * 0.5, y=[0, 1, 2, 0])), val_fraction=0.5)
    judged = load_dataset(as_trained(other, learned.extra, set()), lambda note: None)
    assert judged.extra == learned.extra
    expected = in_bytes(x[:4] * 0.5, *learned.extra["values"], 6)
    found = torch.cat([judged.train.images, judged.val.images])  # type: ignore[union-attr]
    assert sorted(one.sum().item() for one in found) == sorted(one.sum().item() for one in expected)
    assert as_trained(other, learned.extra, {"data.values"}).values is None
    for values in ([1.0], [2.0, 1.0]):
        with pytest.raises(UserError, match="give two values, the smaller one first"):
            load(tmp_path / "a.npz", values=values)
