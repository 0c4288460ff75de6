"""Sounds as pictures: folders or a table of sound files, whose log-mel spectrograms are classified as images are.

All are read once, at the start, and stay in memory: a picture of 64 x 64 takes 4 KB.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.config.sections import DataConfig, SoundConfig
from cnnbench.data.moments import moments
from cnnbench.data.scan import Found, left_out_note
from cnnbench.data.sound_files import Clip, Sound, read_head
from cnnbench.data.sources import Arrays, Dataset, Files, Source
from cnnbench.data.spectrogram import KEY, Spectrogram
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some
from cnnbench.utils.system import cores

ENOUGH = 0.9  # clips are as long as the sound that so many do not exceed
REMARKS = {  # what is done to a sound, or wrong with it; and the same of several
    "mixed": ("has several channels: their mean is taken", "have several channels: their mean is taken"),
    "resampled": ("is resampled to {rate:,} Hz", "are resampled to {rate:,} Hz"),
    "longer": ("is longer than {seconds:g} s: its middle is taken",
               "are longer than {seconds:g} s: their middle is taken"),
    "tiny": ("is shorter than a window of {window:g} ms", "are shorter than a window of {window:g} ms"),
    "clipped": ("is clipped: 1 % or more of its samples are at full scale",
                "are clipped: 1 % or more of their samples are at full scale"),
    "silent": ("is silent", "are silent"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A sound of a data set, before its class has a number."""

    path: str
    label: str
    part: str = "train"  # or "val" or "test"
    group: str | None = None  # what must not be on two sides: a speaker, a recording
    start: float | None = None  # of its part of the file, seconds
    end: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Sounds(Files):
    """Sounds in files, to be heard by one spectrogram; where `spans` are given, parts of them, from start to end."""

    spectrogram: Spectrogram
    spans: Sequence[tuple[float | None, float | None]] | None = None

    def subset(self, indices: Tensor) -> "Sounds":
        chosen = indices.tolist()
        return replace(
            self,
            paths=[self.paths[index] for index in chosen],
            targets=self.targets[indices],
            groups=None if self.groups is None else self.groups[indices],
            spans=None if self.spans is None else [self.spans[index] for index in chosen],
        )

    def item(self, index: int) -> Sound:
        start, end = self.spans[index] if self.spans else (None, None)
        return Sound(self.paths[index], self.spectrogram, start, end)


# Into memory


def heard(dataset: Dataset, workers: int | None, *, test: bool) -> Dataset:
    """The data set with its sounds as pictures in memory, their mean and std, and notes on what was done to them. Other
    data sets stay as they are. test: the test split is wanted too."""
    if not isinstance(dataset.train, Sounds):
        return dataset
    known = dataset.train.spectrogram
    dataset = dataset if test else replace(dataset, test=None)
    remarks: dict[str, list[str]] = {}
    dataset = dataset.changed(lambda source: in_memory(source, workers, remarks))
    assert isinstance(dataset.train, Arrays)
    mean, std = moments(dataset.train.images)
    return replace(dataset, mean=mean, std=std, notes=(*dataset.notes, *remarked(known, remarks)))


