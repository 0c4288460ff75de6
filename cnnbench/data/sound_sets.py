"""Data sets of sounds: any folder with a subfolder for each class, or any table; and those whose layout is known."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cnnbench.config.sections import DataConfig
from cnnbench.data.layout import find_layout
from cnnbench.data.scan import scan, subfolders
from cnnbench.data.sound_files import SUFFIXES
from cnnbench.data.sounds import Row, assembled, rows_below
from cnnbench.data.sources import Dataset
from cnnbench.data.tables import CLASS_COLUMNS, FILE_COLUMNS, SPLIT_COLUMNS, Table, find_table, read_table
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import some

COLUMNS: dict[str, Sequence[str]] = {  # names of a table's columns
    "file": FILE_COLUMNS,
    "class": CLASS_COLUMNS,
    "fold": ("fold",),
    "split": SPLIT_COLUMNS,
    "group": ("group", "speaker", "recording", "source", "src_file"),
    "start": ("start", "begin"),
    "end": ("end", "stop"),
    "time": ("time", "at", "onset"),
}
DIGIT = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
OFFICIAL = "official"
TESTED = 5  # the first five recordings of each digit and speaker are the official test set
SPEAKER = re.compile(r"([0-9a-f]+)_nohash_")


def sounds(cfg: DataConfig, root: Path, *, unsplit: bool = False, test: bool = False) -> Dataset:
    """Sounds of ROOT/train/CLASS and ROOT/val/CLASS (or test), of ROOT/CLASS, or of the table `data.file`."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder '{root}'.\ndata={cfg.name} expects {EXPECTED}.")
    if cfg.file is not None:
        return _table(cfg, root, unsplit=unsplit)
    if cfg.fold is not None:
        raise UserError(f"data.fold={cfg.fold}: folders have no folds; a table (data.file=list.csv) may have")
    layout = find_layout(root)
    alone = layout.test and not layout.val and cfg.val_fraction == 0  # the test folder is all there is
    parts = {"train": layout.train, "val": layout.test if alone else layout.val, "test": None if alone else layout.test}
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for part, folder in parts.items():
        if folder is not None:
            rows += _class_rows(cfg, folder, part, left_out)
    return assembled(cfg, rows, split="test" if alone else "val", root=root, notes=layout.notes, left_out=left_out,
                     kept=f"'{layout.test}'", unsplit=unsplit)  # fmt: skip


EXPECTED = ("DIR/train/CLASS/*.wav and DIR/val/CLASS/*.wav (or test), DIR/CLASS/*.wav, or a "
            "table with data.file=DIR/list.csv")  # fmt: skip


def _class_rows(cfg: DataConfig, folder: Path, part: str, left_out: Counter[str]) -> list[Row]:
    classes = subfolders(folder)
    found = scan(classes, above=(folder.resolve(), *folder.resolve().parents), suffixes=SUFFIXES)
    if not any(one.names for one in found.values()):
        there = sum((one.left_out for one in found.values()), Counter[str]())
        seen = f"; it holds {some([f'{count:,} {kind}' for kind, count in there.most_common()])}" if there else ""
        raise UserError(f"no sounds in '{folder}'{seen}.\ndata={cfg.name} expects {EXPECTED}.")
    if empty := [one.folder.name for one in found.values() if not one.names]:
        raise UserError(f"no sounds in '{folder}' for class {some(empty)}")
    for one in found.values():
        left_out.update(one.left_out)
    return [row for one in found.values() for row in rows_below(one, one.folder.name, part)]


# Tables


def _table(cfg: DataConfig, root: Path, *, unsplit: bool) -> Dataset:
    """Sounds by a table with a row for each, or for each part of one: file, class, and further columns."""
    table = read_table(find_table(str(cfg.file), root), "data.file")
    columns = table.columns(COLUMNS, ("file", "class"))
    parts = _parts(cfg, table, columns, unsplit)
    places = table.places(columns["file"], (root, table.path.parent))
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [Row(place, record["class"], part, record.get("group"), *_span(cfg, record, table, number))
            for number, (place, part, record) in enumerate(zip(places, parts, records, strict=True))]  # fmt: skip
    alone = not any(row.part == "val" for row in rows) and cfg.val_fraction == 0
    if alone:
        rows = [replace(row, part="val") if row.part == "test" else row for row in rows]
    return assembled(cfg, rows, split="test" if alone else "val", root=root, kept=f"the test rows of '{table.path}'",
                     unsplit=unsplit)  # fmt: skip


