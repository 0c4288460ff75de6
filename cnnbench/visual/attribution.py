"""`what=gradcam`, `occlusion`, `saliency`: which parts of an image are evidence for a class.

Each method gives a heat map (N, H, W) of the size of the images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.models.layers import Net
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.output.rgb import overlay_heat, to_rgb
from cnnbench.runtime.device import Normalize
from cnnbench.tasks.measurement import progress
from cnnbench.utils.errors import UserError
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import LayerView, captured_maps, stage_names

SAMPLES, NOISE = 16, 0.12  # SmoothGrad: noisy copies of an image; standard deviation, relative to the range of values
SQUARE, STRIDE = 0.2, 0.07  # occlusion: side of the gray square and stride, relative to the side of the image


@dataclass(frozen=True, eq=False)
class Questions:
    """Images uint8 (N, C, S, S), the class that each is asked about, and the probability of that class."""

    images: Tensor
    targets: Tensor
    probabilities: Tensor


def draw_gradcam(context: VisualizeContext) -> Iterator[Picture]:
    """Grad-CAM at the first layer in `layer=`, by default at the last stage that has maps."""
    asked = _questions(context)
    (view,) = context.layer_views((context.layers or [_last_stage_with_maps(context)])[:1])
    if not view.has_maps:
        raise UserError(
            f"Grad-CAM needs feature maps, but {view.name} gives one number for each unit: choose an earlier layer"
        )
    heat = torch.cat([
        gradcam_heat(context.model, images, targets, context.normalize, view)
        for images, targets in _parts(context, asked)
    ])  # fmt: skip
    legend = (
        f"Grad-CAM (Selvaraju et al., 2017) at {view.name}, {view.shape[1]} × {view.shape[2]} positions. Bright: "
        "evidence for the class. Each image is scaled to its own largest value."
    )
    yield _draw_heat(context, "gradcam", f"evidence by Grad-CAM at {view.name}", legend, asked, heat)


def draw_saliency(context: VisualizeContext) -> Iterator[Picture]:
    asked = _questions(context)
    heat = torch.cat([
        saliency_heat(context.model, images, targets, context.normalize, context.cfg.seed)
        for images, targets in _parts(context, asked)
    ])  # fmt: skip
    legend = (
        "Bright: pixels that change the logit of the class most, up or down (Simonyan et al., 2014; mean over "
        f"{SAMPLES} noisy copies, Smilkov et al., 2017). Each image is scaled to its own largest value."
    )
    yield _draw_heat(context, "saliency", "the pixels that change its answer most", legend, asked, heat)


def draw_occlusion(context: VisualizeContext) -> Iterator[Picture]:
    asked = _questions(context)
    with progress(len(asked.images), "occlusion") as advance:
        heat = occlusion_heat(
            context.answering,
            asked.images,
            asked.targets,
            context.normalize,
            batch=context.batch_size(),
            advance=advance,
        )
    legend = (
        "Orange: a gray square here lowers the probability of the class; purple: it raises it (Zeiler and Fergus, "
        "2014). Below: the largest fall, in percentage points."
    )
    yield _draw_heat(context, "occlusion", "evidence by occlusion", legend, asked, heat)


def _questions(context: VisualizeContext) -> Questions:
    images = torch.stack([one.pixels for one in context.images])
    logits = context.logits(images)
    targets = context.targets(logits)
    return Questions(images, targets, _probability(logits, targets).cpu())


def _parts(context: VisualizeContext, asked: Questions) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and targets of each forward and backward pass."""
    size = max(1, context.batch_size(16) // 2)  # gradients take as much memory again
    yield from zip(asked.images.split(size), asked.targets.split(size), strict=True)


def _draw_heat(
    context: VisualizeContext, what: str, title: str, legend: str, asked: Questions, heat: Tensor
) -> Picture:
    """Each image beside its heat map, two pairs to a row."""
    signed = what == "occlusion"
    tiles = []
    for one, target, probability, values in zip(
        context.images, asked.targets.tolist(), asked.probabilities.tolist(), heat.cpu(), strict=True
    ):
        note = f"falls by {100 * max(float(values.max()), 0):.2g}" if signed else ""
        tiles += [
            Tile(to_rgb(one.pixels), one.name, marked=one.target is not None and one.target != target),
            Tile(
                overlay_heat(one.pixels, values, signed), f"{context.classes[target]}: {100 * probability:.0f} %", note
            ),
        ]
    rows = in_rows(tiles, 4 if len(tiles) > 2 else 2)
    marked = " Framed images: the class in question is not the true class." if any(t.marked for t in tiles) else ""
    title, footer = f"{context.heading}: {title}", legend + marked + _axes(context)
    picture = context.new_picture(what, what, title, footer)
    draw_grid(rows, picture.path, title, side=2.2, footer=footer)
    return picture


def _axes(context: VisualizeContext) -> str:
    """What the sides of a spectrogram are; nothing of other images."""
    if SOUND not in context.spec.extra:
        return ""
    known = Spectrogram.of(context.spec.extra[SOUND])
    return f" {known.seconds:.3g} seconds from left to right, tones of {known.low:g} to {known.high:g} Hz from below."


def _last_stage_with_maps(context: VisualizeContext) -> str:
    with_maps = [view.name for view in context.layer_views(stage_names(context.model)) if view.has_maps]
    if not with_maps:
        raise UserError(f"Grad-CAM needs feature maps, but no stage of {context.title} has any")
    return with_maps[-1]


def gradcam_heat(model: Net, images: Tensor, targets: Tensor, normalize: Normalize, view: LayerView) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017): the sum of the layer's maps, each weighted by the mean gradient of the class's
    logit, through a ReLU, resized to the images."""
    inputs = normalize(images).requires_grad_(True)  # so that maps have gradients though all weights are frozen
    with torch.enable_grad(), captured_maps(model, [view]) as found:
        logits = model(inputs)
        maps = found[view.name]
        (gradients,) = torch.autograd.grad(_picked(logits, targets).sum(), maps)
    cam = (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).clamp_min(0)
    return F.interpolate(cam.detach().float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def saliency_heat(model: Net, images: Tensor, targets: Tensor, normalize: Normalize, seed: int) -> Tensor:
    """Saliency (Simonyan et al., 2014): the largest absolute gradient of the class's logit over a pixel's channels,
    averaged over noisy copies of the image (SmoothGrad, Smilkov et al., 2017)."""
    inputs = normalize(images)
    draw = torch.Generator().manual_seed(seed)
    span = (inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)) * NOISE
    total = torch.zeros(images.shape[0], *images.shape[2:], device=inputs.device)
    for _ in range(SAMPLES):
        noise = torch.randn(inputs.shape, generator=draw).to(inputs.device)
        noisy = (inputs + span * noise).requires_grad_(True)
        with torch.enable_grad():
            (gradients,) = torch.autograd.grad(_picked(model(noisy), targets).sum(), noisy)
        total += gradients.abs().amax(1)
    return total / SAMPLES


@torch.no_grad()
def occlusion_heat(
    model: Module, images: Tensor, targets: Tensor, normalize: Normalize, *, batch: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:  # fmt: skip
    """Occlusion (Zeiler and Fergus, 2014): the fall of the class's probability when a gray square hides a pixel,
    averaged over all squares that hide it. In -1..1; negative where hiding the pixel helps."""
    inputs = normalize(images)
    before = _probability(model(inputs), targets)
    height, width = inputs.shape[2:]
    boxes = occlusion_squares(height, width)
    total, count = torch.zeros(len(images), height, width), torch.zeros(height, width)
    for index in range(len(images)):
        for start in range(0, len(boxes), batch):
            part = boxes[start : start + batch]
            hidden = inputs[index].repeat(len(part), 1, 1, 1)
            for one, (top, left, bottom, right) in zip(hidden, part, strict=True):
                one[:, top:bottom, left:right] = 0  # the mean of all images, which are normalised
            drops = before[index] - _probability(model(hidden), targets[index].repeat(len(part)))
            for drop, (top, left, bottom, right) in zip(drops.tolist(), part, strict=True):
                total[index, top:bottom, left:right] += drop
                count[top:bottom, left:right] += index == 0
        advance(1)
    return total / count


def occlusion_squares(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Squares (top, left, bottom, right) that together hide every pixel."""
    side = max(1, round(SQUARE * min(height, width)))
    step = max(1, round(STRIDE * min(height, width)))
    tops, lefts = ([*range(0, length - side, step), length - side] for length in (height, width))
    return [(top, left, top + side, left + side) for top in tops for left in lefts]


def _picked(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit of each image's target class."""
    return logits.gather(1, targets[:, None])[:, 0]


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _picked(logits.float().softmax(1), targets)
