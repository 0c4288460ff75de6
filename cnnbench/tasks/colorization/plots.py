"""Pictures of a colorization: a batch, gray | answer | truth, the errors of ab, the colours that are used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from cnnbench.output.batch_grid import draw_picture, first_pictures, picture_boxes
from cnnbench.output.figure import BLUE, VERMILLION, array, new_figure, save_figure
from cnnbench.output.image_grid import Row, Tile, draw_grid
from cnnbench.tasks.colorization import AUC, AUC_REBALANCED
from cnnbench.tasks.colorization.bins import centres
from cnnbench.tasks.colorization.lab import lab_to_rgb
from cnnbench.tasks.colorization.metrics import THRESHOLDS, auc
from cnnbench.tasks.psnr import psnr

SHOWN = 10  # images side by side
SIDE = 1.1  # inches of each
LIGHT = 65.0  # lightness at which most of the 313 colours can be told apart


def with_colours(lab: Tensor, ab: Tensor | float) -> Tensor:
    """Images uint8 (N, 3, H, W) with the lightness of Lab (N, 3, H, W) and colours (N, 2, H, W), or 0 for gray."""
    colours = ab if isinstance(ab, Tensor) else torch.full_like(lab[:, 1:], ab)
    return lab_to_rgb(torch.cat([lab[:, :1], colours], dim=1))


def plot_batch(lab: Tensor, path: str | Path) -> Figure:
    """Draw the first images of a batch, Lab (N, 3, H, W): what the net sees, and beside it what it is to answer."""
    both = first_pictures(torch.cat([with_colours(lab, 0.0), lab_to_rgb(lab)], dim=3))
    height, width = lab.shape[2:]
    title = f"Training batch: what the net sees, and the colours it is to find; {width} × {height} pixels"
    figure, ax, boxes, _ = picture_boxes(both, title, lines=0)
    for box, picture in zip(boxes, both, strict=True):
        draw_picture(ax, box, picture)
    return save_figure(figure, path)


def plot_answers(lab: Tensor, ab: Tensor, path: str | Path, title: str) -> Figure:
    """Draw gray | answer | truth, a column for each of some images: Lab (N, 3, H, W), and the answer's ab."""
    some = torch.linspace(0, len(lab) - 1, min(SHOWN, len(lab))).long()
    lab, ab = lab[some], ab[some]
    answer, truth = with_colours(lab, ab), lab_to_rgb(lab)
    notes = [f"{decibel:.1f} dB" for decibel in psnr(answer, truth).tolist()]
    rows = [_row("gray", with_colours(lab, 0.0)), _row("answer", answer, notes), _row("truth", truth)]
    footer = "Under each answer its PSNR, which is low too where a likely colour is not the true one."
    return draw_grid(rows, path, title, side=SIDE, footer=footer)


def _row(name: str, images: Tensor, notes: Sequence[str] = ()) -> Row:
    pictures = array(images).transpose(0, 2, 3, 1)
    return Row([Tile(picture, note=notes[at] if notes else "") for at, picture in enumerate(pictures)], name)


def plot_errors(errors: Tensor, path: str | Path, title: str) -> Figure:
    """Draw the share of pixels within each error of ab, of all pixels and averaged over the bins of true colours.

    errors: pixels (313, 152) by true bin and least threshold. The area under a curve is its AuC.
    """
    counts = array(errors).astype(float)
    shares = counts.cumsum(1)[:, :THRESHOLDS]
    pixels, areas = counts.sum(1), auc(errors)
    seen = pixels > 0
    figure = new_figure(6.4, 4.2, title)
    ax = figure.subplots()
    curves = (
        ("all pixels", AUC, BLUE, "-", shares.sum(0) / pixels.sum()),
        ("each colour alike", AUC_REBALANCED, VERMILLION, "--", (shares[seen] / pixels[seen, None]).mean(0)),
    )
    for name, metric, color, line, curve in curves:
        ax.plot(100 * curve, color=color, linestyle=line, label=f"{name}: {metric.text(areas[metric.name])}")
    ax.set(xlabel="error of ab", ylabel="pixels within it, %", xlim=(0, THRESHOLDS - 1), ylim=(0, 101))
    ax.legend(loc="lower right", frameon=False)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def plot_colours(truth: Tensor, answer: Tensor, path: str | Path, title: str) -> Figure:
    """Draw the 313 bins of ab in their colours, and how often each occurs in the truth and in the answers, (313,)."""
    figure = new_figure(10.4, 4.0, title)
    first, *others = figure.subplots(1, 3, sharey=True)
    _bins(first, "the 313 colours", c=array(_swatches()) / 255)
    shares = [100 * array(counts).astype(float) / max(int(counts.sum()), 1) for counts in (truth, answer)]
    norm = LogNorm(1e-4, 30)
    for ax, name, share in zip(others, ("truth", "answers"), shares, strict=True):
        drawn = _bins(ax, f"{name}: {int((share > 0).sum())} of them", c=np.where(share > 0, share, np.nan), norm=norm)
    bar = figure.colorbar(drawn, ax=others, shrink=0.8, pad=0.02)
    bar.set_ticks([1e-4, 1e-3, 1e-2, 0.1, 1, 10], labels=["0.0001", "0.001", "0.01", "0.1", "1", "10"])
    bar.set_label("pixels, %")
    return save_figure(figure, path)


def _bins(ax: Axes, title: str, **style: Any) -> PathCollection:
    points = array(centres())
    ax.set(title=title, xlabel="b: blue to yellow", xlim=(-118, 112), ylim=(112, -102), aspect="equal")
    ax.title.set_fontsize(9)
    ax.tick_params(labelsize=8)
    if title.startswith("the"):
        ax.set_ylabel("a: red to green")
    ax.scatter(points[:, 1], points[:, 0], s=28, marker="s", facecolor="none", edgecolor="#dddddd", linewidth=0.4)
    return ax.scatter(points[:, 1], points[:, 0], s=28, marker="s", linewidth=0, **style)


def _swatches() -> Tensor:
    """Colours uint8 (313, 3) of the bins at one lightness."""
    ab = centres()
    lab = torch.cat([torch.full((len(ab), 1), LIGHT), ab], dim=1)
    return lab_to_rgb(lab[..., None, None])[..., 0, 0]
