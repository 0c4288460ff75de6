"""`what=maximize`: images made from noise to excite classes, or the units of a layer."""

from collections.abc import Iterator

from cnnbench.tasks.measure import progress
from cnnbench.visual import maximize, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.places import HEAD, spread
from cnnbench.visual.sheet import Tile, as_picture, number_text
from cnnbench.visual.studio import Studio

UNITS = 10


def draw_maximize(studio: Studio) -> Iterator[Picture]:
    """For each layer: images that excite some of its units most, made from noise. The head's units are the classes."""
    studio.check_channels()
    for place in studio.places(studio.layers or [HEAD]):
        units = studio.units(place) or spread(place.units, UNITS + 1)
        with progress(len(units) * studio.cfg.steps, f"maximize {place.name}", "step") as advance:
            found = maximize.maximise(
                studio.model, place, units, studio.runtime, studio.normalize, channels=studio.channels,
                size=studio.size, steps=studio.cfg.steps, seed=studio.cfg.seed, batch=studio.batch(16),
                progress=advance,
            )  # fmt: skip
        tiles = [Tile(as_picture(one.image), studio.classes[one.unit] if place.name == HEAD else f"unit {one.unit}",
                      f"{number_text(one.before)} → {number_text(one.after)}") for one in found]  # fmt: skip
        what = "classes" if place.name == HEAD else f"units of {place.name}"
        title = f"{studio.title}: images made to excite its {what}"
        legend = (
            f"Found by {studio.cfg.steps} steps of gradient ascent from noise. Below: the answer to the noise → to the "
            f"image{' (the logit of the class)' if place.name == HEAD else ', the mean over all places'}."
        )
        picture = studio.picture("maximize", f"maximize-{place.name}", title, legend)
        sheet.draw(sheet.grid(tiles), picture.path, title, side=1.9 if studio.size > 64 else 1.5, footer=legend)
        yield picture
