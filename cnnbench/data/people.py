"""People in folders: some to train on, others to hold out, and pairs of yet others by which a net is judged.

Whole people are held out, never single images of one: what is asked of the net is whether two images show one person
whom it has never seen.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import DataConfig
from cnnbench.data.moments import OF_PHOTOGRAPHS
from cnnbench.data.pairs import Pairs, Row, persons, read_table
from cnnbench.data.photographs import size_of
from cnnbench.data.scan import images_below, left_out_note, links_note, subfolders
from cnnbench.data.sources import Arrays, Dataset, Files, Source, quiet_pillow, read_image
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores

TABLES = ("pairs.tsv", "pairs.csv", "pairs.txt")
IN_MEMORY = 2**30  # bytes up to which images of one size are kept in memory
EXPECTED = "DIR/train/PERSON/*.jpg, and DIR/pairs.tsv with pairs of other people's images"


@dataclass(frozen=True)
class Folder:
    """Image files of people, and the number of each one's person, from 0 on."""

    paths: list[str]
    people: Tensor
    names: list[str]
    notes: tuple[str, ...] = ()

    def of(self, chosen: Sequence[int]) -> "Folder":
        """Only these people, with their numbers in this order."""
        number = {person: place for place, person in enumerate(chosen)}
        kept = [index for index, person in enumerate(self.people.tolist()) if person in number]
        people = torch.tensor([number[int(self.people[index])] for index in kept], dtype=torch.int64)
        return Folder([self.paths[index] for index in kept], people, [self.names[person] for person in chosen])


def people(cfg: DataConfig, root: Path) -> Dataset:
    """ROOT/train/PERSON/*, or ROOT/PERSON/*, of which data.val_fraction of the people are held out to validate on, and
    the pairs of a table to be tested by. UserError where a person is on both sides."""
    if cfg.val_fraction == 0:
        raise UserError("data=people chooses best.pt and the threshold by people who are neither trained on nor tested "
                        "with: set data.val_fraction=0.1 to hold out a tenth of them")  # fmt: skip
    home = home_of(root)
    if home is None:
        raise UserError(f"data=people expects in '{root}' {EXPECTED.replace('DIR/', '')}.\n"
                        "Set data.root=DIR (or $CNNBENCH_DATA) to where they are.")  # fmt: skip
    table = pair_table(cfg, home)
    known = read_people(home / "train" if (home / "train").is_dir() else home)
    tests: tuple[Folder, Pairs | None] | None = None
    if table is not None:
        tests = read_pairs(table, home, cfg.folds)
        refuse_shared(known, tests[0], table)
    train, val, kept = parts(known, cfg, tested=tests is not None)
    tests = tests or (None if kept is None else (kept, None))
    train_source, val_source = (source(one, cfg) for one in (train, val))
    return Dataset(
        name=cfg.name,
        classes=[],
        **OF_PHOTOGRAPHS,
        image_size=cfg.image_size or size_of(train.paths[0])[0],
        crop_ratio=cfg.crop_ratio,
        train=train_source,
        val=val_source,
        split="held-out",
        test=None if tests is None else source(tests[0], cfg, tests[1]),
        root=str(home),
        kept="" if tests is None else f"{persons(len(tests[0].names))} for testing",
        task="verification",
        parted=True,
        folds=cfg.folds,
        extra={"outputs": len(train.names)},
        notes=(*known.notes, *few_images(known)),
    )


def home_of(root: Path) -> Path | None:
    """The folder itself, or the one in it under its usual name."""
    homes = [root, root / "faces64", root / "lfw"]
    named = [one for one in homes if any((one / name).exists() for name in ("train", *TABLES))]
    return next((one for one in [*named, root] if one.is_dir() and subfolders(one)), None)


def read_people(folder: Path) -> Folder:
    """A folder for each person. UserError where there are no two people, or nobody has two images."""
    found = [(one.name, images_below(one)) for one in subfolders(folder)]
    notes = [note for _, one in found for note in (left_out_note(one.left_out), links_note(one.links)) if note]
    named = [(name, one) for name, one in found if one.names]
    if len(named) < 3:
        raise UserError(f"'{folder}' has images of {persons(len(named))}: at least three are needed, two to "
                        "train on and one to hold out")  # fmt: skip
    paths = [str(one.folder / name) for _, one in named for name in one.names]
    numbers = torch.arange(len(named)).repeat_interleave(torch.tensor([len(one.names) for _, one in named]))
    if int(torch.bincount(numbers).max()) < 2:
        raise UserError(f"'{folder}' has one image of each person, as '{paths[0]}': nothing tells what two images of "
                        "one have in common; at least two of a person are needed")  # fmt: skip
    return Folder(paths, numbers, [name for name, _ in named], tuple(notes[:3]))


def few_images(known: Folder) -> list[str]:
    """Note on people with a single image."""
    single = (torch.bincount(known.people) == 1).nonzero().flatten().tolist()
    if not single:
        return []
    names = some([known.names[index] for index in single])
    return [f"{len(single):,} of {persons(len(known.names))} have one image, which is no pair: {names}"]


def parts(known: Folder, cfg: DataConfig, *, tested: bool) -> tuple[Folder, Folder, Folder | None]:
    """People to train on, to validate on and, with data.test_fraction, to test with. The same for every seed."""
    if cfg.test_fraction and tested:
        raise UserError(f"data.pairs has people to test with: leave data.test_fraction={cfg.test_fraction:g} out")
    count = len(known.names)
    order = np.random.default_rng(0).permutation(count).tolist()
    held, tests = (max(1, round(share * count)) if share else 0 for share in (cfg.val_fraction, cfg.test_fraction))
    if count - held - tests < 2:
        raise UserError(f"data.val_fraction={cfg.val_fraction:g} and data.test_fraction={cfg.test_fraction:g} leave "
                        f"fewer than two of {persons(count)} to train on")  # fmt: skip
    train = known.of(sorted(order[held + tests :]))
    others = known.of(sorted(order[:held]))
    last = known.of(sorted(order[held : held + tests])) if tests else None
    ahead = len(train.names)  # so that no number is that of a person in training
    val = Folder(others.paths, others.people + ahead, others.names)
    if last is None:
        return train, val, None
    return train, val, Folder(last.paths, last.people + ahead + held, last.names)


