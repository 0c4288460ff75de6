"""Class folders of a split: their names, what lies below them, and what is refused since it is no such tree."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category, normalize

import torch

from cnnbench.data.formats import is_image
from cnnbench.data.layout import expected, split_of, table_hint
from cnnbench.data.scan import (
    LINK,
    LOOSE,
    Found,
    Paths,
    files_in,
    left_out_note,
    left_out_text,
    links_note,
    scan,
    subfolders,
)
from cnnbench.data.sources import Files
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some

NESTED = "With data.nested=true all images below a folder count for its class."


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassTree:
    """What lies below the class folders of a split."""

    root: Path
    found: Mapping[str, Found]  # by class, sorted; each has images
    loose: int  # images beside the class folders
    links: list[str]  # to folders; not followed, as they lead to where the walk has been
    labels: Path | None = None  # the file that says the classes, where folders do not

    def source(self, classes: Sequence[str]) -> Files:
        """The images, in the classes of the training images, which may be more."""
        counts = torch.tensor([len(one.names) for one in self.found.values()], dtype=torch.int64)
        numbers = {name: number for number, name in enumerate(classes)}
        targets = torch.tensor([numbers[name] for name in self.found], dtype=torch.int64).repeat_interleave(counts)
        return Files(Paths(self.found.values()), targets)

    @property
    def left_out(self) -> Counter[str]:
        """All that is left out, by kind."""
        return self._files + Counter({LOOSE: self.loose, LINK: len(self.links)})

    @property
    def _files(self) -> Counter[str]:
        return sum((one.left_out for one in self.found.values()), Counter[str]())

    def notes(self) -> Iterator[str]:
        """Sentences on what is left out, and on where the classes are from."""
        if self.labels:
            yield f"'{self.root}': the classes of its images are those of '{self.labels}'"
        if files := self._files:
            yield f"'{self.root}': {left_out_note(files)}"
        if self.loose:
            yield f"'{self.root}': {plural(self.loose, 'image')} outside the class folders not read"
        if self.links:
            yield f"'{self.root}': {links_note(self.links)}"


def read_tree(root: Path) -> ClassTree:
    """Class folders in a folder, and all below them. UserError for a class without images."""
    folders, here = class_folders(root), root.resolve()
    read = scan(folders.values(), above=(here, *here.parents))
    found = {name: read[folder] for name, folder in folders.items() if folder in read}
    links = [str(folder) for folder in folders.values() if folder not in read]
    for link in links:
        if twin := next((name for name in found if folders[name].samefile(link)), None):
            raise UserError(
                f"the classes '{twin}' and '{Path(link).name}' in '{root}' are one and the same folder: remove a link."
            )
    return ClassTree(
        root=root,
        found=found,
        loose=sum(is_image(name) for name in files_in(root)),
        links=[*links, *(link for one in found.values() for link in one.links)],
    )


def refuse_empty(tree: ClassTree) -> None:
    """UserError for classes without images."""
    empty = [name for name, one in tree.found.items() if not one.names]
    if not empty:
        return
    there = sum((tree.found[name].left_out for name in empty), Counter[str]())
    seen = f"; files of other kinds are not read: {left_out_text(there)}" if there else "."
    raise UserError(f"no images in '{tree.root}' for class {some(empty)}{seen}")


def refuse_odd(tree: ClassTree) -> None:
    """UserError for images that are no files. Most would be met in the midst of an epoch; a pipe would block it."""
    odd = sorted(path for one in tree.found.values() for path in one.odd)
    if odd:
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise UserError(f"cannot read the image '{odd[0]}'{more}: a broken link, or no regular file.\n"
                        "Remove it, or leave it out with data.on_error=skip.")  # fmt: skip


def class_folders(root: Path) -> dict[str, Path]:
    """Class folders by the names of their classes, sorted. UserError where there are none, or names that look alike.

    A name is a class's in every normalisation of Unicode: a Mac writes letter and accent as two characters.
    """
    folders = subfolders(root)
    if not folders:
        loose = any(map(is_image, files_in(root)))
        seen = "holds images, but not in one folder per class" if loose else "has no class folders"
        raise UserError(f"'{root}' {seen}: expected {root}/CLASS/*.jpg{table_hint(root)}")
    alike: dict[str, str] = {}
    for folder in folders:
        other = alike.setdefault(_visible(folder.name), folder.name)
        if other != folder.name:
            raise UserError(f"'{root}' holds two class folders whose names look alike: {other!a} and "
                            f"{folder.name!a}.\nMerge them, or give one of them another name.")  # fmt: skip
    return dict(sorted((normalize("NFC", folder.name), folder) for folder in folders))


def _visible(name: str) -> str:
    """What can be seen of a name: without characters that have no shape, with one kind of space."""
    words = normalize("NFC", name).split()
    return " ".join("".join(filter(_has_shape, word)) for word in words)


def _has_shape(char: str) -> bool:
    return category(char) not in ("Cc", "Cf") and not "\ufe00" <= char <= "\ufe0f"  # nor selects the one before


def legible(name: str) -> str:
    """A name for a message about two that differ: with its code points where letters alone may not show it."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"{name} ({name!a})" if name.isprintable() else ascii(name)


