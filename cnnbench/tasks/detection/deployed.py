"""A detector for other programs: in words, and as a net that decodes its answer and suppresses what is found twice."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import models
from cnnbench.data.model_spec import ModelSpec
from cnnbench.models.layers import Net
from cnnbench.tasks.base import Deployed, Exported
from cnnbench.tasks.detection.decode import CANDIDATES, OVERLAP
from cnnbench.tasks.detection.matching import LARGEST, WEIGHTS, decoded, parts
from cnnbench.utils.errors import RunError
from cnnbench.utils.fast_start import import_torchvision

NAME = "boxes"  # of the output
CLOSE = 0.05  # pixels by which corners may differ
LIKELY = 100  # boxes that are compared, the likeliest


class Finished(nn.Module):
    """One image (1, C, side, side) -> boxes (n, 6), the likeliest first: class, score, left, top, right, bottom in
    pixels of the net's input."""

    def __init__(self, net: Net, side: int, overlap: float) -> None:
        super().__init__()
        import_torchvision()
        import torchvision.ops  # registers the suppression  # noqa: F401

        self.net, self.side, self.overlap = net, side, overlap

    def forward(self, images: Tensor) -> Tensor:
        scores, offsets, boxes = parts(self.net(images))
        corners = decoded(offsets, boxes).clamp(0, self.side)[0]
        likely = scores.softmax(2)[0, :, :-1].T
        best, place = likely.topk(min(CANDIDATES, likely.shape[1]))
        label = torch.arange(best.shape[0])[:, None].expand_as(best).reshape(-1)
        score, corner = best.reshape(-1), corners[place.reshape(-1)]
        apart = label[:, None].to(corner.dtype) * (self.side + 1)  # boxes of other classes do not overlap
        keep = torch.ops.torchvision.nms(corner + apart, score, self.overlap)
        return torch.cat([label[keep, None].to(corner.dtype), score[keep, None], corner[keep]], dim=1)


class Found(nn.Module):
    """The same of a net that finds its boxes itself. torch.export cannot follow it, as it looks at numbers."""

    traced = True

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, images: Tensor) -> Tensor:
        from cnnbench.models.torchvision_rcnn import rows_of

        return rows_of(self.net.found(images, self.net.backbone(images))[0])


def finished(net: Net, spec: ModelSpec, overlap: float) -> Deployed:
    side = spec.input.image_size
    words = Exported(
        NAME,
        ["boxes", 6],
        [
            *_prepared(spec),
            f"a row for each box: {_row(spec)}, the likeliest first",
            f"corners are in pixels of the input: times width / {side} and height / {side} they are the image's",
            "keep the rows from a score on, as 0.5",
        ],
        [1, spec.input.in_channels, side, side],
    )
    return Deployed(Found(net) if net.needs_targets else Finished(net, side, overlap), words, difference)


def raw(spec: ModelSpec) -> Exported:
    """Words for the net alone."""
    side, classes = spec.input.image_size, len(spec.labels)
    if models.needs_targets(**spec.model):
        steps = [*_prepared(spec), f"a column for each box: {_row(spec)}; class -1: not used"]
        return Exported(NAME, ["batch", 6, "boxes"], steps, ["batch", spec.input.in_channels, side, side])
    steps = [
        *_prepared(spec),
        f"of each default box: {classes + 1} scores (the last: none), offsets dx, dy, dw, dh, corners x0, y0, x1, y1",
        "softmax over the scores; the last is no object",
        f"dx, dy, dw, dh are divided by {', '.join(f'{weight:g}' for weight in WEIGHTS)}; dw and dh are at most "
        f"{LARGEST:.4f}",
        "centre: that of the default box + dx times its width, dy times its height; width and height: its own times "
        "exp(dw), exp(dh); corners are cut at 0 and the input's side",
        f"of each class the {CANDIDATES} likeliest; of two that overlap by an IoU over {OVERLAP:g} the likelier stays",
        f"corners are in pixels of the input: times width / {side} and height / {side} they are the image's",
    ]
    return Exported(NAME, ["batch", classes + 9, "boxes"], steps, ["batch", spec.input.in_channels, side, side])


def _row(spec: ModelSpec) -> str:
    return f"class (0 is {spec.labels[0]}), score, left, top, right, bottom"


def _prepared(spec: ModelSpec) -> list[str]:
    side = spec.input.image_size
    return [
        f"read as {'RGB' if spec.input.in_channels == 3 else 'gray'}, turned upright as EXIF says",
        f"resize to {side} x {side} pixels, whatever the aspect ({spec.input.interpolation}, antialiased)",
        "divide by 255, subtract mean, divide by std, channel by channel; channels first",
    ]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference between the likeliest boxes and their counterparts, in scores and sides over the input's; NaN
    where neither finds any. RunError where one has none."""
    wanted = ours[:LIKELY]
    if not len(wanted) and not len(theirs):
        return math.nan
    if not wanted.isfinite().all() or not len(theirs):
        raise RunError("the net's boxes for photographs are no numbers, or the file finds none: nothing was written")
    apart = (wanted[:, None] - theirs[None]).abs()
    fits = (apart[:, :, 0] < 0.5) & (apart[:, :, 1] < 1e-3) & (apart[:, :, 2:].amax(2) < CLOSE)
    if not fits.any(1).all():
        raise RunError("the exported net finds other boxes than the net itself: nothing was written")
    return float(apart[:, :, 1].masked_fill(~fits, torch.inf).amin(1).max())
