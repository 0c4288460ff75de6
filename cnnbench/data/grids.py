"""Any data that can be laid out as a grid, in an .npz of numpy: channels x height x width, with a class each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.moments import moments
from cnnbench.data.sources import Arrays, Dataset
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import typed_path

KEY = "values"  # in the `extra` of a net's spec: the values that become 0 and 255
SUFFIXES = (".npy", ".npz")
HOLDS = "x (N, channels, height, width) or (N, height, width) and y (N,), and x_val, y_val or x_test, y_test"


def arrays(cfg: DataConfig, root: Path) -> Dataset:
    """Grids of `data.file`: x and y to train on, x_val and y_val, or x_test and y_test, to judge by; `classes`: names,
    `groups`: what must not be on two sides."""
    if cfg.file is None:
        raise UserError(f"data=arrays needs data.file=FILE.npz, which holds {HOLDS}")
    given = typed_path(str(cfg.file))
    path = next((place for place in (given, root / given) if place.is_file()), given)
    held = _read(path)
    parts = [part for part in ("val", "test") if f"x_{part}" in held]
    train = _grids(held, path, "")
    others = {part: _grids(held, path, f"_{part}") for part in parts}
    classes, numbers = _classes(held, path, parts)
    low, high = _range(cfg, train, path)
    side = cfg.image_size or max(train.shape[2:])

    def source(part: str, grids: np.ndarray) -> Arrays:
        groups = held.get(f"groups{part}")
        found = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
        return Arrays(in_bytes(grids, low, high, side), torch.from_numpy(numbers[part]), (), found)

    learned, first = source("", train), parts[0] if parts else ""
    mean, std = moments(learned.images)
    return Dataset(
        name=cfg.name,
        classes=classes,
        mean=mean,
        std=std,
        image_size=side,
        crop_ratio=1.0,
        in_channels=train.shape[1],
        train=learned,
        val=source(f"_{first}", others[first]) if parts else learned.subset(torch.zeros(0, dtype=torch.int64)),
        split=first or "val",
        test=source("_test", others["test"]) if parts == ["val", "test"] else None,
        kept="x_test" if parts == ["val", "test"] else "",
        extra={KEY: [low, high]},
        notes=tuple(_notes(train, low, high, side)),
    )


def _range(cfg: DataConfig, train: np.ndarray, path: Path) -> tuple[float, float]:
    """Values that become 0 and 255."""
    if cfg.values is not None:
        if len(cfg.values) != 2 or not cfg.values[0] < cfg.values[1]:
            raise UserError(f"data.values={cfg.values}: give two values, the smaller one first")
        return cfg.values[0], cfg.values[1]
    if train.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(train.min()), float(train.max())
    if not low < high:
        raise UserError(f"data.file: all values of x in '{path}' are {low:g}")
    return low, high


def _notes(train: np.ndarray, low: float, high: float, side: int) -> list[str]:
    height, width = train.shape[2:]
    notes = [] if height == width == side else [f"grids of {height} x {width} are stretched to {side} x {side}"]
    if train.dtype != np.uint8:
        notes.append(f"values from {low:g} to {high:g} are kept in 256 steps of {(high - low) / 255:.3g}; beyond them, "
                     "the nearest")  # fmt: skip
    return notes


def in_bytes(grids: np.ndarray, low: float, high: float, side: int) -> Tensor:
    """uint8 (N, C, side, side) of grids (N, C, H, W), whose values from low to high become 0 to 255."""
    values = torch.from_numpy(np.ascontiguousarray(grids, dtype=np.float32))
    scaled = ((values - low) * (255 / (high - low))).clamp(0, 255)
    if scaled.shape[2:] != (side, side):
        scaled = F.interpolate(scaled, (side, side), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def read_grid(given: str | os.PathLike[str], values: Sequence[float], channels: int, side: int) -> Tensor:
    """Picture uint8 (C, side, side) of the grid in an .npy, for a trained net. UserError that names the file."""
    path = os.fspath(given)
    if path.endswith(".npz"):
        grids_in(path)  # says what is wrong with it
    try:
        grid = given.values if isinstance(given, Grid) else np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read the grid '{path}': {_reason(error)}") from None
    if not isinstance(grid, np.ndarray) or grid.dtype.kind not in "uif":
        raise UserError(f"cannot read the grid '{path}': it must be an .npy of numbers")
    grid = grid[None] if grid.ndim == 2 else grid
    if grid.ndim != 3 or len(grid) != channels or not np.isfinite(grid).all():
        raise UserError(
            f"the grid '{path}' has the shape {grid.shape}: the net takes finite ones of {channels} channels"
        )
    low, high = values
    return in_bytes(grid[None], low, high, side)[0]


@dataclass(frozen=True)
class Grid(os.PathLike[str]):
    """One of the grids of an .npz, which names itself by its number: `x.npz@3`."""

    path: str
    number: int
    values: np.ndarray

    def __fspath__(self) -> str:
        return f"{self.path}@{self.number}"


def grids_in(path: str) -> list[Grid]:
    """The grids x of an .npz, to ask a net about. UserError that names the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name.lower(): file[name] for name in file.files}
    except Exception as error:  # of zipfile, zlib and numpy
        raise UserError(f"cannot read the grids '{path}': {_reason(error)}") from None
    if "x" not in held:
        raise UserError(f"cannot read the grids '{path}': it has no x, but {', '.join(held) or 'nothing'}")
    if held["x"].ndim not in (3, 4) or not len(held["x"]):
        raise UserError(f"cannot read the grids '{path}': x has the shape {held['x'].shape}; it must be (N, channels, "
                        "height, width) or (N, height, width)")  # fmt: skip
    return [Grid(path, number, values) for number, values in enumerate(held["x"])]


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name.replace("_train", "").lower(): file[name] for name in file.files}
    except AttributeError:  # an .npy holds one array
        raise UserError(f"data.file: '{path}' holds one array; an .npz holds {HOLDS}") from None
    except Exception as error:  # of zipfile, zlib and numpy
        raise UserError(f"data.file: cannot read '{path}': {_reason(error)}") from None
    if missing := [name for name in ("x", "y") if name not in held]:
        raise UserError(
            f"data.file: '{path}' has no {missing[0]}, but {', '.join(held) or 'nothing'}; it must hold {HOLDS}"
        )
    return held


