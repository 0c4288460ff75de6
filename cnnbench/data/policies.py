"""`augment.policy`: operations drawn for each image, TrivialAugment, RandAugment or AutoAugment.

Müller & Hutter (2021), TrivialAugment: tuning-free yet state-of-the-art data augmentation, the space "wide". Cubuk et
al. (2020), RandAugment: practical automated data augmentation with a reduced search space. Cubuk et al. (2019),
AutoAugment: learning augmentation strategies from data, tables 6 to 8. Operations, magnitudes and the learnt policies
are torchvision's (`transforms.v2`); tests compare them. What is moved in from outside is black, as there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.sections import LearntOn, Policy
from cnnbench.data import operations
from cnnbench.data.geometry import as_tensor
from cnnbench.data.operations import Operation

SHARED: tuple[Operation, ...] = (
    operations.brightness, operations.color, operations.contrast, operations.sharpness, operations.posterize,
    operations.solarize, operations.autocontrast, operations.equalize, operations.invert,
)  # fmt: skip
NAMES = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
         "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")  # fmt: skip
IDENTITY, SHEAR_X, SHEAR_Y, MOVE_X, MOVE_Y, ROTATE, BRIGHTNESS = range(7)
DRAWN = len(NAMES) - 1  # Invert is in learnt policies alone
SIGNED = range(SHEAR_X, BRIGHTNESS + 4)  # each by its magnitude or by minus that
BINS, LEARNT_BINS = 31, 10  # magnitudes of an operation

# Two operations in a row: name, probability, magnitude.
LEARNT = {
    LearntOn.imagenet: """
        Posterize .4 8, Rotate .6 9 | Solarize .6 5, AutoContrast .6 0 | Equalize .8 0, Equalize .6 0
        Posterize .6 7, Posterize .6 6 | Equalize .4 0, Solarize .2 4 | Equalize .4 0, Rotate .8 8
        Solarize .6 3, Equalize .6 0 | Posterize .8 5, Equalize 1 0 | Rotate .2 3, Solarize .6 8
        Equalize .6 0, Posterize .4 6 | Rotate .8 8, Color .4 0 | Rotate .4 9, Equalize .6 0
        Equalize 0 0, Equalize .8 0 | Invert .6 0, Equalize 1 0 | Color .6 4, Contrast 1 8
        Rotate .8 8, Color 1 2 | Color .8 8, Solarize .8 7 | Sharpness .4 7, Invert .6 0
        ShearX .6 5, Equalize 1 0 | Color .4 0, Equalize .6 0 | Equalize .4 0, Solarize .2 4
        Solarize .6 5, AutoContrast .6 0 | Invert .6 0, Equalize 1 0 | Color .6 4, Contrast 1 8
        Equalize .8 0, Equalize .6 0
    """,
    LearntOn.cifar10: """
        Invert .1 0, Contrast .2 6 | Rotate .7 2, TranslateX .3 9 | Sharpness .8 1, Sharpness .9 3
        ShearY .5 8, TranslateY .7 9 | AutoContrast .5 0, Equalize .9 0 | ShearY .2 7, Posterize .3 7
        Color .4 3, Brightness .6 7 | Sharpness .3 9, Brightness .7 9 | Equalize .6 0, Equalize .5 0
        Contrast .6 7, Sharpness .6 5 | Color .7 7, TranslateX .5 8 | Equalize .3 0, AutoContrast .4 0
        TranslateY .4 3, Sharpness .2 6 | Brightness .9 6, Color .2 8 | Solarize .5 2, Invert 0 0
        Equalize .2 0, AutoContrast .6 0 | Equalize .2 0, Equalize .6 0 | Color .9 9, Equalize .6 0
        AutoContrast .8 0, Solarize .2 8 | Brightness .1 3, Color .7 0 | Solarize .4 5, AutoContrast .9 0
        TranslateY .9 9, TranslateY .7 9 | AutoContrast .9 0, Solarize .8 3 | Equalize .8 0, Invert .1 0
        TranslateY .7 9, AutoContrast .9 0
    """,
    LearntOn.svhn: """
        ShearX .9 4, Invert .2 0 | ShearY .9 8, Invert .7 0 | Equalize .6 0, Solarize .6 6
        Invert .9 0, Equalize .6 0 | Equalize .6 0, Rotate .9 3 | ShearX .9 4, AutoContrast .8 0
        ShearY .9 8, Invert .4 0 | ShearY .9 5, Solarize .2 6 | Invert .9 0, AutoContrast .8 0
        Equalize .6 0, Rotate .9 3 | ShearX .9 4, Solarize .3 3 | ShearY .8 8, Invert .7 0
        Equalize .9 0, TranslateY .6 6 | Invert .9 0, Equalize .6 0 | Contrast .3 3, Rotate .8 4
        Invert .8 0, TranslateY 0 2 | ShearY .7 6, Solarize .4 8 | Invert .6 0, Rotate .8 4
        ShearY .3 7, TranslateX .9 3 | ShearX .1 6, Invert .6 0 | Solarize .7 2, TranslateY .6 7
        ShearY .8 4, Invert .8 0 | ShearX .7 9, TranslateY .8 3 | ShearY .8 5, AutoContrast .7 0
        ShearX .7 2, Invert .1 0
    """,
}


@dataclass(frozen=True, kw_only=True)
class RandomOperations:
    """A policy: the operations of an image follow from random numbers of its own, float32 (numbers,) in 0..1.

    For images one by one it has the methods of torchvision's transforms.
    """

    policy: Policy
    learnt_on: LearntOn = LearntOn.imagenet
    operations: int = 2  # in a row, of policy=rand
    magnitude: int = 9  # of theirs, 0 to 30

    @property
    def rounds(self) -> int:
        """Operations in a row."""
        return {Policy.trivial: 1, Policy.rand: self.operations, Policy.auto: 2}[self.policy]

    @property
    def numbers(self) -> int:
        return 1 + 3 * self.rounds

    def of_batch(self, images: Tensor, real: Tensor) -> Tensor:
        """Images uint8 (N, C, H, W) changed by the numbers drawn (N, numbers)."""
        for which, value in self.chosen(real, *images.shape[2:]):
            images = applied(images, which, value)
        return images

    def chosen(self, real: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
        """Operation, int64 (N,), and its value, float32 (N,), of each round."""
        found, first = [], real[:, 0]
        for number, (choice, size, side) in enumerate(real[:, 1:].T.unflatten(0, (-1, 3)).unbind()):
            if self.policy is Policy.auto:
                which, magnitude = self._learnt(first, choice, number)
            else:
                which = (choice * DRAWN).long()
                magnitude = (size * BINS).long() if self.policy is Policy.trivial else which * 0 + self.magnitude
            values = magnitudes(self.policy, height, width, real.device)[which, magnitude]
            minus = (which >= SIGNED.start) & (which < SIGNED.stop) & (side < 0.5)
            found.append((which, torch.where(minus, -values, values)))
        return found

    def _learnt(self, first: Tensor, choice: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Operation and magnitude of a round, of one policy in 25; no operation with its probability."""
        which, likely, magnitude = (part[:, number] for part in learnt(self.learnt_on, first.device).unbind(2))
        one = (first * len(which)).long()
        return torch.where(choice < likely[one], which[one].long(), IDENTITY), magnitude[one].long()

    def __call__(self, picture: Any) -> Tensor:
        return self.transform(picture, self.make_params([picture]))

    def make_params(self, _: Any) -> dict[str, Tensor]:
        """Random numbers of an image, drawn from torch's generator."""
        return {"real": torch.rand(1, self.numbers)}

    def transform(self, picture: Any, params: dict[str, Tensor]) -> Tensor:
        pixels = as_tensor(picture)
        return self.of_batch(pixels[None], params["real"].to(pixels.device))[0]


