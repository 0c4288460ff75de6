"""Splits of a folder of images, by the names of its folders: what is read as what, and what is refused with a hint."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cnnbench.data.scan import files_in, subfolders
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import some

WORDS = {
    "train": {"train", "training", "trn"},
    "val": {"val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation", "holdout"},
    "test": {"test", "testing", "tst"},
}
FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "photos", "folder", "dir"}
USUAL = ("train", "val", "valid", "validation", "test")  # names of which nothing needs to be said
TABLES = (".csv", ".tsv", ".json", ".xlsx", ".parquet")
LISTS = (".csv", ".tsv", ".parquet")  # which data=list reads


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Folders of the class folders of each split, and what the user should know."""

    train: Path
    val: Path | None = None
    test: Path | None = None
    notes: tuple[str, ...] = ()


def split_of(name: str) -> str | None:
    """Split that a folder's name stands for: `Training_set` is train, `dev` is val."""
    words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word and word not in FILLERS]
    if len(words) != 1:
        return None
    word = re.sub(r"(set|data|split|images)$", "", words[0]) or words[0]
    return next((split for split, words in WORDS.items() if word in words), None)


def find_layout(root: Path) -> Layout:
    """Layout of ROOT/train, ROOT/val and ROOT/test, under their usual names, or of ROOT/CLASS. UserError where it is
    unclear."""
    folders = subfolders(root)
    named = {split: [folder for folder in folders if split_of(folder.name) == split] for split in WORDS}
    trains = [folder for folder in named["train"] if subfolders(folder) or all(split_of(one.name) for one in folders)]
    if not trains:
        return _classes_alone(root, folders, named)
    train = _chosen(root, "train", trains)
    val, test = (_chosen(root, split, named[split]) if named[split] else None for split in ("val", "test"))
    used = [folder for folder in (train, val, test) if folder]
    renamed = [f"'{folder.name}' is taken for {split_of(folder.name)}" for folder in used if folder.name not in USUAL]
    unused = [folder.name for folder in folders if folder not in used]
    notes = [", ".join(renamed)] if renamed else []
    if unused:
        notes.append(f"not used in '{root}': {some(unused)}")
    return Layout(train=train, val=val, test=test, notes=tuple(notes))


def _chosen(root: Path, split: str, folders: list[Path]) -> Path:
    """The one folder of a split. UserError where there are two."""
    if len(folders) > 1:
        names = " and ".join(f"'{folder.name}'" for folder in folders)
        raise UserError(f"'{root}' holds {names}, which both stand for {split}: rename or remove one of them.")
    return folders[0]


def _classes_alone(root: Path, folders: list[Path], named: Mapping[str, list[Path]]) -> Layout:
    """Layout of ROOT/CLASS; class folders may bear the name of a split, as a train does among vehicles."""
    splits = [folder for group in named.values() for folder in group]
    with_folders = [folder for folder in splits if subfolders(folder)]
    if with_folders or (splits and len(splits) == len(folders)):
        names = " and ".join(f"'{folder.name}'" for folder in with_folders or splits)
        raise UserError(f"'{root}' holds {names}, but no folder train.\n"
                        f"data=folder expects {expected(str(root))}.")  # fmt: skip
    notes = [f"'{folder.name}' is taken for a class, though it is named as a split is" for folder in splits]
    return Layout(train=root, notes=tuple(notes))


def expected(root: str) -> str:
    """What data=folder reads."""
    return f"{root}/train/CLASS/*.jpg and {root}/val/CLASS/*.jpg, or {root}/CLASS/*.jpg"


def tables_in(root: Path) -> list[str]:
    """Files in a folder that may be tables of labels."""
    return [f"{root / name}" for name in files_in(root) if name.lower().endswith(TABLES)]


def table_hint(root: Path) -> str:
    """Line on a table that lies in the folder or beside it; empty where there is none."""
    tables = [*tables_in(root), *(tables_in(root.parent) if split_of(root.name) else [])]
    if not tables:
        return ""
    if tables[0].lower().endswith(LISTS):
        return f"\n'{tables[0]}' is not read: where it lists images and labels, use data=list data.file={tables[0]}"
    return f"\n'{tables[0]}' is not read: labels are folders, so put each image into a folder of its class."


def refuse_part_alone(root: Path) -> None:
    """UserError for the folder of the training images alone, where others to validate on lie beside it."""
    if split_of(root.name) == "train" and any(split_of(one.name) in ("val", "test") for one in _beside(root)):
        raise UserError(f"data.root='{root}' has nothing to validate on, but a folder beside it has.\n"
                        f"Use data.root={root.parent}, or data.val_fraction=0.2 to hold out a fifth of "
                        "these.")  # fmt: skip


def _beside(folder: Path) -> list[Path]:
    with suppress(UserError):  # it cannot be read, and need not be
        return subfolders(folder.parent)
    return []
