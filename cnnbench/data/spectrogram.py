"""Log-mel spectrograms: what of a sound a net is given, as a picture with time to the right and low tones below.

The mel scale is HTK's, m = 2595 log10(1 + f / 700), its triangles have a height of 1 (Young et al., The HTK Book;
Davis & Mermelstein, 1980). Tests hold them and the decibels to published and independent numbers.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnbench.utils.errors import UserError

LEAST = 1e-10  # power that counts as silence
KEY = "sound"  # in the `extra` of a net's spec
FINEST = 4  # so many times as long as the window at most is its Fourier transform


@dataclass(frozen=True)
class Spectrogram:
    """How sounds become pictures. It is stored with the net, which hears all its life as it was trained."""

    rate: int  # samples per second
    seconds: float  # length of a clip
    bands: int  # mel bands: the height of the picture
    window: tuple[float, ...]  # length of the windows, milliseconds: a channel of the picture for each
    hop: float | None  # between two windows, milliseconds; None: as many windows as bands
    low: float  # Hz
    high: float  # Hz
    range: float  # decibels from black to white
    reference: str  # what is white: "loudest" of the clip, or "full_scale"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "window": list(self.window)}

    @classmethod
    def of(cls, known: dict[str, Any]) -> "Spectrogram":
        """From `as_dict()`."""
        return cls(**{**known, "window": tuple(known["window"])})

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)

    @property
    def step(self) -> int:
        """Samples from a window to the next."""
        return math.ceil(self.samples / self.bands) if self.hop is None else max(1, round(self.hop * self.rate / 1000))

    @property
    def frames(self) -> int:
        """Windows of a clip: the width of the picture before it is made square."""
        return max(1, math.ceil(self.samples / self.step))

    @property
    def text(self) -> str:
        """In words, such as `1 s at 8,000 Hz, 64 mel bands of 20 to 4,000 Hz x 64 windows of 25 ms`."""
        windows = " and ".join(f"{one:g}" for one in self.window)
        return (f"{self.seconds:g} s at {self.rate:,} Hz, {self.bands} mel bands of {self.low:,.0f} to "
                f"{self.high:,.0f} Hz × {self.frames} windows of {windows} ms")  # fmt: skip

    @property
    def steps(self) -> list[str]:
        """From a file to a picture, for programs without cnnbench."""
        middle = "" if self.frames == self.bands else f"resize to {self.bands} x {self.bands} (bilinear, antialiased); "
        top = "its largest value" if self.reference == "loudest" else "1"
        return [
            f"mean of all channels in -1..1, resampled to {self.rate} Hz, the middle {self.samples} samples, or "
            "silence on both sides of fewer",
            f"power of Fourier transforms of Hann windows of {' and '.join(f'{one:g}' for one in self.window)} ms (a "
            f"channel each), each {self.step} samples after the last, {self.frames} in all, the first around sample 0; "
            "times (2 / sum of the window) squared",
            f"{self.bands} HTK mel triangles of height 1 from {self.low:g} to {self.high:g} Hz, high bands first",
            f"decibels relative to {top}, limited to -{self.range:g}..0; {middle}times 255 / {self.range:g}, plus 255, "
            "rounded: a gray picture",
        ]

    def check(self) -> None:
        """Raise UserError for settings that do not go together."""
        if self.high > self.rate / 2:
            raise UserError(f"data.sound.high={self.high:g} Hz is above half of data.sound.rate={self.rate}: a sound "
                            f"sampled so holds tones of up to {self.rate / 2:g} Hz")  # fmt: skip
        if self.low >= self.high:
            raise UserError(f"data.sound.low={self.low:g} must be less than the highest tone, {self.high:g} Hz")
        if not self.window or len(self.window) not in (1, 3):
            raise UserError(f"data.sound.window={list(self.window)}: give one length, or three for three channels")
        if min(self.window) * self.rate < 16_000:
            raise UserError(f"data.sound.window={min(self.window):g} ms holds fewer than 16 samples at {self.rate} Hz")
        if max(self.window) > 1000 * self.seconds:
            raise UserError(f"data.sound.window={max(self.window):g} ms is longer than a clip of {self.seconds:g} s")

    def picture(self, samples: Tensor) -> Tensor:
        """Square picture uint8 (windows, bands, bands) of a clip, float (self.samples,)."""
        powers = torch.stack([self.mel(samples, window) for window in self.window])
        decibels = self.decibels(powers).flip(1)
        if self.frames != self.bands:
            decibels = F.interpolate(decibels[None], (self.bands, self.bands), mode="bilinear", antialias=True)[0]
        return (decibels * (255 / self.range) + 255).round().clamp(0, 255).to(torch.uint8)

    def mel(self, samples: Tensor, window: float) -> Tensor:
        """Power in each mel band and frame, float32 (bands, frames)."""
        length = round(window * self.rate / 1000)
        size = fourier_size(self, length)
        return mel_matrix(size // 2 + 1, self.rate, self.bands, self.low, self.high) @ power(
            samples, size, length, self.step, self.frames
        )

    def decibels(self, power: Tensor) -> Tensor:
        """Decibels below the reference, from -range to 0; of silence -range."""
        top = power.amax().clamp(min=LEAST) if self.reference == "loudest" else power.new_ones(())
        if self.reference == "loudest" and power.amax() <= LEAST:
            return torch.full_like(power, -self.range)
        decibels = 10 * (power.clamp(min=LEAST).log10() - top.log10())
        return decibels.clamp(-self.range, 0)


@cache
def fourier_size(spectrogram: Spectrogram, length: int) -> int:
    """Samples of the Fourier transform: the next power of two, or larger where a mel band would hold no frequency."""
    size = 1 << (length - 1).bit_length()
    for _ in range(int(math.log2(FINEST))):
        known = spectrogram
        if bool((mel_matrix(size // 2 + 1, known.rate, known.bands, known.low, known.high).amax(1) > 0).all()):
            return size
        size *= 2
    return size


def power(samples: Tensor, size: int, length: int, step: int, frames: int) -> Tensor:
    """Power spectrum |X|^2 float32 (size // 2 + 1, frames) of Hann windows of `length` samples, each `step` after the
    last, the first around sample 0; beside the clip is silence. A sine of full scale has 1 at its frequency."""
    hann = torch.hann_window(length, periodic=True)
    found = torch.stft(samples.float(), size, step, length, hann, center=True, pad_mode="constant", return_complex=True)
    return (found[:, :frames].abs() * (2 / hann.sum())).square()


@cache
def mel_matrix(frequencies: int, rate: int, bands: int, low: float, high: float) -> Tensor:
    """Weights float32 (bands, frequencies): triangles of height 1, evenly spaced and half overlapping in mel.

    frequencies: of the Fourier transform, from 0 to rate / 2.
    """
    at = torch.linspace(0, rate / 2, frequencies, dtype=torch.float64)
    edges = hertz(torch.linspace(float(mel(low)), float(mel(high)), bands + 2, dtype=torch.float64))
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - left) / (middle - left), (right - at) / (right - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


def mel(frequency: float) -> float:
    """Mel of a frequency in Hz: 1,000 mel are 1,000 Hz."""
    return 2595 * math.log10(1 + frequency / 700)


def hertz(mels: Tensor) -> Tensor:
    return 700 * (10 ** (mels / 2595) - 1)
