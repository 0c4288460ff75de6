"""PSNR and SSIM as the field measures them, of a net and of bicubic interpolation, and their sums over a data set."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.data.luma import luma
from cnnbench.models.enlarging import enlarged, reduced
from cnnbench.runtime.device import Runtime
from cnnbench.tasks.meter import Meter
from cnnbench.tasks.psnr import PEAK, psnr
from cnnbench.tasks.super_resolution import (
    BICUBIC_PSNR,
    BICUBIC_RGB,
    BICUBIC_SSIM,
    CONSISTENCY,
    METRICS,
    PSNR,
    PSNR_RGB,
    SSIM,
)

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # of SSIM (Wang et al., 2004)


def levels(images: Tensor) -> Tensor:
    """Images in 0..1 as the pixels of a file: whole numbers in 0..255, float32."""
    return (PEAK * images.float()).round_().clamp_(0, PEAK)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (N,) of gray images (N, 1, H, W) in 0..255, of at least 11 pixels a side.

    Gaussian windows that lie wholly inside, as in the authors' program (Wang, Bovik, Sheikh & Simoncelli, 2004).
    """
    dtype = torch.float32 if images.device.type == "mps" else torch.float64
    x, y = images.to(dtype), truth.to(dtype)
    mean_x, mean_y, xx, yy, xy = _blurred(torch.stack([x, y, x * x, y * y, x * y])).unbind()
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    alike = (2 * both + c1) * (2 * (xy - both) + c2) / ((squares + c1) * (xx + yy - squares + c2))
    return alike.mean(dim=(1, 2, 3))


def _blurred(stack: Tensor) -> Tensor:
    """Gaussian means of each window that lies inside: (K, N, 1, H, W) -> (K, N, 1, H - 10, W - 10)."""
    place = torch.arange(WINDOW, dtype=stack.dtype, device=stack.device) - WINDOW // 2
    line = torch.exp(-place.square() / (2 * SIGMA**2))
    line = line / line.sum()
    flat = stack.flatten(0, 1)
    return F.conv2d(F.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1)).unflatten(0, stack.shape[:2])


def on_luma(images: Tensor) -> Tensor:
    return luma(images) if images.shape[1] == 3 else images


def shaved(images: Tensor, border: int) -> Tensor:
    return images[..., border:-border, border:-border]


def split(targets: Tensor, channels: int, scale: int) -> tuple[Tensor, Tensor]:
    """The true image and the small one, float32 in 0..255, of targets (N, C or 2 C, H, W); see `pairing`."""
    truth = targets[:, :channels].float()
    if targets.shape[1] > channels:
        return truth, targets[:, channels:, ::scale, ::scale].float()
    return truth, reduced(truth, scale)


def quality(images: Tensor, truth: Tensor, low: Tensor, scale: int) -> dict[str, Tensor]:
    """Each metric (N,) by name, but for those of bicubic interpolation, of pixels (N, C, H, W) in 0..255."""
    ours, true = shaved(on_luma(images), scale), shaved(on_luma(truth), scale)
    again = reduced(images, scale)
    found = {PSNR.name: psnr(ours, true), SSIM.name: ssim(ours, true), CONSISTENCY.name: psnr(again, low)}
    if images.shape[1] == 3:
        found[PSNR_RGB.name] = psnr(images, truth)
    return found


def compared(images: Tensor, truth: Tensor, low: Tensor, scale: int) -> dict[str, Tensor]:
    """Each metric (N,) by name, those of bicubic interpolation among them."""
    ours = quality(images, truth, low, scale)
    bicubic = quality(enlarged(low, scale).round().clamp(0, PEAK), truth, low, scale)
    names = {PSNR.name: BICUBIC_PSNR.name, SSIM.name: BICUBIC_SSIM.name, PSNR_RGB.name: BICUBIC_RGB.name}
    both = ours | {names[name]: values for name, values in bicubic.items() if name in names}
    return {metric.name: both[metric.name] for metric in METRICS if metric.name in both}


class PsnrMeter(Meter):
    """Sum of the PSNR on Y over the images of a training epoch."""

    def __init__(self, runtime: Runtime, scale: int) -> None:
        super().__init__(runtime)
        self.scale = scale
        self.sums = {PSNR.name: torch.zeros((), dtype=runtime.sum_dtype, device=runtime.device)}

    def own(self) -> dict[str, Tensor]:
        return self.sums

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        truth = targets[:, : outputs.shape[1]]
        inner, true = (shaved(images, self.scale) for images in (outputs, truth))
        self.sums[PSNR.name] += psnr(on_luma(levels(inner)), on_luma(true)).sum()

    def metrics(self) -> dict[str, float]:
        return {name: (value / self.n).item() for name, value in self.sums.items()} if self.n else {}


class QualityMeter(PsnrMeter):
    """Sums of all metrics over the images of an evaluation; of each image its own are kept."""

    def __init__(self, runtime: Runtime, scale: int, channels: int) -> None:
        super().__init__(runtime, scale)
        zero = self.sums[PSNR.name]
        self.names = self.names_for(channels)
        self.sums = {name: torch.zeros_like(zero) for name in self.names}
        self.kept: list[Tensor] = []

    @staticmethod
    def names_for(channels: int) -> list[str]:
        """Names of the metrics, those of the columns of `answers`."""
        return [one.name for one in METRICS if channels == 3 or one not in (PSNR_RGB, BICUBIC_RGB)]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        truth, low = split(targets, outputs.shape[1], self.scale)
        found = compared(levels(outputs), truth, low, self.scale)
        for name, values in found.items():
            self.sums[name] += values.sum()
        self.kept.append(torch.stack([found[name] for name in self.names], dim=1))

    def answers(self) -> Tensor:
        zero = self.sums[PSNR.name]
        return torch.cat(self.kept) if self.kept else zero.new_zeros(0, len(self.names))
