"""Sizes of the images of a source, of which a few are looked at."""

from contextlib import suppress
from statistics import median

from PIL import Image

from cnnbench.data.sources import Arrays, Files, Source

LOOKED_AT = 9


def usual_side(source: Source) -> int | None:
    """Shorter side that images of a source have, pixels: the median of a few. None where no file says its size."""
    if isinstance(source, Arrays):
        return min(source.images.shape[2:])
    if not isinstance(source, Files):
        return None
    sides, step = [], max(1, len(source.paths) // LOOKED_AT)
    for path in source.paths[::step][:LOOKED_AT]:
        with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            sides.append(min(image.size))
    return int(median(sides)) if sides else None
