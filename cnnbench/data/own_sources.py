"""Data by a function of the user's own: `data=python data.file=mydata.py data.name=shapes`.

The function returns a dict of the splits, {"train": (images, labels), "val": …, "test": …}, of which only `train` is
needed, and `classes`, the names, where labels are numbers. Images are paths of files, or uint8: an array or tensor of
(N, H, W), (N, H, W, 3) or (N, C, H, W). Labels are numbers from 0 on, or names. A third item of a split is the group of
each image. Only a file that the user names runs here (see models/own_files.py).
"""

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cnnbench.config.sections import DataConfig
from cnnbench.data.assembly import channels_first, dataset_of
from cnnbench.data.sources import Arrays, Dataset, Files, fingerprint
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some

SOURCE = "python"
SPLITS = ("train", "val", "test")
RETURNS = 'a dict {"train": (images, labels), …} with val, test and classes where there are any'


class Split(NamedTuple):
    """What the function gives for a split. images: paths, or uint8 (N, C, H, W)."""

    images: list[str] | torch.Tensor
    labels: list[int] | list[str]
    groups: list[str] | None


def own_source(cfg: DataConfig, root: Path) -> Dataset:
    """Data set that the function `data.name` of `data.file` returns. UserError for what is none, in one sentence."""
    make, path = _function(cfg)
    called = f"{cfg.name}() of {path.name}"
    held = _returned(make, called, root)
    splits = {part: _split(held[part], f"{part} of {called}") for part in SPLITS if part in held}
    _check_alike(splits, called)
    classes, numbers = _classes(held.get("classes"), splits, called)
    groups = {name: number for number, name in enumerate(_all_groups(splits, called))}
    sources = {part: _source(one, numbers, groups) for part, one in splits.items()}
    return dataset_of(cfg, sources, classes, str(root), _identity(sources))


def identified(cfg: DataConfig) -> DataConfig:
    """The data with the place and the SHA-256 of the file that the user names; other data as they are."""
    if cfg.source != SOURCE or cfg.sha256:
        return cfg
    from cnnbench.models import own_files  # only here: all nets come with it

    found = own_files.identified(cfg.file, _named(cfg), "data")
    return replace(cfg, file=found["file"], sha256=found["sha256"])


def _function(cfg: DataConfig) -> tuple[Callable[..., Any], Path]:
    from cnnbench.models import own_files

    if cfg.sha256:
        path = own_files.trusted(cfg.file, cfg.sha256, _named(cfg), "data")
    else:
        path = Path(own_files.identified(cfg.file, _named(cfg), "data")["file"])
    return own_files.function_in(path, cfg.name), path


def _named(cfg: DataConfig) -> str:
    if not (cfg.file or ":" in cfg.name):
        raise UserError("data=python needs a file and a function in it, as in data.file=mydata.py data.name=shapes; or "
                        "data.name=package.module:shapes")  # fmt: skip
    return cfg.name


def _returned(make: Callable[..., Any], called: str, root: Path) -> Mapping[str, Any]:
    """What the function returns; it is given `root` where its signature has that."""
    try:
        held = make(root=root) if "root" in inspect.signature(make).parameters else make()
    except Exception as error:
        from cnnbench.models.adapted import told

        raise UserError(f"{called} failed: {told(error)}") from None
    if not isinstance(held, Mapping) or "train" not in held:
        seen = f"a dict of {some(list(map(str, held)))}" if isinstance(held, Mapping) else type(held).__name__
        raise UserError(f"{called} returned {seen}: it must return {RETURNS}")
    if unknown := [str(key) for key in held if key not in (*SPLITS, "classes")]:
        raise UserError(f"{called} returned '{unknown[0]}': it must return {RETURNS}")
    return held


def _split(given: Any, called: str) -> Split:
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise UserError(f"{called} is {type(given).__name__}: it must be (images, labels), or (images, labels, groups)")
    images = _images(given[0], called)
    labels = [one if isinstance(one, str) else _whole(one, called) for one in _listed(given[1], called)]
    groups = [str(one) for one in _listed(given[2], called)] if len(given) == 3 else None
    for what, values in (("label", labels), ("group", groups)):
        if values is not None and len(values) != len(images):
            raise UserError(f"{called} has {plural(len(images), 'image')}, but {plural(len(values), what)}")
    if not labels:
        raise UserError(f"{called} has no images")
    return Split(images, labels, groups)  # type: ignore[arg-type]