def _parts(cfg: DataConfig, table: Table, columns: Mapping[str, Sequence[str]], unsplit: bool) -> list[str]:
    """Part that each row belongs to: by the fold that is judged, else by the column of the split."""
    if cfg.fold is None and "split" in columns:
        return table.splits(columns["split"])
    if "fold" not in columns:
        if cfg.fold is not None:
            raise UserError(f"data.fold={cfg.fold}: '{table.path}' has no column fold")
        return ["train"] * len(table.rows)
    folds = sorted(set(columns["fold"]), key=lambda fold: (len(fold), fold))
    if cfg.fold is None and cfg.val_fraction == 0 and not unsplit:
        raise UserError(f"'{table.path}' has the folds {some(folds)}: say which one is judged, as data.fold="
                        f"{folds[0]}, or all in turn, -m data.fold={','.join(folds[:5])}")  # fmt: skip
    if cfg.fold is not None and str(cfg.fold) not in folds:
        raise unknown("fold", str(cfg.fold), folds)
    return ["val" if fold == str(cfg.fold) else "train" for fold in columns["fold"]]


def _span(cfg: DataConfig, record: Mapping[str, str], table: Table, row: int) -> tuple[float | None, float | None]:
    """Start and end of a row's part of its file, seconds: around `time`, where the table has that."""
    start, end, middle = (_seconds(record, key, table, row) for key in ("start", "end", "time"))
    if middle is None:
        return start, end
    if cfg.sound.seconds is None:
        raise UserError(f"'{table.path}' names moments: set data.sound.seconds, the length of the clip around each")
    return middle - cfg.sound.seconds / 2, middle + cfg.sound.seconds / 2


def _seconds(record: Mapping[str, str], key: str, table: Table, row: int) -> float | None:
    if not record.get(key):
        return None
    try:
        return float(record[key])
    except ValueError:
        raise table.error(f"'{record[key]}' as {key}, in place of seconds", row) from None


# Known sets


def spoken_digits(cfg: DataConfig, root: Path) -> Dataset:
    """The Free Spoken Digit Dataset: by its official split, or with all recordings of one speaker to judge by."""
    home = _home(cfg, root, ("", "recordings", "fsdd/recordings", "free-spoken-digit-dataset/recordings"),
                 lambda folder: any(map(DIGIT.fullmatch, _names(folder))), "DIGIT_SPEAKER_INDEX.wav")  # fmt: skip
    found = [match for name in sorted(_names(home)) if (match := DIGIT.fullmatch(name))]
    speakers = sorted({match["speaker"] for match in found})
    fold = str(cfg.fold or OFFICIAL)
    if fold != OFFICIAL and fold not in speakers:
        raise unknown("fold of spoken_digits", fold, [OFFICIAL, *speakers])

    def judged(match: re.Match[str]) -> bool:
        return int(match["index"]) < TESTED if fold == OFFICIAL else match["speaker"] == fold

    rows = [Row(str(home / match[0]), match["digit"], "val" if judged(match) else "train", match["speaker"])
            for match in found]  # fmt: skip
    return assembled(cfg, rows, split="test", root=home)


def esc50(cfg: DataConfig, root: Path) -> Dataset:
    """ESC-50 (Piczak 2015): 2,000 sounds of 5 s, 50 classes, 5 official folds, of which one is judged."""
    home = _home(cfg, root, ("", "ESC-50-master", "ESC-50"), lambda folder: (folder / "meta/esc50.csv").is_file(),
                 "audio/*.wav and meta/esc50.csv")  # fmt: skip
    return _table(replace(cfg, file=str(home / "meta/esc50.csv")), home / "audio", unsplit=False)


def speech_commands(cfg: DataConfig, root: Path) -> Dataset:
    """Speech Commands (Warden 2018): words of 1 s; its lists say which are for validation and for the test, so that no
    speaker is on two sides."""
    lists = {"val": "validation_list.txt", "test": "testing_list.txt"}
    home = _home(cfg, root, ("", "speech_commands", "speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02"),
                 lambda folder: all((folder / name).is_file() for name in lists.values()), "WORD/*.wav, "
                 "validation_list.txt and testing_list.txt")  # fmt: skip
    part_of = {line.strip(): part for part, name in lists.items() for line in (home / name).read_text().splitlines()}
    words = [folder for folder in subfolders(home) if not folder.name.startswith("_")]  # _background_noise_
    found = scan(words, above=(home.resolve(), *home.resolve().parents), suffixes=SUFFIXES)
    rows = []
    for one in found.values():
        for row in rows_below(one, one.folder.name, "train"):
            name = f"{row.label}/{Path(row.path).name}"
            speaker = SPEAKER.match(Path(row.path).name)
            rows.append(replace(row, part=part_of.get(name, "train"), group=speaker[1] if speaker else name))
    return assembled(cfg, rows, split="val", root=home, kept="its test sounds")


def _home(cfg: DataConfig, root: Path, places: Sequence[str], fits: Callable[[Path], bool], holds: str) -> Path:
    """The folder, at one of these places, that holds the set. UserError where there is none."""
    found = next((root / place for place in places if (root / place).is_dir() and fits(root / place)), None)
    if found is None:
        raise UserError(f"data={cfg.name} expects in '{root}' {holds}.\n"
                        "Set data.root=DIR (or $CNNBENCH_DATA) to where they are.")  # fmt: skip
    return found


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
