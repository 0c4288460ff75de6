"""Images that a table lists: a row for each with its path and label, and its split and group where they are known."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import torch

from cnnbench.config.sections import DataConfig, OnBadImage
from cnnbench.data.groups import on_two_sides
from cnnbench.data.moments import OF_PHOTOGRAPHS, PHOTOGRAPH
from cnnbench.data.sources import Dataset, Files
from cnnbench.data.tables import CLASS_COLUMNS, FILE_COLUMNS, SPLIT_COLUMNS, Table, find_table, read_table
from cnnbench.utils.errors import UserError

COLUMNS = {"path": FILE_COLUMNS, "label": CLASS_COLUMNS, "split": SPLIT_COLUMNS, "group": ("group",)}
EXPECTED = "a table (CSV, TSV or Parquet) of the columns path and label, and split and group where there are any"
Rows = Sequence[int]  # numbers of rows


def image_list(cfg: DataConfig, root: Path, *, unsplit: bool = False, test: bool = False) -> Dataset:
    """Data set of the table `data.file`; paths begin at its folder or at `data.root`. UserError names a wrong row.

    unsplit: none need be held out or trained on, and one class is enough.
    """
    if cfg.file is None:
        raise UserError(f"data={cfg.name} needs data.file=TABLE, {EXPECTED}")
    table = read_table(find_table(cfg.file, root), "data.file")
    columns = table.columns(COLUMNS, ("path", "label"))
    home = table.path.parent if cfg.root is None else root
    paths = table.places(columns["path"], (home, table.path.parent, root), must=cfg.on_error is not OnBadImage.skip)
    labels = [normalize("NFC", label) for label in columns["label"]]
    _check_rows(table, columns, paths, labels)
    parts = _parts(cfg, table, columns)
    classes = _classes(table, labels, parts, unsplit)
    numbers, groups = {name: number for number, name in enumerate(classes)}, _groups(columns)

    def source(rows: Rows) -> Files:
        targets = torch.tensor([numbers[labels[row]] for row in rows], dtype=torch.int64)
        return Files([paths[row] for row in rows], targets, None if groups is None else groups[list(rows)])

    split = "val" if parts["val"] or not parts["test"] or cfg.val_fraction else "test"
    judged, kept = parts[split], parts["test"] if split == "val" else []
    return Dataset(
        name=cfg.name,
        classes=classes,
        **OF_PHOTOGRAPHS,
        image_size=PHOTOGRAPH,
        crop_ratio=cfg.crop_ratio,
        train=source(parts["train"]),
        val=source(judged),
        split=split,
        test=source(kept) if kept else None,
        root=str(home),
        kept=f"the test rows of '{table.path}'" if kept else "",
        identity=_identity(columns["path"], labels, (parts["train"], judged)),
        notes=tuple(_notes(cfg, table, columns, parts)),
    )


def _check_rows(
    table: Table, columns: Mapping[str, Sequence[str]], paths: Sequence[str], labels: Sequence[str]
) -> None:
    """UserError for a row without a value, and for a file that stands in two rows."""
    for key in ("path", "label", "group"):
        for row, value in enumerate(columns.get(key, ())):
            if not value:
                raise table.error(f"the {key} is empty", row)
    first: dict[str, int] = {}
    for row, path in enumerate(map(os.path.normpath, paths)):
        other = first.setdefault(path, row)
        if other != row:
            label = "" if labels[other] == labels[row] else f" with the label '{labels[other]}'"
            raise table.error(f"'{columns['path'][row]}' is listed twice, in {table.place(other)} too{label}", row)


def _parts(cfg: DataConfig, table: Table, columns: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Rows of each split; without a column of splits all are for the training."""
    names = table.splits(columns["split"]) if "split" in columns else ["train"] * len(table.rows)
    return {part: [row for row, name in enumerate(names) if name == part] for part in ("train", "val", "test")}


def _classes(table: Table, labels: Sequence[str], parts: Mapping[str, Rows], unsplit: bool) -> list[str]:
    """Labels of the training rows, sorted; numbers by their values. UserError for others, and where there is one."""
    if not parts["train"] and not unsplit:
        raise table.error("no row is for the training")
    found = {labels[row] for row in parts["train"] or range(len(labels))}
    for part in ("val", "test"):
        if new := next((row for row in parts[part] if labels[row] not in found), None):
            raise table.error(f"no training image has the label '{labels[new]}'", new)
    if len(found) < 2 and not unsplit:
        raise table.error(f"one label only, '{min(found)}': classification needs two or more")
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)


def _groups(columns: Mapping[str, Sequence[str]]) -> torch.Tensor | None:
    """Number of the group of each row, int64 (N,)."""
    if "group" not in columns:
        return None
    numbers = {name: number for number, name in enumerate(dict.fromkeys(columns["group"]))}
    return torch.tensor([numbers[name] for name in columns["group"]], dtype=torch.int64)


def _identity(paths: Sequence[str], labels: Sequence[str], parts: Sequence[Rows]) -> str:
    """Hash over the paths, as they are listed, and the labels of what is trained on and of what is judged."""
    total = hashlib.sha256()
    for part in parts:
        for row in part:
            total.update(f"{paths[row]}\0{labels[row]}\n".encode(errors="surrogateescape"))
        total.update(b"\0\n")
    return total.hexdigest()


def _notes(cfg: DataConfig, table: Table, columns: Mapping[str, Sequence[str]], parts: Mapping[str, Rows]) -> list[str]:
    notes = []
    if parts["val"] and cfg.val_fraction > 0:
        notes.append(f"data.val_fraction holds out training images: the val rows of '{table.path}' are not used")
    if "group" in columns and cfg.group is None:
        groups = {part: [columns["group"][row] for row in rows] for part, rows in parts.items() if rows}
        notes += on_two_sides({"train": [], **groups})
    return notes
