"""`what=maximize`: activation maximisation, images that excite a unit or a class most, by gradient ascent from noise.

Erhan et al. (2009) and Simonyan et al. (2014); without regularisation the result looks like noise. The regularisation
is that of Olah, Mordvintsev and Schubert, "Feature Visualization" (2017): the image is parametrised by its Fourier
spectrum, where fine frequencies have less weight, in decorrelated colours; each step sees it shifted, rotated and
scaled a little, through a blur that fades out.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.models.layers import Net
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.output.rgb import to_rgb
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.measurement import progress
from cnnbench.utils.format import number_text
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import HEAD, LayerView, layer_maps, spread_indices

UNITS = 11  # of a layer
LR = 0.05  # of Adam
LEAKY_STEPS = 16  # first steps, with leaky ReLUs: a unit that the noise does not excite has a gradient all the same
SHIFT, ROTATION, SCALE = 1 / 16, 6.0, 0.08  # largest: part of the side, degrees, part of the size
BLUR = 1.0  # standard deviation of the blur in the first step, pixels for every 100 pixels of the side; it fades to 0
# Luminance and two axes of colour: the principal components of photographs (Ohta, Kanade and Sakai, 1980).
COLOURS = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707), (-0.408, 0.816, -0.408))
SPREAD = (1.0, 0.35, 0.2)  # standard deviations of photographs along them, relative to the luminance


@dataclass(frozen=True, eq=False)
class MaximizedImage:
    """An image (C, H, W) in 0..1, with the activation of its unit by the noise at the start and by the image."""

    unit: int
    image: Tensor
    before: float
    after: float


def draw_maximize(context: VisualizeContext) -> Iterator[Picture]:
    """A picture for each layer, by default of the head, whose units are the classes."""
    context.check_channels()
    for view in context.layer_views(context.layers or [HEAD]):
        units = context.units(view) or spread_indices(view.units, UNITS)
        with progress(len(units) * context.cfg.steps, f"maximize {view.name}", "step") as advance:
            found = maximize_units(
                context.model, view, units, context.runtime, context.normalize, channels=context.channels,
                size=context.size, steps=context.cfg.steps, seed=context.cfg.seed, batch=context.batch_size(16),
                advance=advance,
            )  # fmt: skip
        tiles = [Tile(to_rgb(one.image), context.classes[one.unit] if view.name == HEAD else f"unit {one.unit}",
                      f"{number_text(one.before)} → {number_text(one.after)}") for one in found]  # fmt: skip
        what = "classes" if view.name == HEAD else f"units of {view.name}"
        title = f"{context.heading}: images made to excite its {what}"
        legend = (
            f"Found by {context.cfg.steps} steps of gradient ascent from noise. Below: the answer to the noise → to "
            f"the image{' (the logit of the class)' if view.name == HEAD else ', the mean over all positions'}."
        )
        picture = context.new_picture("maximize", f"maximize-{view.name}", title, legend)
        draw_grid(in_rows(tiles), picture.path, title, side=1.9 if context.size > 64 else 1.5, footer=legend)
        yield picture


def maximize_units(
    model: Net, view: LayerView, units: Sequence[int], runtime: Runtime, normalize: Normalize, *, channels: int,
    size: int, steps: int, seed: int, batch: int, advance: Callable[[int], object] = lambda count: None,
) -> list[MaximizedImage]:  # fmt: skip
    """An image for each unit. It maximises the mean activation over all positions, for the head the logit."""
    found: list[MaximizedImage] = []
    for start in range(0, len(units), batch):
        part = list(units[start : start + batch])
        # A generator for each unit: its noise does not depend on the other units.
        draws = [torch.Generator().manual_seed(seed * 100_003 + unit) for unit in part]
        found += _ascend(model, view, part, draws, runtime, normalize, channels, size, steps, advance)
    return found


def _ascend(
    model: Net, view: LayerView, units: list[int], draws: list[torch.Generator], runtime: Runtime, normalize: Normalize,
    channels: int, size: int, steps: int, advance: Callable[[int], object],
) -> list[MaximizedImage]:  # fmt: skip
    spectrum = runtime.to_device(torch.stack([_noise(draw, channels, size) for draw in draws])).requires_grad_(True)
    optimizer = torch.optim.Adam([spectrum], lr=LR)
    picked = torch.tensor(units, device=spectrum.device)

    def activations(images: Tensor) -> Tensor:
        maps = layer_maps(model, normalize(255 * images), [view])[view.name]
        return maps.mean((2, 3)).gather(1, picked[:, None])[:, 0]

    before = activations(_images(spectrum, size)).detach()
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        images = _blurred(_images(spectrum, size), BLUR * size / 100 * (1 - step / steps))
        calm = min(1.0, 3 * (1 - step / steps))  # the transforms fade out in the last third
        images = _transformed(images, torch.stack([_random_affine(draw, calm) for draw in draws]))
        with _leaky(model, step < LEAKY_STEPS):
            loss = -activations(images).sum()
        loss.backward()
        optimizer.step()
        advance(len(units))
    with torch.no_grad():
        images = _images(spectrum, size)
        after = activations(images)
    return [MaximizedImage(*one) for one in zip(units, images.cpu(), before.tolist(), after.tolist(), strict=True)]


# The image as a Fourier spectrum


def _noise(draw: torch.Generator, channels: int, size: int) -> Tensor:
    """Random spectrum of small values: real and imaginary parts (C, size, size // 2 + 1, 2)."""
    return 0.01 * torch.randn(channels, size, size // 2 + 1, 2, generator=draw)


def _images(spectrum: Tensor, size: int) -> Tensor:
    """Images (N, C, size, size) in 0..1 of spectra, each frequency f weighted by 1/f, as in photographs."""
    device = spectrum.device
    rows, columns = torch.fft.fftfreq(size, device=device)[:, None], torch.fft.rfftfreq(size, device=device)
    weight = size / (rows**2 + columns**2).sqrt().clamp_min(1 / size)
    values = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(size, size)) / 4
    if values.shape[1] == 3:
        axes = torch.tensor(COLOURS, device=device) * torch.tensor(SPREAD, device=device)[:, None]
        values = torch.einsum("nchw,cd->ndhw", values, axes)
    return torch.sigmoid(values)


# Random transforms: the unit must answer to the image wherever its pixels lie


def _random_affine(draw: torch.Generator, size: float) -> Tensor:
    """Matrix (2, 3) of a small random rotation, scaling and shift; size: 0 for none, 1 for the largest."""
    turn, scale, x, y = (size * (2 * torch.rand(4, generator=draw) - 1)).tolist()
    angle, factor = math.radians(ROTATION * turn), 1 + SCALE * scale
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    return torch.tensor([[cos, -sin, 2 * SHIFT * x], [sin, cos, 2 * SHIFT * y]])


def _transformed(images: Tensor, matrices: Tensor) -> Tensor:
    positions = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, positions, mode="bilinear", padding_mode="reflection", align_corners=False)


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
    """Give each ReLU a slope of 0.1 for negative inputs."""

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return F.leaky_relu(inputs[0], 0.1)

    handles = [m.register_forward_hook(hook) for m in model.modules() if enabled and isinstance(m, nn.ReLU)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