def _listed(values: Any, called: str) -> list[Any]:
    try:
        return list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:
        raise UserError(
            f"{called} has {type(values).__name__} in place of a list with a value for each image"
        ) from None


def _whole(label: Any, called: str) -> int:
    if isinstance(label, int | np.integer):
        return int(label)
    raise UserError(f"{called} has the label {label!r}: labels are whole numbers from 0 on, or names")


def _images(given: Any, called: str) -> list[str] | torch.Tensor:
    """Paths, or uint8 (N, C, H, W)."""
    if isinstance(given, list | tuple) and all(isinstance(one, str | os.PathLike) for one in given):
        paths = [os.fspath(one) for one in given]
        if missing := next((path for path in paths if not Path(path).is_file()), None):
            raise UserError(f"{called} names '{missing}', and there is no such file")
        return paths
    pixels = given.numpy(force=True) if isinstance(given, torch.Tensor) else given
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        seen = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(given).__name__
        raise UserError(f"{called} has images as {seen}: they must be paths of files, or uint8 (N, H, W), (N, H, W, 3) "
                        "or (N, C, H, W)")  # fmt: skip
    return channels_first(pixels)


def _check_alike(splits: Mapping[str, Split], called: str) -> None:
    kinds = {part: _kind(one) for part, one in splits.items()}
    if other := next((part for part, kind in kinds.items() if kind != kinds["train"]), None):
        raise UserError(f"{called} has training images as {kinds['train']}, but {other} images as {kinds[other]}")


def _kind(split: Split) -> str:
    return "files" if isinstance(split.images, list) else " x ".join(map(str, split.images.shape[1:]))


def _classes(given: Any, splits: Mapping[str, Split], called: str) -> tuple[list[str], dict[Any, int]]:
    """Names of the classes, and the number of each label. UserError for a label that is no class."""
    names = None if given is None else [str(name) for name in _listed(given, f"classes of {called}")]
    seen: dict[Any, None] = dict.fromkeys(splits["train"].labels)
    if len({type(label) for label in seen}) > 1:
        raise UserError(f"{called} has labels of two kinds, names and numbers")
    if isinstance(next(iter(seen)), str):
        names = names or sorted(seen)
        numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    else:
        names = names or [str(number) for number in range(max(seen) + 1)]
        numbers = {number: number for number in range(len(names))}
    for part, one in splits.items():
        if (wrong := next((label for label in one.labels if label not in numbers), None)) is not None:
            raise UserError(
                f"{part} of {called} has the label {wrong!r}, which is none of its {plural(len(names), 'class')}"
            )
    if len(names) < 2:
        raise UserError(f"{called} has one class only: classification needs two or more")
    return names, numbers


def _all_groups(splits: Mapping[str, Split], called: str) -> list[str]:
    """Names of all groups. UserError where only some splits have groups."""
    having = [part for part, one in splits.items() if one.groups is not None]
    if having and len(having) < len(splits):
        raise UserError(f"{called} has groups for {having[0]}, but not for all of {', '.join(splits)}")
    return list(dict.fromkeys(group for one in splits.values() for group in one.groups or ()))


def _source(split: Split, numbers: Mapping[Any, int], groups: Mapping[str, int]) -> Arrays | Files:
    targets = torch.tensor([numbers[label] for label in split.labels], dtype=torch.int64)
    grouped = None if split.groups is None else torch.tensor([groups[name] for name in split.groups], dtype=torch.int64)
    if isinstance(split.images, list):
        return Files(split.images, targets, grouped)
    return Arrays(split.images, targets, groups=grouped)


def _identity(sources: Mapping[str, Arrays | Files]) -> str:
    """Hash over what is trained on and validated by: the pixels, or the paths, and the labels."""
    total = hashlib.sha256()
    for part in ("train", "val") if "val" in sources else ("train", "test"):
        if part in sources:
            source = sources[part]
            names = "\0".join(source.paths) if isinstance(source, Files) else fingerprint(source)
            total.update(names.encode(errors="surrogateescape"))
            total.update(source.targets.numpy().tobytes())
    return total.hexdigest()
