"""`what=maps`: feature maps of images, of the layers in `layer=` or of all stages in one picture."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnbench.output.image_grid import Row, Tile, draw_grid, in_rows
from cnnbench.output.rgb import colour_mapped, finite_array, to_rgb
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import number_text
from cnnbench.visual.context import ShownImage, VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import LayerView, layer_maps, spread_names, stage_names

MAPS = 64  # of a layer
OVERVIEW = 8  # maps of each stage where all stages are drawn together
MANY_STAGES = 6  # rows of such an overview


@dataclass(frozen=True, eq=False)
class MapImage:
    """Feature map of one unit as an RGB array, with its smallest and largest value."""

    unit: int
    picture: np.ndarray
    low: float
    high: float


def draw_maps(context: VisualizeContext) -> Iterator[Picture]:
    """For each image: a picture of each layer in `layer=`, else an overview of the stages."""
    shown = context.images
    views = context.layer_views(context.layers or spread_names(stage_names(context.model), MANY_STAGES))
    if flat := [view.name for view in views if not view.has_maps]:
        if context.layers:
            raise UserError(f"{flat[0]} gives one number for each unit, not a feature map: choose an earlier layer")
        views = [view for view in views if view.has_maps]
    images = torch.stack([one.pixels for one in shown])
    with torch.no_grad(), context.runtime.autocast():
        found = layer_maps(context.model, context.normalize(images), views)
    for number, one in enumerate(shown):
        maps = {view.name: found[view.name][number].float().cpu() for view in views}
        for values in maps.values():
            finite_array(values)
        if context.layers:
            for view in views:
                yield _draw_layer(context, view, maps[view.name], one, number)
        else:
            yield _draw_overview(context, views, maps, one, number)


def _draw_overview(
    context: VisualizeContext, views: list[LayerView], maps: dict[str, Tensor], image: ShownImage, number: int
) -> Picture:
    rows: list[Row] = []
    for view in views:
        values = maps[view.name]
        first = [] if rows else [Tile(to_rgb(image.pixels), "the image")]
        drawn = render_maps(values, most_varied_units(values, OVERVIEW - len(first)))
        tiles = [*first, *(Tile(one.picture, f"unit {one.unit}") for one in drawn)]
        rows.append(Row(tiles, f"{view.name}\n{view.shape[0]} × {view.shape[1]} × {view.shape[2]}"))
    title = f"{context.heading}: feature maps of its stages for “{image.name}”"
    legend = "Dark to bright: each map from its smallest to its largest value. Of each stage, the maps that vary most."
    caption = f"Feature maps from the first stage to the last. {legend}"
    picture = context.new_picture("maps", f"maps-{number}", title, caption)
    draw_grid(rows, picture.path, title, side=1.05, footer=legend, font=8)
    return picture


def _draw_layer(context: VisualizeContext, view: LayerView, values: Tensor, image: ShownImage, number: int) -> Picture:
    units = context.units(view) or most_varied_units(values, MAPS)
    tiles = [
        Tile(one.picture, str(one.unit), f"{number_text(one.low)} … {number_text(one.high)}")
        for one in render_maps(values, units)
    ]
    title = f"{context.heading}: feature maps of {view.name} for “{image.name}”"
    legend = "Dark to bright: each map from its smallest to its largest value. Above: the unit. Below: both values."
    if len(units) < view.units and context.cfg.units is None:
        legend = f"{legend} Shown: the {len(units)} of {view.units} maps that vary most."
    picture = context.new_picture("maps", f"maps-{number}-{view.name}", title, legend)
    draw_grid(in_rows(tiles), picture.path, title, side=0.95, footer=legend, font=7)
    return picture


def most_varied_units(maps: Tensor, count: int) -> list[int]:
    """The `count` units whose maps (C, H, W) vary most over the positions, in ascending order. The border is left out:
    a map that only answers to the padding shows nothing."""
    inside = maps[:, 1:-1, 1:-1] if min(maps.shape[1:]) > 4 else maps
    deviation = inside.flatten(1).std(1, correction=0)
    return sorted(deviation.topk(min(count, len(deviation))).indices.tolist())


def render_maps(maps: Tensor, units: list[int]) -> list[MapImage]:
    """Images of the maps (C, H, W) of these units, each from its own smallest to its own largest value."""
    found = []
    for unit in units:
        values = torch.nan_to_num(maps[unit].float())
        low, high = float(values.min()), float(values.max())
        found.append(MapImage(unit, colour_mapped(values, low, high), low, high))
    return found
