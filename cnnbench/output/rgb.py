"""RGB arrays, uint8 (H, W, 3): from images, from numbers by a colour map, heat over an image, mosaics."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from cnnbench.output.figure import array
from cnnbench.utils.errors import RunError

SMOOTH = 100  # pixels: pictures with a longer side are photographs, enlarged smoothly; others show their pixels


def mosaic(pictures: Sequence[np.ndarray], columns: int, gap: int = 1) -> np.ndarray:
    """One RGB array with all pictures, of one size (H, W, 3), and white lines of `gap` pixels between them."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        y, x = row * (height + gap), column * (width + gap)
        whole[y : y + height, x : x + width] = picture
    return whole


def to_rgb(image: Any) -> np.ndarray:
    """RGB array of an image (C, H, W), gray or in colour: uint8, or floating point in 0..1."""
    values = finite_array(image)
    if values.dtype != np.uint8:
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3)))


def colour_mapped(values: Any, low: float, high: float, colours: str = "viridis") -> np.ndarray:
    """RGB array of numbers (H, W) between low and high. colours: name of a colour map of matplotlib."""
    scaled = (finite_array(values) - low) / max(high - low, 1e-12)
    return np.rint(255 * matplotlib.colormaps[colours](scaled.clip(0, 1))[..., :3]).astype(np.uint8)


def overlay_heat(image: Any, values: Any, signed: bool) -> np.ndarray:
    """RGB array of the image (C, H, W) in gray under a heat map of the values (H, W); the strongest value of the image
    hides it most. Signed values: orange above zero, purple below; others: from black to bright yellow."""
    gray = to_rgb(image).mean(2, keepdims=True) / 255
    found = finite_array(values)
    scaled = found / max(float(np.abs(found).max()), 1e-12)
    colours = matplotlib.colormaps["PuOr_r"](0.5 + scaled / 2) if signed else matplotlib.colormaps["inferno"](scaled)
    strength = 0.9 * np.abs(scaled)[..., None]
    ground = 0.35 + 0.6 * gray if signed else 0.75 * gray
    return np.rint(255 * ((1 - strength) * ground + strength * colours[..., :3])).clip(0, 255).astype(np.uint8)


def resized_rgb(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Picture at another size. Small pictures are enlarged pixel by pixel, others are resampled smoothly."""
    smooth = max(picture.shape[:2]) > SMOOTH or height < picture.shape[0]
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def finite_array(values: Any) -> np.ndarray:
    """Numbers to be drawn. RunError where one is not finite: its colour would mean nothing."""
    found = array(values)
    if not np.isfinite(found).all():
        raise RunError("what is to be drawn holds numbers that are not finite (NaN or infinity): no picture of it")
    return found
