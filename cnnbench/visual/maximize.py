"""Activation maximisation: the image that a unit or a class answers most, found by gradient ascent from noise.

Erhan et al. (2009) and Simonyan et al. (2014); without regularisation the result is noise to our eyes. Here, after
Olah, Mordvintsev and Schubert, "Feature Visualization" (2017): the image is a spectrum whose fine frequencies are
harder to move, in decorrelated colours; each step looks at it shifted, turned and scaled a little, through a blur that
fades.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.visual.places import Place, look

RATE = 0.05  # of Adam
LEAKY_STEPS = 16  # in which a unit that is silent for the noise at the beginning has a gradient all the same
SHIFT, TURN, SCALE = 1 / 16, 6.0, 0.08  # parts of the side, degrees, part of the size: at most, either way
BLUR = 1.0  # pixels of the blur's deviation in the first step, for every 100 pixels of the side; it fades to none
# Luminance, and the two axes of colour along which photographs vary less and less (Ohta, Kanade and Sakai, 1980).
COLOURS = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (-0.408, 0.816, -0.408))
SPREAD = (1.0, 0.35, 0.2)  # of photographs along them, relative to the luminance


@dataclass(frozen=True, eq=False)
class Found:
    """An image (C, H, W) in 0..1, and what its unit answers to it, and answered to the noise it began as."""

    unit: int
    image: Tensor
    before: float
    after: float


def maximise(
    model: Net, place: Place, units: Sequence[int], runtime: Runtime, normalize: Normalize, *, channels: int, size: int,
    steps: int, seed: int, batch: int, progress: Callable[[int], object] = lambda count: None,
) -> list[Found]:  # fmt: skip
    """An image for each unit: of a layer, its mean answer over all places; of the head, the logit of a class."""
    found: list[Found] = []
    for start in range(0, len(units), batch):
        part = list(units[start : start + batch])
        # A generator of its own for each unit: its noise does not depend on which others are asked for.
        draws = [torch.Generator().manual_seed(seed * 100_003 + unit) for unit in part]
        found += _ascend(model, place, part, draws, runtime, normalize, channels, size, steps, progress)
    return found


def _ascend(
    model: Net, place: Place, units: list[int], draws: list[torch.Generator], runtime: Runtime, normalize: Normalize,
    channels: int, size: int, steps: int, progress: Callable[[int], object],
) -> list[Found]:  # fmt: skip
    spectrum = runtime.to_device(torch.stack([_noise(draw, channels, size) for draw in draws])).requires_grad_(True)
    optimizer = torch.optim.Adam([spectrum], lr=RATE)
    picked = torch.tensor(units, device=spectrum.device)

    def answers(images: Tensor) -> Tensor:
        maps = look(model, normalize(255 * images), [place])[place.name]
        return maps.mean((2, 3)).gather(1, picked[:, None])[:, 0]

    before = answers(_images(spectrum, size)).detach()
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        images = _blurred(_images(spectrum, size), BLUR * size / 100 * (1 - step / steps))
        calm = min(1.0, 3 * (1 - step / steps))  # in the last third the image comes to rest
        images = _moved(images, torch.stack([_movement(draw, calm) for draw in draws]))
        with _leaky(model, step < LEAKY_STEPS):
            loss = -answers(images).sum()
        loss.backward()
        optimizer.step()
        progress(len(units))
    with torch.no_grad():
        images = _images(spectrum, size)
        after = answers(images)
    return [Found(*one) for one in zip(units, images.cpu(), before.tolist(), after.tolist(), strict=True)]


# The image as a spectrum


def _noise(draw: torch.Generator, channels: int, size: int) -> Tensor:
    """Real and imaginary parts (C, size, size // 2 + 1, 2), small."""
    return 0.01 * torch.randn(channels, size, size // 2 + 1, 2, generator=draw)


def _images(spectrum: Tensor, size: int) -> Tensor:
    """(N, C, size, size) in 0..1: the frequencies weighted as they are in photographs, by one over themselves."""
    device = spectrum.device
    rows, columns = torch.fft.fftfreq(size, device=device)[:, None], torch.fft.rfftfreq(size, device=device)
    weight = size / (rows**2 + columns**2).sqrt().clamp_min(1 / size)
    values = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(size, size)) / 4
    if values.shape[1] == 3:
        axes = torch.tensor(COLOURS, device=device) * torch.tensor(SPREAD, device=device)[:, None]
        values = torch.einsum("nchw,cd->ndhw", values, axes)
    return torch.sigmoid(values)


# What makes the result hold for more than one exact position of its pixels


def _movement(draw: torch.Generator, size: float) -> Tensor:
    """A small turn, scaling and shift, as the 2 x 3 matrix of an affine map; size: 0 for none, 1 for the largest."""
    turn, scale, x, y = (size * (2 * torch.rand(4, generator=draw) - 1)).tolist()
    angle, factor = math.radians(TURN * turn), 1 + SCALE * scale
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    return torch.tensor([[cos, -sin, 2 * SHIFT * x], [sin, cos, 2 * SHIFT * y]])


def _moved(images: Tensor, movements: Tensor) -> Tensor:
    places = F.affine_grid(movements.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="reflection", align_corners=False)


def _blurred(images: Tensor, deviation: float) -> Tensor:
    if deviation < 0.1:
        return images
    radius = min(max(1, math.ceil(2 * deviation)), images.shape[-1] - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=images.device) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    across = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


@contextmanager
def _leaky(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Each ReLU lets a tenth of what is negative through."""

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return F.leaky_relu(inputs[0], 0.1)

    handles = [m.register_forward_hook(hook) for m in model.modules() if enabled and isinstance(m, nn.ReLU)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
