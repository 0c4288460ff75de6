"""Names of classes: which class of a data set is which class of a net, whatever their order and spelling."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unicodedata import normalize

import torch

from cnnbench.data.boxes import CLASS
from cnnbench.data.sources import Dataset, Source, has_boxes, has_spatial_targets
from cnnbench.utils.errors import UserError
from cnnbench.utils.fast_start import import_torchvision
from cnnbench.utils.format import some

WORDNET_ID = re.compile(r"(n\d{8})\b")
SHOWN = 3  # names in a message


def folded(name: str) -> str:
    """Name without what spellings differ in: Unicode's forms, case, blanks, underscores and hyphens."""
    return " ".join(re.split(r"[\s_-]+", normalize("NFKC", name).casefold().strip(" _-")))


def english(name: str) -> str:
    """Name of a class of ImageNet by its WordNet id; any other name as it is."""
    found = WORDNET_ID.match(name)
    return imagenet_by_id().get(found[1], name) if found else name


def matched(ours: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    """Number among `theirs` of each of `ours`; None where one has no counterpart or cannot be told from another."""
    found = counterparts(ours, theirs)
    return [found[number] for number in range(len(ours))] if len(found) == len(ours) else None


def counterparts(ours: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Numbers of ours and of theirs that are the same class: first those with the very same name, then of the others
    those with the same English name, then those that differ in spelling, then those with the same first synonym."""
    found: dict[int, int] = {}
    for key in (str, english, folded, _first_synonym):
        if len(found) < len(ours):
            left, right = _by_key(ours, set(found), key), _by_key(theirs, set(found.values()), key)
            found |= {left[name][0]: right[name][0] for name in left.keys() & right.keys()
                      if len(left[name]) == len(right[name]) == 1}  # fmt: skip
    return found


def _by_key(names: Sequence[str], known: set[int], key: Callable[[str], str]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if number not in known:
            numbers.setdefault(key(name), []).append(number)
    return numbers


def _first_synonym(name: str) -> str:
    return folded(english(name).split(",")[0])


def in_classes_of(dataset: Dataset, classes: Sequence[str], source: str) -> tuple[Dataset, str]:
    """Data set with the classes of a net, its targets renumbered to match by name, and what the user should be told.

    UserError where a class of the data is none of the net's. source: what to call the net.
    """
    if list(dataset.classes) == list(classes) or (has_spatial_targets(dataset.val) and not has_boxes(dataset.val)):
        return dataset, ""
    numbers = matched(dataset.classes, classes)
    if numbers is None:
        raise UserError(_difference(dataset, classes, source))
    ours = dataset.changed(lambda source: renumbered(source, numbers))
    return replace(ours, classes=list(classes)), _note(numbers, dataset, classes)


def renumbered(source: Source, numbers: Sequence[int]) -> Source:
    """Source with other numbers for its classes, or for those of its boxes."""
    known = torch.tensor(numbers, device=source.targets.device)
    if not has_boxes(source):
        return replace(source, targets=known[source.targets])
    tables = source.targets.clone()
    labels = tables[:, :, CLASS]
    tables[:, :, CLASS] = torch.where(labels < 0, labels, known[labels.long().clamp(min=0)].to(labels.dtype))
    return replace(source, targets=tables)


def _note(numbers: list[int], dataset: Dataset, classes: Sequence[str]) -> str:
    how = f"classes: the {len(numbers):,} of {dataset.name} are matched by name"
    if len(numbers) < len(classes):
        return f"{how} among the net's {len(classes):,}, and the net may answer any of these"
    return how if numbers == sorted(numbers) else f"{how}, since the net has them in another order"


def _difference(dataset: Dataset, classes: Sequence[str], source: str) -> str:
    found = counterparts(dataset.classes, classes)
    alone = [name for number, name in enumerate(dataset.classes) if number not in found]
    return (
        f"{source} was trained for other classes than those of {dataset.name}: it has {len(classes):,} "
        f"({_quoted(classes)}), the data {len(dataset.classes):,} ({_quoted(dataset.classes)})\n"
        f"no class of the net is called {_quoted(alone)}; case, blanks, underscores and hyphens make no difference"
    )


def _quoted(names: Sequence[str]) -> str:
    return some([f"'{name}'" for name in names], SHOWN)


def imagenet_names() -> list[str]:
    """The 1,000 classes of ImageNet, as torchvision names them and its published weights know them."""
    import_torchvision()
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(_IMAGENET_CATEGORIES)


def coco_names() -> list[str]:
    """The 90 numbers of COCO's categories, as torchvision's published detectors know them; ten have no category."""
    import_torchvision()
    from torchvision.models._meta import _COCO_CATEGORIES

    return [f"no category {number}" if name == "N/A" else name for number, name in enumerate(_COCO_CATEGORIES)][1:]


@cache
def imagenet_by_id() -> dict[str, str]:
    """Name of each class of ImageNet by its WordNet id; the ids, sorted, are in the order of the classes."""
    ids = (Path(__file__).parent / "imagenet_ids.txt").read_text().split()
    return dict(zip(ids, imagenet_names(), strict=True))
