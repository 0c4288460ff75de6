"""Pictures of super-resolution: small image, bicubic interpolation, the net's answer and the truth side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.data.photographs import blocks
from cnnbench.models.enlarging import enlarged
from cnnbench.output.image_grid import Row, Tile, draw_grid
from cnnbench.tasks.psnr import PEAK, psnr
from cnnbench.tasks.super_resolution.metrics import levels, on_luma, shaved

ZOOM = 72  # pixels of the large image: the side of the part that is shown
ROWS, PAIRS, COLUMNS = 8, 16, 8
FOOTER = "Each part is the one of its image with the most detail. Numbers: PSNR of the whole image, as in the result."


@dataclass(frozen=True, eq=False)
class Example:
    """Small image (C, h, w) and truth (C, H, W) in 0..255, and the net's answer (C, H, W) in 0..1."""

    low: Tensor
    answer: Tensor
    truth: Tensor
    name: str = ""


def draw_examples(examples: Sequence[Example], scale: int, path: Path, title: str) -> None:
    """A row for each image: the part of it with the most detail, four times."""
    rows = [_row(example, scale) for example in examples]
    draw_grid(rows, path, f"{title}, scale {scale}", side=2.1, footer=FOOTER)


def draw_comparison(low: Any, answers: Any, truth: Any, scale: int, path: Path, title: str) -> None:
    """The first images of a batch."""
    parts = zip(low[:ROWS].cpu(), answers[:ROWS].cpu(), truth[:ROWS].cpu(), strict=True)
    draw_examples([Example(*one) for one in parts], scale, path, title)


def draw_pairs(low: Tensor, truth: Tensor, path: Path) -> None:
    """The first images of a training batch above the truth."""
    scale = truth.shape[-1] // low.shape[-1]
    rows = []
    for start in range(0, min(PAIRS, len(low)), COLUMNS):
        part = slice(start, min(start + COLUMNS, PAIRS))
        small = [Tile(shown(blocks(one, scale))) for one in low[part].cpu()]
        rows += [Row(small, "small"), Row([Tile(shown(one)) for one in truth[part].cpu()], "truth")]
    sizes = [f"{image.shape[-1]} × {image.shape[-2]}" for image in (low, truth)]
    draw_grid(rows, path, f"Training batch: {sizes[0]} pixels, to become {sizes[1]}", side=1.1)


def _row(example: Example, scale: int) -> Row:
    low, truth = example.low.cpu().float(), example.truth.cpu().float()
    bicubic = enlarged(low[None], scale)[0].round().clamp(0, PEAK)
    net, small = levels(example.answer.cpu()), blocks(low, scale)
    top, left = most_detailed(truth, scale)
    tiles = [
        Tile(shown(image[:, top : top + ZOOM, left : left + ZOOM]), title)
        for image, title in (
            (small, "small"),
            (bicubic, f"bicubic {_psnr(bicubic, truth, scale):.2f} dB"),
            (net, f"net {_psnr(net, truth, scale):.2f} dB"),
            (truth, "truth"),
        )
    ]
    return Row(tiles, example.name)


def _psnr(image: Tensor, truth: Tensor, scale: int) -> float:
    return psnr(*(shaved(on_luma(one[None]), scale) for one in (image, truth))).item()


def most_detailed(image: Tensor, scale: int, side: int = ZOOM) -> tuple[int, int]:
    """Top and left, multiples of the scale, of the square of so many pixels in which neighbours differ most."""
    gray = on_luma(image[None].float())
    if min(gray.shape[2:]) <= side:
        return 0, 0
    edges = (gray[..., 1:, 1:] - gray[..., :-1, 1:]).abs() + (gray[..., 1:, 1:] - gray[..., 1:, :-1]).abs()
    detail = F.avg_pool2d(edges, side - 1, stride=scale)[0, 0]
    row, column = divmod(int(detail.argmax()), detail.shape[1])
    return row * scale, column * scale


def shown(image: Tensor) -> np.ndarray:
    """Image (C, H, W) in 0..255 as RGB uint8 (H, W, 3); luma from 16 to 235 as gray from black to white."""
    values = image.float()
    if len(values) == 1:
        values = (values - 16) * (PEAK / 219)
    pixels = values.round().clamp(0, PEAK).to(torch.uint8).expand(3, -1, -1)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
