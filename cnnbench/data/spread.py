"""Whether the images of a set differ enough for a net to tell them apart: constant ones train to chance in silence."""

import io
from typing import Any

import torch
from torch import Tensor

from cnnbench.data.geometry import as_tensor
from cnnbench.data.shards import Packed
from cnnbench.data.sources import Arrays, Pair, Source, evenly_spaced, open_image, read_bytes, upright
from cnnbench.utils.errors import UserError

SAMPLE, SIDE = 32, 16  # images, and pixels of a side that are looked at in each
LITTLE = 4.0  # levels of 0..255; photographs have about 60, digits 80


def hardly_differ(source: Source) -> str:
    """Sentence where a pixel has nearly the same value in all images of a sample; empty where they differ."""
    chosen = evenly_spaced(source, SAMPLE)
    if isinstance(source, Arrays):
        images = source.images[chosen.to(source.images.device)].float()
    else:
        found = [pixels for index in chosen.tolist() if (pixels := _small(source.item(index))) is not None]
        images = torch.stack(found).float() if found else torch.empty(0)
    if len(images) < 2 or (varies := float(images.var(0, correction=0).mean().sqrt())) >= LITTLE:
        return ""
    return (
        f"the images hardly differ: in {len(images)} of them a pixel varies by {varies:.1f} of 255 levels "
        "(photographs: 60); their files may use a part of their range alone, as 12 of 16 bits (docs/your-data.md)"
    )


def shorter_side(source: Source) -> int:
    """Shorter side of a typical image in pixels: the median of a sample; 0 where none can be read."""
    if isinstance(source, Arrays):
        return min(source.images.shape[2:])
    chosen = evenly_spaced(source, SAMPLE).tolist()
    items = [source.item(index) for index in chosen]
    sides = sorted(
        min(item.width, item.height) if isinstance(source, Packed) else _shorter_side(item) for item in items
    )
    return sides[len(sides) // 2] if sides else 0


def _shorter_side(item: Any) -> int:
    try:
        with open_image(item, item) as image:
            return min(image.size)
    except UserError:
        return 0


def _small(item: Any) -> Tensor | None:
    """Some pixels of an image, uint8 (3, SIDE, SIDE), not averaged; None where it cannot be read."""
    from PIL.Image import Resampling

    path = item.image if isinstance(item, Pair) else item
    try:
        with open_image(io.BytesIO(read_bytes(path)), path) as image:
            image.draft("RGB", (4 * SIDE, 4 * SIDE))
            return as_tensor(upright(image).resize((SIDE, SIDE), Resampling.NEAREST))
    except UserError:
        return None
