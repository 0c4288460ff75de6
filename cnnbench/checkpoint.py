"""Checkpoints: saved whole or not at all, loaded as data only.

A checkpoint carries all that training needs to go on, and all that inference needs: the configuration, the class names
and the normalisation. Paths: a run directory stands for its last checkpoint.
"""

import os
import pickle
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench import __version__
from cnnbench.errors import RunError, UserError

FORMAT = 1
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What a net needs to be used: how to build it, what its answers are called, how its images are prepared."""

    model: dict[str, Any]  # name and arguments
    classes: list[str]
    mean: list[float]
    std: list[float]
    image_size: int
    in_channels: int
    crop_ratio: float = 1.0  # side of the centre crop over the shorter side of the resized image
    interpolation: str = "bilinear"  # of that resizing


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write beside, flush to the disk, then rename: a reader finds the old checkpoint or the new one, never a part.

    Raises RunError where it cannot be written; the old one is then still there.
    """
    beside = path.with_name(f".{path.name}.tmp")  # one name: whoever claimed the run is its only writer
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, "cnnbench": __version__, "torch": str(torch.__version__), **payload}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter when the disk is full
        raise RunError(f"cannot save {path}: {_first_line(error)} (is the disk full?)") from None
    finally:
        beside.unlink(missing_ok=True)


def keep_as(path: Path, other: Path) -> None:
    """Give a checkpoint a second name. `save()` never writes into a file in place, so a hard link is a safe copy."""
    beside = other.with_name(f".{other.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        beside.unlink()
    try:
        beside.hardlink_to(path)
    except OSError:  # some file systems have no links
        shutil.copyfile(path, beside)
    beside.replace(other)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of cnnbench, on the CPU. Raises UserError for anything else."""
    content = read(path)
    needed = {"format": int, "model": dict, "inference": dict, "config": dict, "progress": dict}
    if not all(isinstance(content.get(key), kind) for key, kind in needed.items()):
        raise UserError(f"{path} is no checkpoint of cnnbench")
    if content["format"] > FORMAT:
        raise UserError(f"{path} was written by a newer cnnbench ({content['cnnbench']}): update this one")
    return content


def find(where: str) -> Path:
    """The file meant by a path: a run directory means its last checkpoint."""
    path = Path(where).expanduser()
    if path.is_dir():
        path = path / "checkpoints" / "last.pt"
        if not path.exists():
            raise UserError(f"{path.parent.parent} holds no checkpoint (checkpoints/last.pt)")
    if not path.exists():
        raise UserError(f"there is no file {path}")
    return path


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a `.pt`, `.pth`, `.th` or `.safetensors` file, on the CPU. Code in it is refused, never run."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path} is damaged, or holds more than weights (such a file is not loaded)") from None
    except Exception as error:
        reason = _first_line(error) if isinstance(error, OSError) else "it is damaged, or no file of weights"
        raise UserError(f"cannot read {path}: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights by name")
    return content


def weights_of(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights for inference: a checkpoint's moving average where it has one, else the file's own dictionary."""
    ours = isinstance(content.get("format"), int)
    weights = content.get("ema") or content.get("state_dict") or (content.get("model") if ours else content)
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no weights by name")
    tensors = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    for prefix in WRAPPERS:  # what the wrappers of training put before every name, and a counter of their own beside
        inside = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        if inside and tensors.keys() - inside.keys() <= {"n_averaged"}:
            tensors = {name.removeprefix(prefix): value for name, value in inside.items()}
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
