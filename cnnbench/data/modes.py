"""The one rule by which the pixels of an image file, whatever their mode, become 8 bits in RGB.

    1, L, P, RGB, YCbCr, HSV, CMYK, LAB   as Pillow converts them, without colour profiles
    LA, La, PA, RGBA, RGBa, RGBX          alpha is left out, and the colour below it stays: as in torchvision and timm
    I;16, I;16B, I;16L; I from PNG, PPM   the upper byte: the range is that of 16 bits, whatever the values
    I from elsewhere (32-bit TIFF)        by the image's values: 0..255 as they are, 0..65535 by the upper byte
    F (float TIFF, PFM)                   by the image's values: 0..1 times 255, 0..255 rounded

Values that fit none of these ranges are refused: no guess about them would be right for every image of a set.
"""

from typing import TYPE_CHECKING

import numpy as np

from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I holds 16 bits
OVERSHOOT = 0.05  # of floats beyond their range, as resizing causes: clipped
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # premultiplied by alpha -> not so


def in_rgb(image: "Image", format: str | None) -> "Image":
    """Image in RGB with 8 bits. format: that of its file. UserError where its pixels have no clear meaning."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image = _in_gray(image, format)
    try:
        return image.convert(STRAIGHT.get(mode, image.mode)).convert("RGB")
    except ValueError:
        raise UserError(f"its mode {mode} cannot become RGB: save it as RGB") from None


def _in_gray(image: "Image", format: str | None) -> "Image":
    from PIL import Image

    pixels = np.asarray(image)
    if image.mode == "F":
        levels = pixels * (255 / _range(pixels, (1, 255), OVERSHOOT, "floats"))
        return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    fixed = image.mode != "I" or format in SIXTEEN_BITS
    top = 65535 if fixed else _range(pixels, (255, 65535), 0, "whole numbers")
    return Image.fromarray((pixels.clip(0, top) >> (8 if top == 65535 else 0)).astype(np.uint8))


def _range(pixels: np.ndarray, tops: tuple[int, int], slack: float, kind: str) -> int:
    """The first of the ranges 0..top in which all pixels lie."""
    low, high = float(pixels.min()), float(pixels.max())
    if low >= -slack * high:  # not where zero is the middle
        for top in tops:
            if high <= (1 + slack) * top:
                return top
    raise UserError(f"its pixels are {kind} from {low:g} to {high:g}: scale them to 0..{tops[0]} or 0..{tops[1]}")
