"""Validation images that lie in one folder, with their classes in a file, as those of ImageNet and tiny-imagenet do."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cnnbench.data.class_tree import ClassTree
from cnnbench.data.scan import Found, images_below, subfolders
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import some

IMAGES = "images"  # a folder between a split and its images
Labels = Iterator[tuple[str, str]]  # name of an image, and its class: a name, or a number among the sorted classes


def flat_tree(folder: Path, classes: Sequence[str]) -> ClassTree | None:
    """The images of a split by class, where a file says their classes; None where folders do, or where nothing does.

    classes: of the training images. UserError where the file and the images do not go together.
    """
    inside = {one.name for one in subfolders(folder)}
    if inside - {IMAGES} or inside & set(classes):
        return None
    found = images_below(folder / IMAGES if inside else folder)
    file = next((path for place, name in _places(folder) if (path := place / name).is_file()), None)
    if file is None or not found.names:
        return None
    by_class = _by_class(file, found, classes)
    return ClassTree(
        root=folder,
        found={name: _part(found, names) for name, names in sorted(by_class.items())},
        loose=0,
        links=found.links,
        labels=file,
    )


def _places(folder: Path) -> Iterator[tuple[Path, str]]:
    """Where the file of the classes may lie: with the images, beside their folder, or, as Kaggle's does, above it."""
    for name in FORMATS:
        yield from ((place, name) for place in (folder, *list(folder.absolute().parents)[: 4 if name in UNIQUE else 1]))


def _by_class(file: Path, found: Found, classes: Sequence[str]) -> dict[str, list[str]]:
    by_class: dict[str, list[str]] = {}
    left, own = set(found.names), {name: name for name in classes}
    numbered = {str(number): name for number, name in enumerate(classes)} | own  # a number, where no class is named so
    for line, (name, label) in enumerate(_read(file, found.names), 1):
        if name not in left:
            raise UserError(f"'{file}', line {line:,}: there is no image '{name}' in '{found.folder}', or it is listed "
                            "twice")  # fmt: skip
        left.remove(name)
        if label not in numbered:
            raise UserError(f"'{file}', line {line:,}: no training image is of class '{label}'")
        by_class.setdefault(numbered[label], []).append(name)
    if left:
        raise UserError(f"'{file}' says no class for {len(left):,} of the {len(found.names):,} images in "
                        f"'{found.folder}': {some(sorted(left))}")  # fmt: skip
    return by_class


def _part(found: Found, names: Sequence[str]) -> Found:
    odd = {f"{found.folder}/{name}" for name in names} & set(found.odd)
    return Found(found.folder, names=sorted(names), odd=sorted(odd), own=len(names))


# The files


def _read(file: Path, images: Sequence[str]) -> Labels:
    try:
        return iter(list(FORMATS[file.name](file.read_text(encoding="utf-8"), images)))
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"cannot read the classes in '{file}': {error}") from None


def _words(text: str, images: Sequence[str]) -> Labels:
    """A name and a class in each line; tiny-imagenet's has a box behind them."""
    for line in filter(str.strip, text.splitlines()):
        name, label = line.split()[:2]
        yield name.rpartition("/")[2], label


def _kaggle(text: str, images: Sequence[str]) -> Labels:
    """`ImageId,PredictionString`, which begins with the class."""
    for row in csv.DictReader(text.splitlines()):
        yield f"{row['ImageId']}.JPEG", row["PredictionString"].split()[0]


def _in_order(text: str, images: Sequence[str]) -> Labels:
    """A class in each line, in the order of the images' names."""
    labels = text.split()
    if len(labels) != len(images):
        raise ValueError(f"it has {len(labels):,} lines for {len(images):,} images")
    return zip(images, labels, strict=True)


FORMATS: Mapping[str, Callable[[str, Sequence[str]], Labels]] = {
    "val_annotations.txt": _words,
    "LOC_val_solution.csv": _kaggle,
    "imagenet_2012_validation_synset_labels.txt": _in_order,
    "val.txt": _words,
    "val_map.txt": _words,
}
UNIQUE = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt")  # no other data have a file so named
