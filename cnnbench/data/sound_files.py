"""Sounds in files: what their heads say, and the samples of a clip.

WAV is read by scipy. Other formats, and kinds of WAV that scipy does not read, need soundfile: cnnbench[audio].
"""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.spectrogram import Spectrogram
from cnnbench.utils.errors import UserError

WAV = (".wav", ".wave")
SUFFIXES = (*WAV, ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
FULL = 0.999  # of full scale: from here on a sample counts as clipped
CLIPPED = 0.01  # part of the samples from which on a sound counts as clipped
INSTALL = "pip install 'cnnbench[audio]'"


class Head(NamedTuple):
    """What the head of a file says."""

    rate: int
    seconds: float


class Samples(NamedTuple):
    """A whole file: float32 (N, channels) in -1..1, and samples per second."""

    values: np.ndarray
    rate: int


@dataclass(frozen=True)
class Clip:
    """The part of a sound that a net is given: float32 (samples,), and what was done to it, in keys of `REMARKS`."""

    samples: Tensor
    seconds: float  # of the whole sound
    rate: int  # of the file
    remarks: frozenset[str]


@dataclass(frozen=True)
class Sound(os.PathLike[str]):
    """A file to be heard as a picture; of a part of it where start and end, in seconds, are given."""

    path: str
    spectrogram: Spectrogram
    start: float | None = None
    end: float | None = None

    def __fspath__(self) -> str:
        return self.path

    def as_pixels(self) -> Tensor:
        """Picture uint8 (channels, bands, bands). UserError that names the file."""
        return self.spectrogram.picture(self.clip().samples)

    def clip(self) -> Clip:
        return read_clip(self.path, self.spectrogram, self.start, self.end)


class Moment(Sound):
    """A clip around a moment of a file, which names the moment: `song.wav@1.25`."""

    def __fspath__(self) -> str:
        assert self.start is not None and self.end is not None
        return f"{self.path}@{round((self.start + self.end) / 2, 6):g}"


def read_clip(path: str, spectrogram: Spectrogram, start: float | None = None, end: float | None = None) -> Clip:
    """Clip of a file, or of its part from start to end: one channel at the spectrogram's rate and length.

    A longer sound gives its middle; a shorter one has silence on both sides. UserError that names the file.
    """
    whole = start is None and end is None
    values, rate = read_samples(path) if whole else _kept_samples(path, _changed(path))
    seconds, remarks = len(values) / rate, set[str]()
    if not whole:
        first = start or 0.0
        values = _part(values, rate, path, first, first + spectrogram.seconds if end is None else end)
    if values.shape[1] > 1:
        remarks.add("mixed")
    mono = values.mean(axis=1, dtype=np.float32)
    peak = np.abs(values).max(axis=1)
    if not peak.any():
        remarks.add("silent")
    elif (peak >= FULL).mean() >= CLIPPED:
        remarks.add("clipped")
    if rate != spectrogram.rate:
        mono = resampled(mono, rate, spectrogram.rate)
        remarks.add("resampled")
    if len(mono) < max(spectrogram.window) * spectrogram.rate / 1000:
        remarks.add("tiny")
    if len(mono) > spectrogram.samples + spectrogram.step:
        remarks.add("longer")
    return Clip(torch.from_numpy(fitted(mono, spectrogram.samples)), seconds, rate, frozenset(remarks))


@lru_cache(maxsize=4)
def _kept_samples(path: str, changed: int) -> Samples:
    """As `read_samples`, of files of which one part after the other is read."""
    return read_samples(path)


def _changed(path: str) -> int:
    """Time of the last change; 0 where there is no such file, which reading it will say."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _part(values: np.ndarray, rate: int, path: str, start: float, end: float) -> np.ndarray:
    """Samples from start to end, with silence where there are none."""
    first, last = round(start * rate), round(end * rate)
    part = values[max(first, 0) : max(last, 0)]
    if not len(part):
        raise UserError(f"the sound '{path}' has {len(values) / rate:g} s: it has no part from {start:g} to {end:g} s")
    before = max(-first, 0)
    return np.pad(part, ((before, last - first - before - len(part)), (0, 0)))


def moments(path: str, spectrogram: Spectrogram, every: float) -> Iterator["Moment"]:
    """Clips of a file around 0, `every`, 2 `every` … seconds. UserError that names it."""
    values, rate = read_samples(path)
    half = spectrogram.seconds / 2
    for number in range(math.floor(len(values) / rate / every) + 1):
        at = round(number * every, 6)
        yield Moment(path, spectrogram, at - half, at + half)


def fitted(mono: np.ndarray, length: int) -> np.ndarray:
    """The middle of a sound, or the whole with silence on both sides: so many samples."""
    more = len(mono) - length
    if more >= 0:
        return np.ascontiguousarray(mono[more // 2 : more // 2 + length])
    return np.pad(mono, (-more // 2, -more - -more // 2))


def resampled(mono: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples at another rate, by scipy's polyphase filter."""
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    found: np.ndarray = resample_poly(mono, wanted // shared, rate // shared).astype(np.float32)
    return found


def read_samples(path: str) -> Samples:
    """All samples of a file. UserError that names it where there are none, or where it cannot be read."""
    _check(path)
    with named(path):
        values, rate = _decoded(path)
    if values.ndim == 1:
        values = values[:, None]
    if not len(values):
        raise UserError(f"cannot read the sound '{path}': it holds no samples")
    if not np.isfinite(values).all():
        raise UserError(f"cannot read the sound '{path}': some of its samples are not finite")
    return Samples(values, rate)


def _check(path: str) -> None:
    if not os.path.isfile(path):  # noqa: PTH113  # to open a named pipe would wait for ever
        raise UserError(f"cannot read the sound '{path}': there is no such file")
    if not os.path.getsize(path):  # noqa: PTH202
        raise UserError(f"cannot read the sound '{path}': the file is empty")


@contextmanager
def named(path: str) -> Iterator[None]:
    """An error while a file is read becomes a UserError that names it: the libraries raise a dozen types."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that scipy does not know: they are no samples
            yield
    except UserError:
        raise
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"cannot read the sound '{path}': {reason.strip().splitlines()[0].rstrip('.')}") from None


def _decoded(path: str) -> Samples:
    with Path(path).open("rb") as file:
        start = file.read(12)
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        from scipy.io import wavfile

        try:
            rate, values = wavfile.read(path)
            return Samples(in_unit(values), int(rate))
        except ValueError as error:
            if not has_soundfile():
                raise UserError(f"cannot read the sound '{path}': {str(error).splitlines()[0].rstrip('.')}\n"
                                f"More kinds of WAV are read with: {INSTALL}") from None  # fmt: skip
    elif path.lower().endswith(WAV) and not has_soundfile():
        raise UserError(f"cannot read the sound '{path}': it is named as WAV is, but its content is not WAV")
    return _by_soundfile(path)


def _by_soundfile(path: str) -> Samples:
    if not has_soundfile():
        raise UserError(f"cannot read the sound '{path}': {Path(path).suffix or 'this format'} needs {INSTALL}")
    import soundfile

    try:
        values, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        raise UserError(f"cannot read the sound '{path}': its content is no sound that libsndfile knows") from None
    return Samples(values, int(rate))


def has_soundfile() -> bool:
    return find_spec("soundfile") is not None


def in_unit(values: np.ndarray) -> np.ndarray:
    """Samples of scipy as float32 in -1..1. It gives 24 bits in the upper bytes of 32."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) / np.float32(-float(np.iinfo(values.dtype).min))
    return values.astype(np.float32)


def read_head(path: str) -> Head | None:
    """Rate and length by the head of a file; None where it does not say so, and reading will give the reason."""
    try:
        with Path(path).open("rb") as file:
            if found := _wav_head(file):
                return found
        if not has_soundfile():
            return None
        import soundfile

        known = soundfile.info(path)
        return Head(int(known.samplerate), float(known.duration))
    except Exception:
        return None


def _wav_head(file: Any) -> Head | None:
    """Head by the chunks `fmt ` and `data` of a WAV with little-endian numbers."""
    start = file.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return None
    rate = bytes_each = 0
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            rest = os.fstat(file.fileno()).st_size - file.tell()  # a stream that was cut names no size, or a wrong one
            return Head(rate, min(size, rest) / bytes_each / rate)
        content = file.read(size + size % 2)
        if chunk[:4] == b"fmt ":
            rate, bytes_each = int.from_bytes(content[4:8], "little"), int.from_bytes(content[12:14], "little")
    return None
