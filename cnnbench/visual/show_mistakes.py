"""`what=mistakes`: the wrong answers that the net was surest of."""

from collections.abc import Iterator

from cnnbench.tasks.measure import progress
from cnnbench.utils.errors import UserError
from cnnbench.visual import mistakes, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.studio import Studio


def draw_mistakes(studio: Studio) -> Iterator[Picture]:
    studio.check_channels()
    if list(studio.dataset.classes) != list(studio.classes):
        raise UserError(
            f"what=mistakes needs data of the net's own classes: {studio.source} was trained for others than "
            f"those of {studio.data_name}"
        )
    source = studio.looked_through
    with progress(len(source), "mistakes") as advance:
        found = mistakes.find(
            studio.model, studio.batches(source), source.targets, studio.runtime, studio.normalize, advance
        )
    pixels = studio.pixels(source, found.indices.tolist())
    title = mistakes.title(studio.title, found, f"{studio.split} images of {studio.data_name}")
    picture = studio.picture("mistakes", "mistakes", title, mistakes.LEGEND)
    tiles = mistakes.tiles(found, list(pixels), source.targets, studio.classes)
    sheet.draw(sheet.grid(tiles), picture.path, title, side=1.5, footer=mistakes.LEGEND)
    yield picture
