"""Groups of images that belong together: those of one patient, place, speaker or video, by `data.group=`.

The rule is a regular expression over the paths of the images, relative to the folder of the data: its first group, or
the whole match, names the group. Or it is TABLE.csv:COLUMN, a table with a row for each image.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cnnbench.data.sources import Arrays, Dataset, Source, image_names
from cnnbench.data.tables import FILE_COLUMNS, find_table, read_table
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural

TABLE = re.compile(r"(?P<file>.+\.(?:csv|tsv)):(?P<column>.+)", re.IGNORECASE)
NameOf = Callable[[str], str | None]


def grouped(dataset: Dataset, rule: str) -> Dataset:
    """The data set with the group of each image, and notes. UserError where the rule leaves an image without one."""
    if isinstance(dataset.train, Arrays):
        raise UserError(f"data.group names groups by the paths of image files, but {dataset.name} has none")
    found = TABLE.fullmatch(rule)
    name_of = _by_table(dataset, found["file"], found["column"]) if found else _by_pattern(rule)
    paths = _relative_paths(dataset)
    names = {split: [name_of(path) for path in each] for split, each in paths.items()}
    _check_all_named(rule, [path for each in paths.values() for path in each],
                     [name for each in names.values() for name in each])  # fmt: skip
    numbers = {name: number for number, name in enumerate(dict.fromkeys(n for each in names.values() for n in each))}

    def with_groups(source: Source) -> Source:
        own = next((names[split] for split, one in dataset.splits.items() if one is source), [])
        assert not isinstance(source, Arrays)
        return replace(source, groups=torch.tensor([numbers[name] for name in own], dtype=torch.int64))

    notes = [*_without_effect(rule, names["train"]), *on_two_sides(names)]
    return replace(dataset.changed(with_groups), notes=(*dataset.notes, *notes))


def _relative_paths(dataset: Dataset) -> dict[str, list[str]]:
    """Paths of each split relative to the folder of the data, with slashes."""
    names = {split: image_names(source, torch.arange(len(source))) for split, source in dataset.splits.items()}
    top = dataset.root or os.path.commonpath([os.path.dirname(name) for each in names.values() for name in each])  # noqa: PTH120
    return {split: [os.path.relpath(name, top).replace(os.sep, "/") for name in each] for split, each in names.items()}


def _by_pattern(rule: str) -> NameOf:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"data.group='{rule}' is no regular expression: {error}") from None

    def name_of(path: str) -> str | None:
        match = pattern.search(path)
        return match[1 if pattern.groups else 0] if match else None

    return name_of


def _by_table(dataset: Dataset, file: str, column: str) -> NameOf:
    """Names by the column of a table. Images are found by their paths, else by their file names."""
    table = read_table(find_table(file, Path(dataset.root)), "data.group")
    header = table.header
    if column not in header:
        raise unknown(f"column of '{table.path}'", column, header)
    others = [name for name in header if name != column]
    key = next((name for name in others if name.casefold() in FILE_COLUMNS), others[0] if others else column)
    names: dict[str, str] = {}
    for row in table.rows:
        path, name = row[header.index(key)].replace("\\", "/").removeprefix("./"), row[header.index(column)]
        for known in {path, path.rpartition("/")[2]}:
            if names.setdefault(known, name) != name:
                names[known] = ""  # two images of this file name: only the whole path tells them apart
    return lambda path: names.get(path) or names.get(path.rpartition("/")[2])


def group_table(dataset: Dataset, rule: str | None) -> Path | None:
    """File of the table that a rule names; None for other rules."""
    found = TABLE.fullmatch(rule or "")
    return find_table(found["file"], Path(dataset.root)) if found else None


def _check_all_named(rule: str, paths: Sequence[str], names: Sequence[str | None]) -> None:
    without = [path for path, name in zip(paths, names, strict=True) if not name]
    if without:
        count = "none" if len(without) == len(paths) else f"only {len(paths) - len(without):,}"
        raise UserError(f"data.group='{rule}' names a group for {count} of the {plural(len(paths), 'image')}; "
                        f"for example not for '{without[0]}'")  # fmt: skip


def _without_effect(rule: str, names: Sequence[str | None]) -> list[str]:
    if len(set(names)) < len(names):
        return []
    return [f"data.group='{rule}' makes each of the {len(names):,} training images a group of its own: it changes "
            "nothing"]  # fmt: skip


def on_two_sides(names: Mapping[str, Sequence[str | None]]) -> list[str]:
    """Notes on groups of which the data's own splits hold images on two sides."""
    notes = []
    ours = set(names["train"])
    for split, each in names.items():
        shared = sorted(filter(None, ours & set(each))) if split != "train" else []
        if shared:
            notes.append(f"{len(shared):,} of the {plural(len(set(each)), 'group')} of the {split} images "
                         f"{'has' if len(shared) == 1 else 'have'} training images too, as '{shared[0]}': the error "
                         "measured on them is too low")  # fmt: skip
    return notes
