"""Augmentation of whole batches of uint8 images, on the device where they are.

The augmentation of an image depends on its row of `Draws` alone, never on the rest of the batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.operations import cut_out, jittered
from cnnbench.data.sources import IGNORE
from cnnbench.data.spec_augment import Warp
from cnnbench.data.transforms import Transform
from cnnbench.data.windows import Crop, ResizedCrop, nearest_crop, pad, resized_crop, turned, window


class Draws(NamedTuple):
    """A row of random numbers for each image."""

    whole: Tensor  # int64 (N, 5 or more), uniform: shift down and right, flip, row and column of the cutout, quarter
    # turns, then those of a `Warp`
    real: Tensor  # float32 (N, K) in 0..1: for the resized crop, then for the colours

    def rows(self, indices: Tensor) -> "Draws":
        return Draws(self.whole[indices], self.real[indices])

    def to(self, device: torch.device) -> "Draws":
        return Draws(self.whole.to(device), self.real.to(device))


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchTransform:
    """Transform of a whole batch uint8 (N, C, H, W): shift or crop, flip, resize, colour jitter, then cutout."""

    size: int  # side of the result
    padding: int = 0  # shift by up to so many pixels, before the resizing
    padding_mode: str = "constant"  # zeros; or reflect
    room: tuple[int, int] = (0, 0)  # rows and columns by which the (resized) image is larger than the random crop
    flip: bool = False
    alternate: bool = False  # mirror each image in every other epoch, not at random
    crop: ResizedCrop | None = None
    resize: Transform | None = None
    resize_mask: Transform | None = None  # the same for masks
    turn: bool = False  # by random quarter turns
    color: float = 0.0
    cutout: int = 0
    fill: Tensor | None = None  # (C,), value of the cutout square
    warp: Warp | None = None  # of spectrograms

    @property
    def cuts(self) -> bool:
        """Whether a random square is cut from each image."""
        return max(self.room) > 0

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        down, right = (2 * self.padding + room + 1 for room in self.room)
        highs = [down, right, 2 if self.flip else 1, self.size, self.size, *([4] if self.turn else [])]
        highs += self.warp.highs if self.warp else []
        whole = torch.from_numpy(rng.integers(0, highs, size=(count, len(highs))))
        numbers = (self.crop.numbers if self.crop else 0) + (6 if self.color > 0 else 0)
        return Draws(whole, torch.from_numpy(rng.random((count, numbers), dtype=np.float32)))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        draws = draws.to(images.device)  # nvjpeg leaves images on the GPU, else nothing moves
        images = self._moved(images, draws, self.resize, resized_crop, fill=0)
        if self.color > 0:
            images = jittered(images, draws.real[:, -6:], self.color)
        if self.cutout > 0 and self.fill is not None:
            centre = draws.whole[:, 3:5].unbind(1)
            images = cut_out(images, *centre, side=self.cutout, fill=self.fill.to(images.device))
        if self.warp is not None and self.fill is not None:
            drawn = draws.whole[:, -len(self.warp.highs) :]
            images = self.warp(images, drawn, self.fill.to(images.device))
        return images

    def masks(self, masks: Tensor, draws: Draws) -> Tensor:
        """Masks uint8 (N, H, W), shifted, cropped and resized as their images; pixels from outside are IGNORE."""
        return self._moved(masks[:, None], draws.to(masks.device), self.resize_mask, nearest_crop, fill=IGNORE)[:, 0]

    def _moved(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        """Images after the geometric part: shift or crop, flip, resize, quarter turns."""
        moved = self._cut(images, draws, resize, crop, fill)
        return turned(moved, draws.whole[:, 5]) if self.turn else moved

    def _cut(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        down, right, flip = draws.whole[:, :3].unbind(1)
        if self.crop is not None:
            part = self.crop.windows(draws.real[:, : self.crop.numbers], *images.shape[2:])
            return crop(images, part, flip, self.size)
        if self.cuts:
            return window(resize(images) if resize else images, down, right, flip, self.size, self.size)
        if self.padding > 0 or self.flip:
            padded = pad(images, self.padding, self.padding_mode, fill)
            images = window(padded, down, right, flip, *images.shape[2:])
        return resize(images) if resize is not None else images
