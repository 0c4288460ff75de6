"""sRGB and CIE Lab (D65, 2 degrees), as scikit-image converts: on the images' device, a whole batch at a time."""

from functools import cache

import torch
from torch import Tensor

WHITE = (0.95047, 1.0, 1.08883)
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
KINK, SLOPE, OFFSET = 0.008856, 7.787, 16 / 116


@cache
def _linear(device: torch.device | str) -> Tensor:
    """Linear intensity float32 (256,) of each value of 8 bits."""
    value = torch.arange(256, dtype=torch.float64) / 255
    return torch.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92).float().to(device)


@cache
def _matrix(device: torch.device | str, inverse: bool) -> Tensor:
    """Linear sRGB -> XYZ over white, (3, 3); or its inverse."""
    matrix = torch.tensor(XYZ_OF_RGB, dtype=torch.float64) / torch.tensor(WHITE, dtype=torch.float64)[:, None]
    return (matrix.inverse() if inverse else matrix).float().to(device)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Lab float32 (..., 3, H, W) of images uint8 (..., 3, H, W): L in 0..100, a and b within -110..110."""
    linear = _linear(images.device)[images.int()]
    xyz = torch.einsum("ij,...jhw->...ihw", _matrix(images.device, False), linear)
    f = torch.where(xyz > KINK, xyz.clamp(min=KINK) ** (1 / 3), SLOPE * xyz + OFFSET)
    x, y, z = f.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Images uint8 (..., 3, H, W) of Lab float (..., 3, H, W); colours that sRGB does not reach are clipped."""
    lightness, a, b = lab.float().unbind(-3)
    y = (lightness + 16) / 116
    f = torch.stack([a / 500 + y, y, (y - b / 200).clamp(min=0)], dim=-3)
    xyz = torch.where(f > 0.2068966, f**3, (f - OFFSET) / SLOPE)
    linear = torch.einsum("ij,...jhw->...ihw", _matrix(lab.device, True), xyz)
    value = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (255 * value.clamp(0, 1)).round().to(torch.uint8)
