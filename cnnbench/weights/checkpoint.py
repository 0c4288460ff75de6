"""Checkpoints: saved whole or not at all, loaded as data only.

A checkpoint carries all that training needs to go on, and all that inference needs: the configuration, the class names
and the normalisation. Paths: a run directory stands for its last checkpoint.
"""

import errno
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from cnnbench import __version__
from cnnbench.utils import files
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.named_files import typed_path
from cnnbench.weights import foreign, validation

FORMAT = 3
SEALED = 2  # the format from which on every checkpoint bears its checksum


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
    return checked(read(path), path)


def is_ours(content: dict[str, Any]) -> bool:
    """Whether the content of a file is that of a checkpoint of cnnbench, be it right or wrong."""
    form = content.get("format")
    return bool({"spec", "inference"} & content.keys()) or (
        "cnnbench" in content and isinstance(form, int) and form <= FORMAT
    )


def checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Content of a checkpoint of cnnbench, under the names of today's format. Raises UserError for anything else."""
    form, version = content.get("format"), content.get("cnnbench")
    if isinstance(form, int) and form > FORMAT and version:  # whatever names it has for what is in it
        raise NewerFormatError(f"{path} was written by a newer cnnbench ({version}): update this one")
    content = upgraded(content)
    if not isinstance(form, int) or not is_ours(content):
        raise UserError(f"{path} is not a checkpoint of cnnbench")
    if form >= SEALED and not files.checksum_matches(path):
        raise UserError(f"{path} is damaged: its checksum is missing")
    validation.check_checkpoint(content, str(path))
    return content


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Content of a checkpoint of format 1 or 2 under the names of format 3."""
    old, new = content.get("format"), dict(content)
    if not isinstance(old, int) or old >= 3 or not {"inference", "progress"} <= content.keys():
        return content
    new["spec"] = validation.modern(new.pop("inference"))
    new["meter"] = {"left_out": torch.zeros(()), **(new.pop("sums", None) or {})}  # format 1 left no image out
    if not isinstance(new["progress"], dict):
        return new
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
        raise UserError(f"there is no file {path}{near(path)}")
    return path


def near(path: Path) -> str:
    """Question after a run whose name is near to that of a path that is not there; empty where there is none."""
    homes = (path.parent, Path("outputs/train"), Path("outputs/finetune"))
    runs = {file.parents[1].name: file.parents[1] for home in homes for file in home.glob("*/checkpoints/last.pt")}
    found = get_close_matches(path.name, runs, n=1)
    return f". Did you mean {runs[found[0]]}?" if found else ""


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a file that torch or safetensors wrote, on the CPU. Code in it is refused, never run."""
    if not path.is_file():
        raise UserError(f"{path} is no regular file" if path.exists() else f"there is no file {path}")
    try:
        if files.checksum_matches(path) is False:
            raise UserError(f"{path} is damaged: it is not what was written (its checksum differs)")
        if foreign.is_safetensors(path):
            from safetensors.torch import load_file

            return dict(load_file(path))
        with path.open("rb") as file, torch.serialization.safe_globals(foreign.HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_complaint(path, error)) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights by name, but an object of type {type(content).__name__}")
    return content


def _complaint(path: Path, error: Exception) -> str:
    try:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of torch, looking before a short file
            raise error
        return f"{path} {foreign.complaint(path, error)}"
    except OSError as error:
        return f"cannot read {path}: {error.strerror or error}"


def newer_format(content: dict[str, Any], path: Path) -> list[str]:
    """Note where a newer version wrote the file, of which the weights alone can be used."""
    form = content.get("format")
    newer = isinstance(form, int) and form > FORMAT
    return [f"{path} was written by a newer cnnbench: only its weights are used"] if newer else []