@lru_cache
def learnt(on: LearntOn, device: torch.device) -> Tensor:
    """Learnt policies float32 (25, 2, 3): operation, probability and magnitude of two rounds."""
    rows = [row for line in LEARNT[on].split("\n") for row in line.split("|") if row.strip()]
    parts = [[part.split() for part in row.split(",")] for row in rows]
    return torch.tensor(
        [[[NAMES.index(name), float(p), float(m)] for name, p, m in row] for row in parts], device=device
    )


@lru_cache(maxsize=16)
def magnitudes(policy: Policy, height: int, width: int, device: torch.device) -> Tensor:
    """Values float32 (operations, bins) of each operation: a slope, whole pixels, degrees, a factor's distance from 1,
    bits that are left, or a threshold."""
    wide, bins = policy is Policy.trivial, LEARNT_BINS if policy is Policy.auto else BINS
    sides = (32.0, 32.0) if wide else (150 / 331 * width, 150 / 331 * height)
    tops = [0.0, *[0.99 if wide else 0.3] * 2, *sides, 135.0 if wide else 30.0, *[0.99 if wide else 0.9] * 4]
    rows = [torch.linspace(0, top, bins) for top in tops]
    rows[MOVE_X : MOVE_Y + 1] = [row.trunc() for row in rows[MOVE_X : MOVE_Y + 1]]
    rows.append((8 - torch.arange(bins) / ((bins - 1) / (6 if wide else 4))).round())
    rows.append(torch.linspace(1, 0, bins))
    return torch.stack([*rows, *[torch.zeros(bins)] * 3]).to(device)


def applied(images: Tensor, which: Tensor, value: Tensor) -> Tensor:
    """Images each changed by its own operation. On a CPU an operation runs over the images that it is drawn for;
    elsewhere over all, so that nothing waits for the device to say how many these are."""
    result = images.clone()
    for first, last, operation in GROUPS:
        chosen = (which >= first) & (which <= last)
        if not images.is_cpu:
            result = torch.where(chosen[:, None, None, None], operation(images, value, which), result)
        elif len(rows := chosen.nonzero()[:, 0]):
            result[rows] = operation(images[rows], value[rows], which[rows])
    return result


def moved(images: Tensor, value: Tensor, which: Tensor) -> Tensor:
    """Images sheared from the upper left corner, shifted, or rotated."""
    height, width = images.shape[2:]
    across, down, right, low, turn = (torch.where(which == kind, value, 0.0) for kind in range(SHEAR_X, ROTATE + 1))
    angle = torch.deg2rad(turn)
    return operations.moved(images, (
        angle.cos(), across - angle.sin(), across * (height / 2) - right,
        down + angle.sin(), angle.cos(), down * (width / 2) - low,
    ))  # fmt: skip


def _one(operation: Operation) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda images, value, which: operation(images, value)


GROUPS = (  # the first and the last of operations that are done together
    (SHEAR_X, ROTATE, moved),
    *((number, number, _one(operation)) for number, operation in enumerate(SHARED, start=BRIGHTNESS)),
)
