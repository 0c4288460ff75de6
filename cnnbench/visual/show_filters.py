"""`what=filters`: the first convolution's filters as pictures, a deeper one's by slices."""

from collections.abc import Iterator

from torch import Tensor

from cnnbench.visual import filters, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.places import choose_units, spread
from cnnbench.visual.sheet import Row, Tile
from cnnbench.visual.studio import Studio

SHOWN = 256
NUMBERED = 128  # filters up to which each has its number
SLICED = 12  # filters of a deeper layer that are shown


def draw_filters(studio: Studio) -> Iterator[Picture]:
    """The first convolution's filters, or a deeper one's by slices."""
    for asked in studio.layers or [""]:
        name, layer = filters.find(studio.model, asked)
        weight = layer.weight.detach().float().cpu()
        pictorial = weight.shape[1] in (1, 3)
        yield _filter_pictures(studio, name, weight) if pictorial else _filter_slices(studio, name, weight)


def _filter_pictures(studio: Studio, name: str, weight: Tensor) -> Picture:
    cfg = studio.cfg
    units = choose_units(cfg.units, len(weight), name) or filters.order(weight, cfg.sort.value)[:SHOWN]
    together = cfg.normalize.value == "together"
    drawn = filters.pictures(weight, together)
    tiles = [Tile(drawn[unit], str(unit) if len(units) <= NUMBERED else "") for unit in units]
    columns = sheet.best_columns(len(tiles))
    title = f"{studio.title}: the {len(tiles)} filters of {name}, {_kernel(weight)}"
    scale = "one scale for all" if together else "each on its own scale"
    order = {"colour": "gray ones from coarse to fine, then by hue", "frequency": "from coarse to fine",
             "none": "in the net's order"}[cfg.sort.value] if cfg.units is None else "as asked for"  # fmt: skip
    found = studio.picture("filters", f"filters-{name}", title,
                           f"What the first layer looks for. Middle gray is a weight of zero, {scale}; {order}. "
                           "The number above a filter is that of its unit.")  # fmt: skip
    sheet.draw(sheet.grid(tiles, columns), found.path, title, side=min(0.95, 8.5 / columns), font=6.5,
               footer=f"Middle gray is zero, {scale}; {order}.")  # fmt: skip
    return found


def _filter_slices(studio: Studio, name: str, weight: Tensor) -> Picture:
    units = choose_units(studio.cfg.units, len(weight), name) or spread(len(weight), SLICED)
    channels = filters.strongest_slices(weight, units)
    largest = float(weight[units].abs().max())
    rows = [
        Row([Tile(picture, title=str(channel) if number == 0 else "")
             for channel, picture in zip(channels, filters.slices(weight, unit, channels, largest), strict=True)],
            f"unit {unit}")
        for number, unit in enumerate(units)
    ]  # fmt: skip
    title = f"{studio.title}: filters of {name}, {_kernel(weight)}, by slices"
    shown = f"{len(channels)} of {weight.shape[1]} input channels, those weighed most" if (
        len(channels) < weight.shape[1]) else f"all {len(channels)} input channels"  # fmt: skip
    legend = f"Orange is above zero, purple below, full at ±{largest:.2g}; columns: {shown}."
    found = studio.picture("filters", f"filters-{name}", title,
                           f"A deeper filter has a slice of weights for each channel below it. {legend}")  # fmt: skip
    sheet.draw(rows, found.path, title, side=0.38, font=7, footer=legend)
    return found


def _kernel(weight: Tensor) -> str:
    return f"{weight.shape[1]} × {weight.shape[2]} × {weight.shape[3]}"
