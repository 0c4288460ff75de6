"""The peak signal-to-noise ratio, by one rule for all tasks that answer with pixels."""

import torch
from torch import Tensor

PEAK = 255.0
PERFECT = 100.0  # dB at most: an image without an error would have infinitely many


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,) of images (N, C, H, W) in 0..255, in dB, float64 where the device has it."""
    dtype = torch.float32 if images.device.type == "mps" else torch.float64
    error = (images.float() - truth.float()).square_().mean(dim=(1, 2, 3), dtype=dtype)
    return 10 * torch.log10(PEAK**2 / error.clamp(min=PEAK**2 * 10 ** (-PERFECT / 10)))
