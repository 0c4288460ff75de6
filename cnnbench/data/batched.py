"""Augmentation of whole batches of uint8 images, on the device where they are.

The augmentation of an image depends on its row of `Draws` alone, never on the rest of the batch.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.operations import blurred, cut_out, erased, jittered, reach_of, rotated, sigmas
from cnnbench.data.policies import RandomOperations
from cnnbench.data.sources import IGNORE
from cnnbench.data.spec_augment import Warp
from cnnbench.data.transforms import Transform
from cnnbench.data.windows import Crop, ResizedCrop, nearest_crop, pad, resized_crop, turned, window


class Draws(NamedTuple):
    """A row of random numbers for each image."""

    whole: Tensor  # int64 (N, 5 or more), uniform; `BatchTransform.highs` says of what
    real: Tensor  # float32 (N, K) in 0..1; `BatchTransform.numbers` says of what
    mix: Tensor  # float32 (N, K), of `Mixing`

    def rows(self, indices: Tensor) -> "Draws":
        return Draws(*(part[indices] for part in self))

    def to(self, device: torch.device) -> "Draws":
        return Draws(*(part.to(device) for part in self))


@dataclass(frozen=True, kw_only=True)
class Erase:
    """Random rectangle that is erased, with this probability (Zhong et al., 2020, Random erasing data augmentation)."""

    probability: float
    part: ResizedCrop

    @property
    def numbers(self) -> int:
        return self.part.numbers + 1

    def __call__(self, images: Tensor, real: Tensor, fill: Tensor) -> Tensor:
        _, _, height, width = part = self.part.windows(real[:, 1:], *images.shape[2:])
        fitted = height * width < images[0, 0].numel()  # else no attempt did: nothing is erased then
        return erased(images, part, (real[:, 0] < self.probability) & fitted, fill)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchTransform:
    """Transform of a whole batch uint8 (N, C, H, W), whose parts are done in the order of the fields."""

    size: int  # side of the result
    padding: int = 0  # shift by up to so many pixels, before the resizing
    padding_mode: str = "constant"  # zeros; or reflect
    room: tuple[int, int] = (0, 0)  # rows and columns by which the (resized) image is larger than the random crop
    flip: bool = False
    alternate: bool = False  # mirror each image in every other epoch, not at random
    crop: ResizedCrop | None = None
    resize: Transform | None = None
    resize_mask: Transform | None = None  # the same for masks
    rotate: float = 0.0  # by up to so many degrees
    turn: bool = False  # by random quarter turns
    flip_vertical: bool = False
    color: float = 0.0
    blur: float = 0.0  # largest standard deviation, pixels
    policy: RandomOperations | None = None
    cutout: int = 0
    erase: Erase | None = None
    warp: Warp | None = None  # of spectrograms
    fill: Tensor | None = None  # (C,), value of what is cut out or erased

    @property
    def cuts(self) -> bool:
        """Whether a random square is cut from each image."""
        return max(self.room) > 0

    @cached_property
    def highs(self) -> dict[str, list[int]]:
        """Bounds of the whole random numbers of an image, by what they are for."""
        down, right = (2 * self.padding + room + 1 for room in self.room)
        return {
            "shift": [down, right],
            "flip": [2 if self.flip else 1],
            "cutout": [self.size, self.size],
            "turn": [4] * self.turn,
            "flip_vertical": [2] * self.flip_vertical,
            "warp": self.warp.highs if self.warp else [],
        }

    @cached_property
    def numbers(self) -> dict[str, int]:
        """How many real random numbers of an image there are, by what they are for."""
        parts = {"crop": self.crop, "policy": self.policy, "erase": self.erase}
        several = {name: part.numbers if part else 0 for name, part in parts.items()}
        ones = {"rotate": int(self.rotate > 0), "blur": int(self.blur > 0)}
        return {**several, **ones, "color": 6 if self.color > 0 else 0}

    @cached_property
    def _places(self) -> tuple[dict[str, slice], dict[str, slice]]:
        return columns({name: len(highs) for name, highs in self.highs.items()}), columns(self.numbers)

    def _whole(self, draws: Draws, name: str) -> Tensor:
        return draws.whole[:, self._places[0][name]]

    def _real(self, draws: Draws, name: str) -> Tensor:
        return draws.real[:, self._places[1][name]]

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        highs = [high for several in self.highs.values() for high in several]
        whole = torch.from_numpy(rng.integers(0, highs, size=(count, len(highs))))
        real = rng.random((count, sum(self.numbers.values())), dtype=np.float32)
        return Draws(whole, torch.from_numpy(real), torch.empty(count, 0))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        draws = draws.to(images.device)  # nvjpeg leaves images on the GPU, else nothing moves
        images = self._recoloured(self._moved(images, draws, self.resize, resized_crop, fill=0), draws)
        return images if self.fill is None else self._covered(images, draws, self.fill.to(images.device))

    def _recoloured(self, images: Tensor, draws: Draws) -> Tensor:
        if self.color > 0:
            images = jittered(images, self._real(draws, "color"), self.color)
        if self.blur > 0:
            images = blurred(images, sigmas(self._real(draws, "blur")[:, 0], self.blur), reach_of(self.blur))
        return self.policy.of_batch(images, self._real(draws, "policy")) if self.policy else images

    def _covered(self, images: Tensor, draws: Draws, fill: Tensor) -> Tensor:
        if self.cutout > 0:
            images = cut_out(images, *self._whole(draws, "cutout").unbind(1), side=self.cutout, fill=fill)
        if self.erase is not None:
            images = self.erase(images, self._real(draws, "erase"), fill)
        return self.warp(images, self._whole(draws, "warp"), fill) if self.warp is not None else images

    def masks(self, masks: Tensor, draws: Draws) -> Tensor:
        """Masks uint8 (N, H, W), moved as their images; pixels from outside are IGNORE."""
        return self._moved(masks[:, None], draws.to(masks.device), self.resize_mask, nearest_crop, fill=IGNORE)[:, 0]

    def _moved(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        """Images after the geometric part: shift or crop, flip, resize, rotation, quarter turns, vertical flip."""
        moved = self._cut(images, draws, resize, crop, fill)
        if self.rotate > 0:
            degrees = self.rotate * (2 * self._real(draws, "rotate")[:, 0] - 1)
            moved = rotated(moved, degrees, "nearest" if fill == IGNORE else "bilinear", fill)
        if self.turn:
            moved = turned(moved, self._whole(draws, "turn")[:, 0])
        if self.flip_vertical:
            moved = torch.where(self._whole(draws, "flip_vertical")[:, :, None, None] == 1, moved.flip(2), moved)
        return moved

    def _cut(self, images: Tensor, draws: Draws, resize: Transform | None, crop: Crop, fill: int) -> Tensor:
        (down, right), flip = self._whole(draws, "shift").unbind(1), self._whole(draws, "flip")[:, 0]
        if self.crop is not None:
            part = self.crop.windows(self._real(draws, "crop"), *images.shape[2:])
            return crop(images, part, flip, self.size)
        if self.cuts:
            return window(resize(images) if resize else images, down, right, flip, self.size, self.size)
        if self.padding > 0 or self.flip:
            padded = pad(images, self.padding, self.padding_mode, fill)
            images = window(padded, down, right, flip, *images.shape[2:])
        return resize(images) if resize is not None else images


def columns(counts: dict[str, int]) -> dict[str, slice]:
    """Columns of a table in which each name has so many of them."""
    ends = list(accumulate(counts.values()))
    return {name: slice(end - count, end) for (name, count), end in zip(counts.items(), ends, strict=True)}
