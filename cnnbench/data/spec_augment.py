"""Augmentation of spectrograms: shifts in time and pitch, and stripes of time and of frequency that are masked.

Park et al. (2019), SpecAugment: A simple data augmentation method for automatic speech recognition; here without its
time warping, which they found to help least. What is shifted in is silence. A spectrogram is never mirrored.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 1 << 16  # of a random number that stands for one in 0..1


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Shifts and masks, as parts of the width (time) and of the height (pitch, frequency). 0: none."""

    time_shift: float = 0.0
    pitch_shift: float = 0.0
    time_mask: float = 0.0
    frequency_mask: float = 0.0
    masks: int = 2  # stripes of each kind

    @property
    def highs(self) -> list[int]:
        """Bounds of the random numbers of one image: of the shifts, then length and place of each stripe."""
        return [STEPS] * (2 + 4 * self.masks)

    def __call__(self, images: Tensor, drawn: Tensor, fill: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W) by the numbers drawn (N, len(highs)); fill (C,): what a stripe is set to."""
        height, width = images.shape[2:]
        real = drawn.double() / STEPS
        up, right = (_spread(real[:, column], part) for column, part in enumerate((self.pitch_shift, self.time_shift)))
        if self.pitch_shift or self.time_shift:
            images = moved(images, -(up * height).round().long(), (right * width).round().long())
        lengths, places = real[:, 2:].unflatten(1, (2, 2, self.masks)).unbind(2)  # (N, kinds, masks)
        covered = stripes(lengths[:, 0] * self.time_mask, places[:, 0], width)[:, None, None, :]
        covered = covered | stripes(lengths[:, 1] * self.frequency_mask, places[:, 1], height)[:, None, :, None]
        return torch.where(covered, fill[:, None, None], images)


def _spread(real: Tensor, part: float) -> Tensor:
    """Numbers in 0..1 as ones in -part..part."""
    return (2 * real - 1) * part


def moved(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images, each moved by so many pixels (N,) down and right, zeros moved in."""
    n, c, height, width = images.shape
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    picked = images.flatten(2).gather(2, index.view(n, 1, -1).expand(n, c, -1)).view_as(images)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return picked * inside[:, None]


def stripes(lengths: Tensor, places: Tensor, side: int) -> Tensor:
    """Which of `side` lines lie in a stripe, bool (N, side). lengths and places (N, masks), as parts of it."""
    long = (lengths * side).round()
    first = (places * (side - long + 1)).floor()
    line = torch.arange(side, device=lengths.device)
    inside = (line >= first[..., None]) & (line < (first + long)[..., None])
    return inside.any(1)
