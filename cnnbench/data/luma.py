"""Luma and chroma of ITU-R BT.601 for 8 bits, as MATLAB has them: Y in 16..235, Cb and Cr in 16..240.

Numbers of super-resolution are published on this Y. The same images on a luma of 0..255 give 1.3 dB less.
"""

import torch
from torch import Tensor

# Rows: Y, Cb, Cr; columns: R, G, B in 0..1.
YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
OFFSET = (16.0, 128.0, 128.0)


def luma(images: Tensor) -> Tensor:
    """Y of images (..., 3, H, W) in 0..255, rounded to 8 bits as MATLAB's rgb2ycbcr does: float32 (..., 1, H, W)."""
    return ycbcr(images)[..., :1, :, :].round()


def ycbcr(images: Tensor) -> Tensor:
    """Y, Cb, Cr of RGB images (..., 3, H, W) in 0..255, not rounded: float32."""
    return _mixed(images.float(), torch.tensor(YCBCR) / 255) + _column(images)


def rgb(images: Tensor) -> Tensor:
    """RGB in 0..255, not clipped, of images (..., 3, H, W) in Y, Cb, Cr."""
    return _mixed(images - _column(images), torch.linalg.inv(torch.tensor(YCBCR, dtype=torch.float64) / 255).float())


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,...jhw->...ihw", matrix.to(images.device), images)


def _column(images: Tensor) -> Tensor:
    return torch.tensor(OFFSET, device=images.device).view(3, 1, 1)