# Pairs


def pair_table(cfg: DataConfig, home: Path) -> Path | None:
    """The table of pairs that is given, or the usual one; None where there is none."""
    if cfg.pairs is None:
        return next((home / name for name in TABLES if (home / name).is_file()), None)
    given = typed_path(cfg.pairs)
    found = next((path for path in (given, home / given) if path.is_file()), None)
    if found is None:
        raise UserError(f"data.pairs={cfg.pairs}: there is no such file, neither here nor in '{home}'")
    return found


def read_pairs(table: Path, home: Path, folds: int) -> tuple[Folder, Pairs]:
    """The images of a table's pairs, and the pairs. UserError for a file that is not there, for a pair whose folders
    say otherwise than its row, and for too few folds or pairs."""
    rows = read_table(table)
    files = dict.fromkeys(name for row in rows for name in (row.first, row.second))
    missing = [name for name in files if not (home / name).is_file()]
    if missing:
        row = next(number for number, row in enumerate(rows, start=1) if missing[0] in (row.first, row.second))
        more = f", and {plural(len(missing) - 1, 'other file')} that are not there" if len(missing) > 1 else ""
        raise UserError(f"data.pairs: pair {row:,} of '{table}' names '{missing[0]}', but there is no such file in "
                        f"'{home}'{more}")  # fmt: skip
    names = [Path(name).parent.as_posix() for name in files]
    people = {name: number for number, name in enumerate(dict.fromkeys(names))}
    refuse_odd(table, rows)
    number = {name: place for place, name in enumerate(files)}
    pairs = Pairs(
        torch.tensor([number[row.first] for row in rows]),
        torch.tensor([number[row.second] for row in rows]),
        torch.tensor([row.same for row in rows]),
        fold_numbers(table, rows),
        folds,
        f"{plural(len(rows), 'pair')} of {table.name}",
    )
    numbers = torch.tensor([people[name] for name in names]) + 10**9  # of nobody in training
    return Folder([str(home / name) for name in files], numbers, list(people)), pairs


def refuse_odd(table: Path, rows: Sequence[Row]) -> None:
    """UserError for a pair that cannot be, and where one kind is lacking. Files of one folder say nothing of people."""
    says = len({Path(name).parent for row in rows for name in (row.first, row.second)}) > 1
    for number, row in enumerate(rows, start=1):
        if row.first == row.second:
            raise UserError(f"data.pairs: pair {number:,} of '{table}' compares '{row.first}' with itself")
        if says and row.same != (Path(row.first).parent == Path(row.second).parent):
            said = "one person" if row.same else "two people"
            raise UserError(f"data.pairs: pair {number:,} of '{table}' is of {said}, but the folders of '{row.first}' "
                            f"and '{row.second}' say otherwise")  # fmt: skip
    kinds = {row.same for row in rows}
    if len(kinds) < 2:
        raise UserError(f"data.pairs: all pairs of '{table}' are of {'one person' if kinds == {True} else 'two people'}"
                        ": both kinds are needed")  # fmt: skip


def fold_numbers(table: Path, rows: Sequence[Row]) -> Tensor | None:
    """Number of the fold of each row, where the table says it. UserError for a single one."""
    names = dict.fromkeys(row.fold for row in rows)
    if list(names) == [None]:
        return None
    if len(names) < 2:
        raise UserError(f"data.pairs: all pairs of '{table}' are in one fold: a threshold comes from the other folds, "
                        "so at least two are needed")  # fmt: skip
    number = {name: place for place, name in enumerate(names)}
    return torch.tensor([number[row.fold] for row in rows])


def refuse_shared(known: Folder, tests: Folder, table: Path) -> None:
    """UserError where people who are trained on are in the pairs, by the names of their folders."""
    names = {Path(name).name for name in tests.names}
    shared = [name for name in known.names if name in names]
    if shared:
        path = next(path for path in tests.paths if Path(path).parent.name == shared[0])
        raise UserError(
            f"data.pairs: {persons(len(shared))} of '{table}' are trained on too, as {shared[0]} ('{path}'): "
            "the accuracy on them would be too high\n"
            "move their folders out of the training images, or give data.pairs with other people"
        )


# Images


def source(folder: Folder, cfg: DataConfig, pairs: Pairs | None = None) -> Source:
    """Images in memory where they have one size and little room is needed; else files."""
    sizes = {size_of(path) for path in (folder.paths[0], folder.paths[-1])}
    height, width = next(iter(sizes))
    if len(sizes) > 1 or height != width or 3 * height * width * len(folder.paths) > IN_MEMORY:
        return Files(folder.paths, folder.people, pairs=pairs)
    with quiet_pillow(), ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(pixels, folder.paths))
    if any(image.shape != images[0].shape for image in images):
        return Files(folder.paths, folder.people, pairs=pairs)
    return Arrays(torch.stack(images), folder.people, tuple(folder.paths), pairs=pairs)


def pixels(path: str) -> Tensor:
    """Pixels uint8 (3, H, W) of a file."""
    return torch.from_numpy(np.array(read_image(path, quietly=False))).permute(2, 0, 1).contiguous()
