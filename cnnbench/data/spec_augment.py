"""Augmentation of spectrograms: shifted and stretched in time and pitch, other levels, and stripes of both masked.

Park et al. (2019), SpecAugment: A simple data augmentation method for automatic speech recognition; in place of its
time warping the whole clip is stretched. To stretch the pitch is to change the length of the vocal tract (Jaitly &
Hinton, 2013). What comes in from outside is silence. A spectrogram is never mirrored.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 1 << 16  # of a random number that stands for one in 0..1


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Shifts and masks, as parts of the width (time) and of the height (pitch, frequency); stretches by 1 -+ so much.
    0: none."""

    time_shift: float = 0.0
    pitch_shift: float = 0.0
    time_stretch: float = 0.0  # around the middle
    pitch_stretch: float = 0.0  # from the lowest band up
    level: float = 0.0  # of the range: all louder or softer, and high pitches against low ones
    time_mask: float = 0.0
    frequency_mask: float = 0.0
    masks: int = 2  # stripes of each kind

    @property
    def highs(self) -> list[int]:
        """Bounds of the random numbers of one image: of the shifts, then length and place of each stripe."""
        return [STEPS] * (6 + 4 * self.masks)

    def __call__(self, images: Tensor, drawn: Tensor, fill: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W) by the numbers drawn (N, len(highs)); fill (C,): what a stripe is set to."""
        height, width = images.shape[2:]
        real = drawn.double() / STEPS
        parts = self.pitch_shift, self.time_shift, self.pitch_stretch, self.time_stretch
        up, right, tall, wide = ((2 * real[:, number] - 1) * part for number, part in enumerate(parts))
        if any(parts):
            rows = places(height, height - 0.5, 1 + tall, -up * height)
            columns = places(width, width / 2, 1 + wide, right * width)
            images = picked(images, rows, columns)
        if self.level:
            images = louder(images, (2 * real[:, 4:6] - 1) * 255 * self.level)
        lengths, starts = real[:, 6:].unflatten(1, (2, 2, self.masks)).unbind(2)  # (N, kinds, masks)
        covered = stripes(lengths[:, 0] * self.time_mask, starts[:, 0], width)[:, None, None, :]
        covered = covered | stripes(lengths[:, 1] * self.frequency_mask, starts[:, 1], height)[:, None, :, None]
        return torch.where(covered, fill[:, None, None], images)


def places(side: int, fixed: float, scale: Tensor, shift: Tensor) -> Tensor:
    """Line that each of `side` lines shows, int64 (N, side), where they are stretched by `scale` (N,) around the place
    `fixed`, then moved by `shift` (N,) lines."""
    middle = torch.arange(side, device=scale.device) + 0.5 - fixed
    return ((middle - shift.round()[:, None]) / scale[:, None] + fixed).floor().long()


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (N, C, H, W) whose pixels are those of these rows (N, H) and columns (N, W); 0 where there is none."""
    n, c, height, width = images.shape
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    found = images.flatten(2).gather(2, index.view(n, 1, -1).expand(n, c, -1)).view_as(images)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return found * inside[:, None]


def louder(images: Tensor, by: Tensor) -> Tensor:
    """Images uint8 with all values raised by by[:, 0], those of the highest pitch by by[:, 1] more, of the lowest by as
    much less."""
    slope = torch.linspace(1, -1, images.shape[2], device=images.device)
    added = by[:, :1].float() + by[:, 1:].float() * slope
    return (images + added[:, None, :, None]).round().clamp(0, 255).to(torch.uint8)


def stripes(lengths: Tensor, starts: Tensor, side: int) -> Tensor:
    """Which of `side` lines lie in a stripe, bool (N, side). lengths and starts (N, masks), as parts of it."""
    long = (lengths * side).round()
    first = (starts * (side - long + 1)).floor()
    line = torch.arange(side, device=lengths.device)
    inside = (line >= first[..., None]) & (line < (first + long)[..., None])
    return inside.any(1)
