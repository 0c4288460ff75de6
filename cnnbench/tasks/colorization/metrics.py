"""Metrics of a colorization, summed exactly: errors of ab as whole counts, PSNR and colourfulness image by image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.runtime.device import Runtime
from cnnbench.tasks.colorization import AUC, AUC_REBALANCED, COLOURFULNESS, PSNR
from cnnbench.tasks.colorization.bins import COUNT, TEMPERATURE, annealed_mean, bins_of
from cnnbench.tasks.colorization.lab import lab_to_rgb
from cnnbench.tasks.meter import Meter, occurrences
from cnnbench.tasks.psnr import psnr

THRESHOLDS = 151  # 0, 1, ..., 150
SCALE = 110.0  # of ab where a net answers with them directly


def ab_of(answer: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Colours ab float32 (N, 2, h, w) of an answer: logits of 313 bins, or ab over 110."""
    return SCALE * answer.float() if answer.shape[1] == 2 else annealed_mean(answer, temperature)


def enlarged(ab: Tensor, height: int, width: int) -> Tensor:
    """Colours (N, 2, h, w) at the size of their image."""
    return F.interpolate(ab, size=(height, width), mode="bilinear", align_corners=False)


class AucMeter(Meter):
    """AuC of the ab error: the mean, over the thresholds 0 to 150, of the share of pixels whose error is within it.

    Rebalanced: the shares are those of each bin of true colours, averaged over the bins that occur (Zhang et al., 2016,
    section 3.1, with lambda 0 and the pixels' own distribution). outputs: logits (N, 313, h, w), or ab over 110
    (N, 2, h, w); targets: Lab (N, 3, H, W).
    """

    def __init__(self, runtime: Runtime, temperature: float = TEMPERATURE) -> None:
        super().__init__(runtime)
        self.temperature = temperature
        self.errors = torch.zeros(COUNT, THRESHOLDS + 1, dtype=torch.int64, device=runtime.device)

    def own(self) -> dict[str, Tensor]:
        return {"errors": self.errors}

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.add_colours(enlarged(ab_of(outputs, self.temperature), *targets.shape[2:]), targets)

    def add_colours(self, ab: Tensor, lab: Tensor) -> None:
        """Add images by their colours ab (N, 2, H, W)."""
        within = (ab - lab[:, 1:]).norm(dim=1).ceil().clamp(max=THRESHOLDS).long()
        pairs = bins_of(lab[:, 1:]) * (THRESHOLDS + 1) + within.flatten()
        self.errors += occurrences(pairs, self.errors.numel()).view_as(self.errors)

    def metrics(self) -> dict[str, float]:
        return auc(self.errors)


class ColourMeter(AucMeter):
    """AuC; of the images in 8 bits PSNR and colourfulness, each a mean over the images; and which bins are answered."""

    def __init__(self, runtime: Runtime, temperature: float = TEMPERATURE) -> None:
        super().__init__(runtime, temperature)
        zeros = torch.zeros(3, dtype=runtime.sum_dtype, device=runtime.device)
        self.psnr, self.colour, self.true_colour = zeros.unbind()
        self.answered = torch.zeros(COUNT, dtype=torch.int64, device=runtime.device)

    def own(self) -> dict[str, Tensor]:
        return {**super().own(), "psnr": self.psnr, "colour": self.colour, "true_colour": self.true_colour,
                "answered": self.answered}  # fmt: skip

    def add_colours(self, ab: Tensor, lab: Tensor) -> None:
        super().add_colours(ab, lab)
        self.answered += occurrences(bins_of(ab), COUNT)
        answer, truth = lab_to_rgb(torch.cat([lab[:, :1], ab], dim=1)), lab_to_rgb(lab)
        self.psnr += psnr(answer, truth).sum()
        self.colour += colourfulness(answer, self.psnr.dtype).sum()
        self.true_colour += colourfulness(truth, self.psnr.dtype).sum()

    def metrics(self) -> dict[str, float]:
        own = {PSNR.name: self.psnr, COLOURFULNESS.name: self.colour}
        return {**super().metrics(), **{name: value.item() / max(self.n, 1) for name, value in own.items()}}


def auc(errors: Tensor) -> dict[str, float]:
    """AuC and rebalanced AuC in percent. errors: pixels int64 (313, 152) by true bin and least threshold."""
    errors = errors.cpu()
    pixels = errors.sum(1).double()
    areas = errors.cumsum(1)[:, :THRESHOLDS].double().mean(1)
    seen = pixels > 0
    whole, each = areas.sum() / pixels.sum(), (areas[seen] / pixels[seen]).mean()
    return {AUC_REBALANCED.name: 100 * each.item(), AUC.name: 100 * whole.item()}


def colourfulness(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Colourfulness (N,) of images uint8 (N, 3, H, W). Hasler & Suesstrunk, 2003: 0 for gray ones, 33 for moderately
    and 59 for quite colourful ones."""
    red, green, blue = images.to(dtype).flatten(2).unbind(1)
    opposed = torch.stack([red - green, (red + green) / 2 - blue])
    variance, mean = torch.var_mean(opposed, dim=2, correction=0)
    return variance.sum(0).sqrt() + 0.3 * mean.square().sum(0).sqrt()
