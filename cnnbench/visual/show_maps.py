"""`what=maps`: the feature maps of images, of the layers named or of all stages in one picture."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cnnbench.utils.errors import UserError
from cnnbench.visual import maps, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.places import Place, look, some, stages
from cnnbench.visual.sheet import Row, Tile, as_picture, number_text
from cnnbench.visual.studio import Studio

MAPS = 64  # units of a layer that are drawn
OVERVIEW = 8  # maps of each stage when all stages are drawn together
MANY_STAGES = 6  # rows of such an overview


def draw_maps(studio: Studio) -> Iterator[Picture]:
    """The feature maps of each image: of the layers named, or an overview of all stages."""
    shown = studio.shown
    names = studio.layers or some(stages(studio.model), MANY_STAGES)
    places = studio.places(names)
    if flat := [place.name for place in places if not place.has_maps]:
        if studio.layers:
            raise UserError(f"{flat[0]} gives one number for each unit and no maps: choose a layer before it")
        places = [place for place in places if place.has_maps]
    images = torch.stack([one.pixels for one in shown])
    with torch.no_grad(), studio.runtime.autocast():
        found = look(studio.model, studio.normalize(images), places)
    for number, one in enumerate(shown):
        own = {place.name: found[place.name][number].float().cpu() for place in places}
        if studio.layers:
            for place in places:
                yield _layer_maps(studio, place, own[place.name], one.name, number)
        else:
            yield _overview(studio, places, own, one.name, one.pixels, number)


def _overview(studio: Studio, places: list[Place], own: dict[str, Tensor], name: str, pixels: Tensor,
              number: int) -> Picture:  # fmt: skip
    rows: list[Row] = []
    for place in places:
        values = own[place.name]
        first = [] if rows else [Tile(as_picture(pixels), "the image")]
        drawn = maps.draw(values, maps.strongest(values, OVERVIEW - len(first)))
        tiles = [*first, *(Tile(one.picture, f"unit {one.unit}") for one in drawn)]
        rows.append(Row(tiles, f"{place.name}\n{place.shape[0]} × {place.shape[1]} × {place.shape[2]}"))
    title = f"{studio.title}: what its stages make of “{name}”"
    legend = "Dark to bright: each map from its smallest to its largest value; the maps that vary most of each stage."
    found = studio.picture("maps", f"maps-{number}", title,
                           f"Feature maps from the first stage to the last. {legend}")  # fmt: skip
    sheet.draw(rows, found.path, title, side=1.05, footer=legend, font=8)
    return found


def _layer_maps(studio: Studio, place: Place, values: Tensor, name: str, number: int) -> Picture:
    units = studio.units(place) or maps.strongest(values, MAPS)
    tiles = [
        Tile(one.picture, str(one.unit), f"{number_text(one.low)} … {number_text(one.high)}")
        for one in maps.draw(values, units)
    ]
    title = f"{studio.title}: maps of {place.name} for “{name}”"
    legend = "Dark to bright: each map from its smallest to its largest value, which stand below; above: the unit."
    if len(units) < place.units and studio.cfg.units is None:
        legend = f"{legend} The {len(units)} of {place.units} maps that vary most."
    found = studio.picture("maps", f"maps-{number}-{place.name}", title, legend)
    sheet.draw(sheet.grid(tiles), found.path, title, side=0.95, footer=legend, font=7)
    return found
