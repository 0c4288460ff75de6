"""Checkpoints: saved whole or not at all, loaded as data only.

A checkpoint carries all that training needs to go on, and all that inference needs: the configuration, the class names
and the normalisation. Paths: a run directory stands for its last checkpoint.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench import __version__
from cnnbench.utils import files
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.named_files import typed_path

FORMAT = 3
SEALED = 2  # the format from which on every checkpoint bears its checksum
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile


class NewerFormatError(UserError):
    """A checkpoint that this version cannot know how to read."""


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint with its checksum in it. Raises RunError where it cannot be written; the old one is then
    still there."""
    content = {"format": FORMAT, "cnnbench": __version__, "torch": str(torch.__version__), **payload}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_zip_with_checksum(path, lambda file: torch.save(content, file))  # type: ignore[arg-type]
    except OSError as error:
        raise RunError(f"cannot save {path}: {error.strerror or error}") from None


def keep_as(path: Path, other: Path) -> None:
    """Give a checkpoint a second name. Raises RunError where that cannot be."""
    try:
        files.link_or_copy(path, other)
    except OSError as error:
        raise RunError(f"cannot save {other}: {error.strerror or error}") from None


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of cnnbench, on the CPU. Raises UserError for anything else."""
    content = read(path)
    form, version = content.get("format"), content.get("cnnbench")
    if isinstance(form, int) and form > FORMAT and version:  # whatever names it has for what is in it
        raise NewerFormatError(f"{path} was written by a newer cnnbench ({version}): update this one")
    content = upgraded(content)
    needed = {"format": int, "model": dict, "spec": dict, "config": dict, "progress": dict}
    if not all(isinstance(content.get(key), kind) for key, kind in needed.items()):
        raise UserError(f"{path} is not a checkpoint of cnnbench")
    if content["format"] >= SEALED and not files.checksum_matches(path):
        raise UserError(f"{path} is damaged: its checksum is missing")
    return content


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Content of a checkpoint of format 1 or 2 under the names of format 3."""
    old, new = content.get("format"), dict(content)
    if not isinstance(old, int) or old >= 3 or not {"inference", "progress"} <= content.keys():
        return content
    new["spec"] = new.pop("inference")  # ModelSpec.from_dict() reads it
    new["meter"] = {"left_out": torch.zeros(()), **new.pop("sums", {})}  # format 1 left no image out
    names = {name: "best" if name.startswith("best_") and name != "best_epoch" else name for name in new["progress"]}
    new["progress"] = {names[name]: value for name, value in new["progress"].items()}
    return new


def find(where: str) -> Path:
    """The file meant by a path: a run directory means its last checkpoint."""
    path = typed_path(where)
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
        if files.checksum_matches(path) is False:
            raise UserError(f"{path} is damaged: it is not what was written (its checksum differs)")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
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
    form = content.get("format")
    if isinstance(form, int) and form > FORMAT:
        print(f"warning: {path} was written by a newer cnnbench: only its weights are used", file=sys.stderr)
    weights = content.get("ema") or content.get("state_dict")
    weights = weights or (content.get("model") if isinstance(form, int) else content)
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
