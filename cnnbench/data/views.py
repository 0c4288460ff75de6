"""Views of an image for evaluation (test-time augmentation), by the protocols of the papers.

The net's predictions for the views are averaged after the softmax. An image is read and decoded once for all views.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cnnbench.config.sections import CropConfig, Resize
from cnnbench.data.geometry import (
    Picture,
    as_tensor,
    centre,
    corners_and_centre,
    cropped,
    height_and_width,
    mirrored,
    rescaled,
    resized,
    shifted,
    squares,
)
from cnnbench.utils.errors import UserError, unknown

Groups = list[Tensor]
"""Views uint8 (..., V, C, H, W); views of one group have one size."""

# The papers' sides, for a net that takes 224 pixels.
PAPER_SIZE = 224
SCALES = {"multi_scale_dense": (256, 384, 512), "144": (256, 288, 320, 352)}


class ViewTransform(Protocol):
    """Transform of an image to its views. `ragged`: views keep the image's aspect, which differs between images."""

    @property
    def count(self) -> int:
        """Views of one image."""

    @property
    def ragged(self) -> bool: ...

    def __call__(self, picture: Picture) -> Groups: ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """Protocol for a net of a given input size, made by `build_views()`."""

    name: str
    size: int  # side of the net's input, pixels
    scales: tuple[int, ...]  # sides that the image is resized to
    resize: Resize
    interpolation: str

    @property
    def count(self) -> int:
        return {"center": 1, "six": 6, "ten": 10, "multi_scale_dense": 2, "144": 36}[self.name] * len(self.scales)

    @property
    def dense(self) -> bool:
        """Whether the net is applied to whole images, fully convolutionally."""
        return self.name == "multi_scale_dense"

    @property
    def ragged(self) -> bool:
        return self.dense and self.resize is Resize.shorter

    @property
    def text(self) -> str:
        """The protocol in a few words, such as `center 224 of 256`."""
        scales = ", ".join(map(str, self.scales))
        if self.dense:
            text = f"dense at {scales}, mirrored"
        elif self.name == "144":
            text = f"144 crops of {self.size} at {scales}, mirrored"
        else:
            text = f"{self.name} {self.size}" + (f" of {scales}" if self.scales != (self.size,) else "")
        return text + (", squashed" if self.resize is Resize.squash else "")

    def __call__(self, picture: Picture) -> Groups:
        scaled = [rescaled(picture, side, self.resize, self.interpolation) for side in self.scales]
        return PROTOCOLS[self.name](self, scaled)


def build_views(cfg: CropConfig, size: int, crop_ratio: float, interpolation: str) -> Views:
    """Configured protocol for images of `size` pixels. UserError where it is not possible."""
    if cfg.name not in PROTOCOLS:
        raise unknown("crop", cfg.name, PROTOCOLS)
    if cfg.scales is not None and cfg.name not in SCALES:
        raise UserError(f"crop.scales does not apply to crop={cfg.name}, which has one scale: set data.crop_ratio")
    scales = cfg.scales or [round(side * size / PAPER_SIZE) for side in SCALES.get(cfg.name, ())]
    scales = scales or [round(size / crop_ratio)]
    if cfg.name == "ten" and scales[0] == size:
        raise UserError(
            f"crop=ten has no room: with data.crop_ratio={crop_ratio:g} the five crops are the same.\n"
            f"Set data.crop_ratio=0.875 (predict: prepare.crop_ratio=0.875), the paper's, which takes crops of {size} "
            f"from {round(size / 0.875)} pixels."
        )
    if min(scales) < size:
        raise UserError(f"crop.scales={min(scales)} is less than the {size} pixels that the net takes")
    return Views(name=cfg.name, size=size, scales=tuple(scales), resize=cfg.resize, interpolation=interpolation)


def _center(views: Views, scaled: list[Picture]) -> Groups:
    return [as_tensor(centre(scaled[0], views.size)).unsqueeze(-4)]


def _six(views: Views, scaled: list[Picture]) -> Groups:
    """Jordan (2024), section 3.5: the central crop, and the crops one pixel further up left and down right."""
    whole = as_tensor(scaled[0])
    return [_with_mirrors([centre(shifted(whole, by, by), views.size) for by in (0, -1, 1)])]


def _ten(views: Views, scaled: list[Picture]) -> Groups:
    """Krizhevsky et al. (2012) cut the five crops from the central square, 256 x 256, not from the whole image."""
    square = as_tensor(centre(scaled[0], min(height_and_width(scaled[0]))))
    return [_with_mirrors(corners_and_centre(square, views.size))]


def _multi_scale_dense(views: Views, scaled: list[Picture]) -> Groups:
    return [_with_mirrors([as_tensor(picture)]) for picture in scaled]


def _144(views: Views, scaled: list[Picture]) -> Groups:
    """Szegedy et al. (2014), section 7: 4 scales x 3 squares x (5 crops and the square itself) x 2."""
    crops = []
    for square in (square for picture in scaled for square in squares(picture)):
        whole = as_tensor(resized(square, views.size, views.size, views.interpolation))
        crops += [*corners_and_centre(as_tensor(square), views.size), whole]
    return [_with_mirrors(crops)]


def _with_mirrors(crops: list[Tensor]) -> Tensor:
    """Views (..., V, C, S, S): the crops, then their mirror images in the same order."""
    return torch.stack([*crops, *map(mirrored, crops)], dim=-4)


PROTOCOLS: dict[str, Callable[[Views, list[Picture]], Groups]] = {
    "center": _center,
    "six": _six,
    "ten": _ten,
    "multi_scale_dense": _multi_scale_dense,
    "144": _144,
}

DIRECTIONS = {"up": (-1, 0), "up right": (-1, 1), "right": (0, 1), "down right": (1, 1), "down": (1, 0),
              "down left": (1, -1), "left": (0, -1), "up left": (-1, -1)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Views: the central crop, and the crop with its content shifted by `pixels` in each of the eight `DIRECTIONS`.

    Pixels beside the crop move in; beyond the edge of the image the last pixels are repeated.
    """

    size: int
    scale: int
    interpolation: str
    pixels: int
    count: int = 1 + len(DIRECTIONS)
    ragged: bool = False

    def __call__(self, picture: Picture) -> Groups:
        scaled = as_tensor(rescaled(picture, self.scale, Resize.shorter, self.interpolation))
        height, width = height_and_width(scaled)
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        moved = [shifted(scaled, down * self.pixels, right * self.pixels) for down, right in DIRECTIONS.values()]
        return [torch.stack([cropped(image, top, left, self.size) for image in (scaled, *moved)], dim=-4)]
