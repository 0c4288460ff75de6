"""Where in an image the evidence for a class lies: Grad-CAM, occlusion, saliency. Each gives a map (N, H, W)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize
from cnnbench.visual.places import Place, tapped

SAMPLES, NOISE = 16, 0.12  # SmoothGrad: noisy copies of an image, and the noise as part of the range of its values
SQUARE, STRIDE = 0.2, 0.07  # occlusion: side of the gray square and its steps, as parts of the image's side


def gradcam(model: Net, images: Tensor, targets: Tensor, normalize: Normalize, place: Place) -> Tensor:
    """Selvaraju et al. (2017): the place's maps, each weighed by the mean gradient of the class's logit, added up;
    what speaks against the class is cut off. At the images' own size, 0 or more."""
    inputs = normalize(images).requires_grad_(True)  # so that maps have gradients though no weight has
    with torch.enable_grad(), tapped(model, [place]) as found:
        logits = model(inputs)
        maps = found[place.name]
        (gradients,) = torch.autograd.grad(_of(logits, targets).sum(), maps)
    cam = (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).clamp_min(0)
    return F.interpolate(cam.detach().float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def saliency(model: Net, images: Tensor, targets: Tensor, normalize: Normalize, seed: int) -> Tensor:
    """How strongly each pixel moves the class's logit (Simonyan et al., 2014): the largest absolute gradient of its
    channels, the mean over noisy copies of the image (Smilkov et al., 2017). 0 or more."""
    inputs = normalize(images)
    draw = torch.Generator().manual_seed(seed)
    span = (inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)) * NOISE
    total = torch.zeros(images.shape[0], *images.shape[2:], device=inputs.device)
    for _ in range(SAMPLES):
        noise = torch.randn(inputs.shape, generator=draw).to(inputs.device)
        noisy = (inputs + span * noise).requires_grad_(True)
        with torch.enable_grad():
            (gradients,) = torch.autograd.grad(_of(model(noisy), targets).sum(), noisy)
        total += gradients.abs().amax(1)
    return total / SAMPLES


@torch.no_grad()
def occlusion(
    model: Net, images: Tensor, targets: Tensor, normalize: Normalize, *, batch: int,
    progress: Callable[[int], object] = lambda count: None,
) -> Tensor:  # fmt: skip
    """Zeiler and Fergus (2014): by how much the class's probability falls when a gray square hides a place, the mean
    over all squares that hide it. -1..1; below 0 where hiding it helps."""
    inputs = normalize(images)
    before = _probability(model(inputs), targets)
    height, width = inputs.shape[2:]
    corners = squares(height, width)
    total, count = torch.zeros(len(images), height, width), torch.zeros(height, width)
    for index in range(len(images)):
        for start in range(0, len(corners), batch):
            part = corners[start : start + batch]
            hidden = inputs[index].repeat(len(part), 1, 1, 1)
            for one, (top, left, bottom, right) in zip(hidden, part, strict=True):
                one[:, top:bottom, left:right] = 0  # the mean of all images, which are normalised
            drops = before[index] - _probability(model(hidden), targets[index].repeat(len(part)))
            for drop, (top, left, bottom, right) in zip(drops.tolist(), part, strict=True):
                total[index, top:bottom, left:right] += drop
                count[top:bottom, left:right] += index == 0
        progress(1)
    return total / count


def squares(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom, right of squares that together hide every pixel."""
    side = max(1, round(SQUARE * min(height, width)))
    step = max(1, round(STRIDE * min(height, width)))
    tops, lefts = ([*range(0, length - side, step), length - side] for length in (height, width))
    return [(top, left, top + side, left + side) for top in tops for left in lefts]


def _of(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _of(logits.float().softmax(1), targets)