def remarked(known: Spectrogram, remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences on the files of each remark."""
    values = {"rate": known.rate, "seconds": known.seconds, "window": max(known.window)}
    return [_sentence(remarks[key], *texts, values) for key, texts in REMARKS.items() if key in remarks]


def _sentence(files: Sequence[str], one: str, many: str, values: Mapping[str, float]) -> str:
    if len(files) == 1:
        return f"'{files[0]}' {one.format(**values)}"
    return f"{len(files):,} sounds, as '{sorted(files)[0]}', {many.format(**values)}"


def in_memory(source: Source, workers: int | None, remarks: dict[str, list[str]]) -> Source:
    """Pictures of sounds, in memory; other sources stay as they are. remarks: gets the files of each remark."""
    if not isinstance(source, Sounds):
        return source
    known = source.spectrogram
    images = torch.empty(len(source), len(known.window), known.bands, known.bands, dtype=torch.uint8)
    for index, (picture, clip) in enumerate(_pictures(source, cores() if workers is None else max(1, workers))):
        images[index] = picture
        for key in clip.remarks:
            remarks.setdefault(key, []).append(source.paths[index])
    return Arrays(images, source.targets, tuple(source.paths), source.groups)


def _pictures(source: Sounds, threads: int) -> Iterator[tuple[Tensor, Clip]]:
    """Picture and clip of each sound, in order. Threads: nearly all the time goes into scipy and torch."""

    def read(index: int) -> tuple[Tensor, Clip]:
        clip = source.item(index).clip()
        return source.spectrogram.picture(clip.samples), replace(clip, samples=clip.samples[:0])

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(read, range(len(source)))
        try:
            yield from tqdm(found, total=len(source), desc="spectrograms", unit="sound", leave=False, delay=1,
                            disable=not sys.stderr.isatty())  # fmt: skip
        finally:
            pool.shutdown(cancel_futures=True)


# The spectrogram


def spectrogram_of(cfg: SoundConfig, paths: Sequence[str]) -> tuple[Spectrogram, list[str]]:
    """Spectrogram as configured, and notes on what is chosen by the heads of the files: the rate of most of them, and
    the length that nine in ten do not exceed."""
    heads = [head for path in paths if (head := read_head(path))] if cfg.rate is None or cfg.seconds is None else []
    notes, rate, seconds = [], cfg.rate, cfg.seconds
    if (rate is None or seconds is None) and not heads:
        raise UserError(f"cannot read the rate and length of '{paths[0]}' or any other sound: set data.sound.rate and "
                        "data.sound.seconds")  # fmt: skip
    if rate is None:
        rate = max(Counter(head.rate for head in heads).items(), key=lambda item: (item[1], item[0]))[0]
        notes.append(f"data.sound.rate={rate}, as most sounds have it")
    if seconds is None:
        lengths = sorted(head.seconds for head in heads)
        seconds = max(0.05, round(lengths[int(ENOUGH * (len(lengths) - 1))], 2))
        notes.append(f"data.sound.seconds={seconds:g}: nine in ten sounds are no longer")
    high = rate / 2 if cfg.high is None else cfg.high
    found = Spectrogram(rate, seconds, cfg.bands, tuple(cfg.window), cfg.hop, cfg.low, high, cfg.range,
                        str(getattr(cfg.reference, "value", cfg.reference)))  # fmt: skip
    found.check()
    return found, notes


# Data sets


def assembled(
    cfg: DataConfig,
    rows: Sequence[Row],
    *,
    split: str,
    root: Path,
    notes: Iterable[str] = (),
    left_out: Mapping[str, int] | None = None,
    kept: str = "",
    unsplit: bool = False,
) -> Dataset:
    """Data set of these sounds. split: what its part "val" is. UserError where there is nothing to learn or judge."""
    parts = {part: [row for row in rows if row.part == part] for part in ("train", "val", "test")}
    classes = sorted({row.label for row in parts["train"]})
    _check(cfg, parts, classes, unsplit)
    spectrogram, chosen = spectrogram_of(cfg.sound, list(dict.fromkeys(row.path for row in parts["train"])))
    groups = {name: number for number, name in enumerate(dict.fromkeys(row.group for row in rows))}
    numbers = {name: number for number, name in enumerate(classes)}

    def source(part: str) -> Sounds:
        listed = parts[part]
        return Sounds(
            [row.path for row in listed],
            torch.tensor([numbers[row.label] for row in listed], dtype=torch.int64),
            None if None in groups else torch.tensor([groups[row.group] for row in listed], dtype=torch.int64),
            spectrogram=spectrogram,
            spans=[(row.start, row.end) for row in listed] if any(row.start is not None for row in rows) else None,
        )

    ignored = left_out_note(Counter(left_out or {}))
    return Dataset(
        name=cfg.name,
        classes=classes,
        mean=(0.5,) * len(spectrogram.window),
        std=(0.25,) * len(spectrogram.window),
        image_size=spectrogram.bands,
        crop_ratio=1.0,
        in_channels=len(spectrogram.window),
        train=source("train"),
        val=source("val"),
        split=split,
        test=source("test") if parts["test"] else None,
        kept=kept if parts["test"] else "",
        root=str(root),
        extra={KEY: spectrogram.as_dict()},
        identity=_identity(rows, root),
        left_out=dict(left_out or {}),
        notes=(*notes, *chosen, *_on_two_sides(parts), *([f"'{root}': {ignored}"] if ignored else [])),
    )


def _check(cfg: DataConfig, parts: Mapping[str, Sequence[Row]], classes: Sequence[str], unsplit: bool) -> None:
    if len(classes) < 2 and not unsplit:
        seen = f"one class only, '{classes[0]}'" if classes else "no sounds to train on"
        raise UserError(f"data={cfg.name} found {seen}: classification needs two classes or more")
    for part in ("val", "test"):
        if new := sorted({row.label for row in parts[part]} - set(classes)):
            raise UserError(f"data={cfg.name}: there are no training sounds of class {some(new)}, but {part} sounds")


def _on_two_sides(parts: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Notes on groups that are heard in the training and in what is judged."""
    ours = {row.group for row in parts["train"]} - {None}
    for part in ("val", "test"):
        theirs = {row.group for row in parts[part]} - {None}
        if shared := sorted(str(group) for group in ours & theirs):
            yield (f"{len(shared)} of the {plural(len(theirs), 'group')} of the {part} sounds "
                   f"{'has' if len(shared) == 1 else 'have'} training sounds too, as '{shared[0]}': the error on "
                   "groups that were never heard is higher")  # fmt: skip


def _identity(rows: Sequence[Row], root: Path) -> str:
    total = hashlib.sha256()
    for row in rows:
        name = os.path.relpath(row.path, root)
        total.update(f"{name}\0{row.label}\0{row.part}\0{row.start}\0{row.end}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def rows_below(found: Found, label: str, part: str) -> list[Row]:
    """The sounds below a class folder."""
    return [Row(f"{found.folder}/{name}", label, part) for name in found.names]
