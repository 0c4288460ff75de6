"""`what=patches`: the patches of images that excite the units of a layer most."""

from collections.abc import Iterator

from cnnbench.tasks.measure import progress
from cnnbench.visual import patches, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.places import HEAD, some, stages
from cnnbench.visual.sheet import Tile, number_text
from cnnbench.visual.studio import Studio

UNITS = 10  # whose patches are drawn
LAYERS = 4  # where none is named


def draw_patches(studio: Studio) -> Iterator[Picture]:
    """For each layer: the patches of images that excite some of its units most."""
    studio.check_channels()
    names = studio.layers or some([*stages(studio.model), HEAD], LAYERS)
    places = studio.places(names)
    source, top = studio.looked_through, min(studio.cfg.top, len(studio.looked_through))
    with progress(len(source), "patches") as advance:
        found = patches.search(
            studio.model, studio.batches(source), places, top, studio.runtime, studio.normalize, advance
        )
    for best in found:
        place = best.place
        units = studio.units(place) or patches.telling(best, UNITS)
        yield _patch_sheet(studio, best, units)


def _patch_sheet(studio: Studio, best: patches.Best, units: list[int]) -> Picture:
    place, source = best.place, studio.looked_through
    wanted = sorted({int(index) for unit in units for index in best.index[unit] if index >= 0})
    pixels = dict(zip(wanted, studio.pixels(source, wanted), strict=True))
    tiles = []
    for unit in units:
        crops = [
            patches.crop(pixels[int(index)], place.window(*divmod(int(where), place.shape[2])))
            for index, where in zip(best.index[unit], best.where[unit], strict=True)
        ]
        columns = max(1, round(len(crops) ** 0.5))
        name = studio.classes[unit] if place.name == HEAD else f"unit {unit}"
        picture = sheet.mosaic(_zoomed(crops), columns, gap=3)
        strongest, mean = (number_text(float(value)) for value in (best.value[unit, 0], best.mean[unit]))
        tiles.append(Tile(picture, name, f"{strongest}, on average {mean}"))
    where = "its classes" if place.name == HEAD else place.name
    top, left, bottom, right = place.window(0, 0)
    field = f"{min(bottom - top, studio.size)} × {min(right - left, studio.size)}"
    title = (f"{studio.title}: what excites {where} most, of {len(source):,} {studio.split} images of "
             f"{studio.data_name}")  # fmt: skip
    legend = (
        f"The {best.value.shape[1]} images that a unit answers most, cut out where it sees them: {field} pixels. "
        "Below: its strongest answer, and that to an average image."
    )
    if studio.cfg.units is None and len(units) < place.units:
        how = "with the strongest answers" if place.name == HEAD else "whose strongest answers stand out most"
        legend += f" The {len(units)} of {place.units} units {how}."
    found = studio.picture("patches", f"patches-{place.name}", title, legend)
    sheet.draw(sheet.grid(tiles), found.path, title, side=2.0, footer=legend)
    return found


def _zoomed(crops: list) -> list:
    """Patches of a few pixels enlarged by a whole number, so that lines between them are thin beside them."""
    zoom = max(1, 90 // max(crops[0].shape[:2]))
    return [crop.repeat(zoom, 0).repeat(zoom, 1) for crop in crops]