def _reason(error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return reason.splitlines()[0].rstrip(".")


def _grids(held: Mapping[str, np.ndarray], path: Path, part: str) -> np.ndarray:
    """Grids (N, C, H, W) of a part, as large as those of x, finite and with a label each. UserError otherwise."""
    grids, name = held[f"x{part}"], f"x{part} in '{path}'"
    if grids.dtype.kind not in "uif" or grids.ndim not in (3, 4):
        raise UserError(f"data.file: {name} is {grids.dtype} of {grids.ndim} dimensions; it must be numbers, (N, "
                        "channels, height, width) or (N, height, width)")  # fmt: skip
    grids = grids[:, None] if grids.ndim == 3 else grids
    if part and grids.shape[1:] != (first := _grids(held, path, "").shape)[1:]:
        raise UserError(f"data.file: {name} has grids of {grids.shape[1:]}, x of {first[1:]}")
    if len(held.get(f"y{part}", ())) != len(grids) or not len(grids):
        raise UserError(f"data.file: {name} has {plural(len(grids), 'grid')}, but y{part} "
                        f"{plural(len(held.get(f'y{part}', ())), 'label')}")  # fmt: skip
    finite = np.isfinite(grids).all(axis=(1, 2, 3))
    if not finite.all():
        raise UserError(f"data.file: {name}: number {int(np.argmin(finite))} holds values that are not finite")
    return grids


def _classes(held: Mapping[str, np.ndarray], path: Path, parts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Names of the classes, and the number of each label of each part. UserError for labels of no class."""
    labels = {part: held[f"y{part}"].reshape(-1) for part in ("", *(f"_{part}" for part in parts))}
    if "classes" in held and labels[""].dtype.kind in "ui":
        names = [str(name) for name in held["classes"]]
        values = np.arange(len(names))
    else:
        values = np.unique(labels[""])
        names = [str(value) for value in values]
    if len(names) < 2:
        raise UserError(f"data.file: y in '{path}' has one class only: classification needs two or more")
    numbers = {}
    for part, own in labels.items():
        at = np.searchsorted(values, own).clip(0, len(values) - 1)
        if (wrong := values[at] != own).any():
            raise UserError(f"data.file: y{part} in '{path}' has {own[wrong][0]}, which is no class of the training")
        numbers[part] = at.astype(np.int64)
    return names, numbers