def check_classes(tree: ClassTree, *, nested: bool, one: bool = False) -> str:
    """A note on images in deeper folders. UserError for folders that are no classes: splits, or groups of classes.

    nested: folders in class folders are no classes. one: a single class is enough.
    """
    if not nested:
        _refuse_splits(tree)
    if len(tree.found) == 1 and not (one and all(found.own for found in tree.found.values())):
        name, found = next(iter(tree.found.items()))
        inner = f"\nIf its folders {some(found.folders)} are classes or splits, use data.root={found.folder}"
        raise UserError(f"'{tree.root}' holds one class only, '{name}': classification needs two folders or more."
                        f"{inner if found.folders else ''}{table_hint(tree.root)}")  # fmt: skip
    refuse_empty(tree)
    if not nested and not any(one.own for one in tree.found.values()):
        _refuse_groups(tree)
    return "" if nested else _deeper(tree)


def _refuse_splits(tree: ClassTree) -> None:
    """UserError where class folders hold the splits."""
    outer = [one for one in tree.found.values() if _holds_splits(one)]
    if len(outer) == 1:
        folder = outer[0].folder
        raise UserError(f"'{tree.root}' has no folder train, but '{folder}' has: use data.root={folder}")
    if outer:
        raise UserError(f"'{outer[0].folder}' holds {some(outer[0].folders)}: the splits are inside of the classes.\n"
                        f"data=folder expects {expected('DIR')}.\n{NESTED}")  # fmt: skip


def _holds_splits(found: Found) -> bool:
    splits = {split_of(name) for name in found.folders}
    return "train" in splits and len(splits - {None}) > 1


def _refuse_groups(tree: ClassTree) -> None:
    """UserError where folders without images of their own hold several folders, which may be the classes."""
    first, second = list(tree.found)[:2]
    shared = sorted(set.intersection(*(set(one.folders) for one in tree.found.values())))
    if len(shared) > 1:
        raise UserError(f"'{first}' and '{second}' in '{tree.root}' hold no images of their own, but the same folders: "
                        f"{some(shared)}.\nThey look like splits, not classes: name them train and val, or use "
                        f"data.root={tree.found[first].folder}.\n{NESTED}")  # fmt: skip
    if group := next((name for name, one in tree.found.items() if len(one.folders) > 1), None):
        raise UserError(f"no class folder of '{tree.root}' holds images of its own; '{group}' holds the folders "
                        f"{some(tree.found[group].folders)}.\nIf those are the classes, move all classes into one "
                        f"folder, or use data.root={tree.found[group].folder} for these.\n{NESTED}")  # fmt: skip


def _deeper(tree: ClassTree) -> str:
    deep = {name: len(one.names) - one.own for name, one in tree.found.items() if len(one.names) > one.own}
    if not deep:
        return ""
    name, total = next(iter(deep)), sum(deep.values())
    where = f"'{tree.found[name].folder / tree.found[name].folders[0]}'"
    verb = "counts" if total == 1 else "count"
    return f"{plural(total, 'image')} in deeper folders, as in {where}, {verb} for the class above"


def check_splits(train: ClassTree, val: ClassTree, *, some_classes: bool = False) -> None:
    """UserError where the splits have different classes. some_classes: val need not have them all."""
    ours, theirs = train.found.keys(), val.found.keys()
    if ours == theirs or (some_classes and theirs <= ours):
        return
    text = f"'{train.root}' and '{val.root}' have different classes."
    for tree, only in ((train, ours - theirs), (val, theirs - ours)):
        if only:
            text += f"\nonly in '{tree.root}': {some([legible(name) for name in sorted(only)])}"
    raise UserError(text)
