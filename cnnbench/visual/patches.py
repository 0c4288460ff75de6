"""`what=patches`: the image patches that excite the units of a layer most, cut out by their receptive fields.

As in Girshick et al. (2014), figure 4, and Zeiler and Fergus (2014), figure 2: the strongest position of each image
counts, and the top-k images of each unit are kept. Memory is bounded: of each batch only (units, k) numbers stay.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnbench.data import Batch
from cnnbench.models.layers import Net
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.output.rgb import mosaic, to_rgb
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.measurement import progress
from cnnbench.utils.format import number_text, plural
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import HEAD, LayerView, layer_maps, spread_names, stage_names

UNITS = 10  # of a layer
LAYERS = 4  # where `layer=` names none
OUTSIDE = 160  # gray of the padding, outside the image


@dataclass(eq=False)
class TopImages:
    """The k images with the strongest activation of each unit of a layer, best first: (units, k) each. `index` is -1
    where there are fewer than k images."""

    view: LayerView
    value: Tensor
    index: Tensor  # of the image
    position: Tensor  # of the strongest activation: row * columns + column
    total: Tensor  # (units,): sum over all images of their strongest activation
    seen: int = 0

    @property
    def mean(self) -> Tensor:
        return self.total / max(self.seen, 1)

    def add(self, maps: Tensor) -> None:
        """Take in the maps (N, units, rows, columns) of the next N images."""
        values, positions = maps.float().flatten(2).max(2)
        values, positions = values.T.cpu(), positions.T.cpu()
        index = torch.arange(self.seen, self.seen + len(maps)).expand(len(values), -1)
        self.total += values.sum(1, dtype=self.total.dtype)
        self.seen += len(maps)
        merged = [
            torch.cat(pair, 1) for pair in ((self.value, values), (self.index, index), (self.position, positions))
        ]
        kept = merged[0].topk(self.value.shape[1], dim=1).indices
        self.value, self.index, self.position = (part.gather(1, kept) for part in merged)


def no_images(view: LayerView, k: int) -> TopImages:
    """TopImages before the first image."""
    missing = torch.full((view.units, k), -1)
    return TopImages(view, torch.full((view.units, k), -torch.inf), missing, missing.clone(),
                     torch.zeros(view.units, dtype=torch.float64))  # fmt: skip


@torch.no_grad()
def find_top_images(
    model: Net, batches: Iterable[Batch], views: Sequence[LayerView], k: int, runtime: Runtime, normalize: Normalize,
    advance: Callable[[int], object],
) -> list[TopImages]:  # fmt: skip
    """The top-k images of each unit of each layer, found in one pass over the images."""
    top = [no_images(view, k) for view in views]
    for batch in batches:
        images = batch["image"]
        with runtime.autocast():
            found = layer_maps(model, normalize(images), views)
        for one in top:
            one.add(found[one.view.name])
        advance(len(images))
    return top


def distinctive_units(top: TopImages, count: int) -> list[int]:
    """The `count` units to show, in ascending order: of the head the classes with the strongest answers, of a layer
    the units whose strongest activations stand out most from their mean over all images."""
    score = strongest = top.value.mean(1).double()
    if top.view.name != HEAD:
        # A unit that is never active has nothing to show.
        score = torch.where(strongest > 1e-6, strongest / top.mean.abs().clamp_min(1e-6), 0.0)
    return sorted(score.topk(min(count, len(score))).indices.tolist())


def crop_patch(image: Tensor, window: tuple[int, int, int, int]) -> np.ndarray:
    """RGB array of the image, uint8 (C, H, W), inside the window (top, left, bottom, right). The padding is gray. A
    side of the window that is longer than the image is cut to the image."""
    height, width = image.shape[1:]
    (top, bottom), (left, right) = _clipped(window[0], window[2], height), _clipped(window[1], window[3], width)
    whole = np.full((bottom - top, right - left, 3), OUTSIDE, np.uint8)
    inside = to_rgb(image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)])
    y, x = max(-top, 0), max(-left, 0)
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return whole


def _clipped(low: int, high: int, length: int) -> tuple[int, int]:
    return (0, length) if high - low >= length else (low, high)


def draw_patches(context: VisualizeContext) -> Iterator[Picture]:
    """A picture for each layer, by default for some of the stages and the head."""
    context.check_channels()
    views = context.layer_views(
        context.layers or spread_names([*stage_names(context.model), *([HEAD] if context.classes else [])], LAYERS)
    )
    source = context.searched
    k = min(context.cfg.top, len(source))
    with progress(len(source), "patches") as advance:
        found = find_top_images(
            context.model, context.batches(source), views, k, context.runtime, context.normalize, advance
        )
    for top in found:
        yield _draw_layer(context, top, context.units(top.view) or distinctive_units(top, UNITS))


def _draw_layer(context: VisualizeContext, top: TopImages, units: list[int]) -> Picture:
    view = top.view
    where = "its classes" if view.name == HEAD else view.name
    title = (f"{context.title}: what excites {where} most, of {len(context.searched):,} {context.split} images of "
             f"{context.data_name}")  # fmt: skip
    legend = _legend(context, top, units)
    picture = context.new_picture("patches", f"patches-{view.name}", title, legend)
    draw_grid(in_rows(_tiles(context, top, units)), picture.path, title, side=2.0, footer=legend)
    return picture


def _tiles(context: VisualizeContext, top: TopImages, units: list[int]) -> list[Tile]:
    """A tile for each unit: its patches as a mosaic."""
    view = top.view
    wanted = sorted({int(index) for unit in units for index in top.index[unit] if index >= 0})
    pixels = dict(zip(wanted, context.pixels(context.searched, wanted), strict=True))
    tiles = []
    for unit in units:
        crops = [
            crop_patch(pixels[int(index)], view.window(*divmod(int(position), view.shape[2])))
            for index, position in zip(top.index[unit], top.position[unit], strict=True)
        ]
        name = context.classes[unit] if view.name == HEAD else f"unit {unit}"
        picture = mosaic(_zoomed(crops), max(1, round(len(crops) ** 0.5)), gap=3)
        strongest, mean = (number_text(float(value)) for value in (top.value[unit, 0], top.mean[unit]))
        tiles.append(Tile(picture, name, f"{strongest}, mean {mean}"))
    return tiles


def _legend(context: VisualizeContext, top: TopImages, units: list[int]) -> str:
    view = top.view
    upper, left, lower, right = view.window(0, 0)
    field = f"{min(lower - upper, context.size)} × {min(right - left, context.size)}"
    legend = (
        f"The {plural(top.value.shape[1], 'image')} that excite a unit most, cut to its receptive field: {field} "
        "pixels. Below: its strongest activation, and the mean of the strongest activation of each image."
    )
    if context.cfg.units is None and len(units) < view.units:
        how = "with the strongest activations" if view.name == HEAD else "whose strongest activations stand out most"
        legend += f" Shown: the {len(units)} of {view.units} units {how}."
    return legend


def _zoomed(crops: list[np.ndarray]) -> list[np.ndarray]:
    """Small patches enlarged by a whole number, so that the lines of the mosaic are thin beside them."""
    zoom = max(1, 90 // max(crops[0].shape[:2]))
    return [crop.repeat(zoom, 0).repeat(zoom, 1) for crop in crops]
