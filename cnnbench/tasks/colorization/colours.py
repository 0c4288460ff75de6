"""Colours of a data set: how often each of the 313 bins occurs in its training images, and which images have none."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench import data
from cnnbench.data import Arrays, Dataset, Source, image_names
from cnnbench.data.sources import open_image, read_item
from cnnbench.data.unreadable import report_left_out
from cnnbench.data.workers import for_each_image
from cnnbench.tasks.colorization.bins import COUNT, bins_of, smoothed
from cnnbench.tasks.colorization.lab import rgb_to_lab
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import are, plural
from cnnbench.utils.system import cores

IMAGES, PIXELS = 2000, 1_000_000  # from which the prior is counted, at most
GRAY = 4  # channels of a gray image differ by no more, as those of a JPEG do by rounding
MODES = ("1", "L", "LA", "La", "I", "F")  # of gray files


def prior(dataset: Dataset) -> list[float]:
    """Smoothed share of each bin among the colours of the training images: of evenly spaced images and pixels."""
    some = dataset.train.subset(data.evenly_spaced(dataset.train, IMAGES))
    size = dataset.image_size
    step = max(1, round((len(some) * size * size / PIXELS) ** 0.5))
    counts = torch.zeros(COUNT, dtype=torch.int64)
    for batch in data.eval_loader(some, dataset, image_size=size, batch_size=100, workers=0).epoch():
        ab = rgb_to_lab(batch["image"].cpu()[:, :, ::step, ::step])[:, 1:]
        counts += torch.bincount(bins_of(ab), minlength=COUNT)
    found: list[float] = smoothed(counts).tolist()
    return found


def checked_prior(given: Any, source: str) -> tuple[float, ...]:
    """Prior as it is stored with weights. UserError where it is none."""
    if not isinstance(given, list) or len(given) != COUNT or not all(isinstance(x, float) and x >= 0 for x in given):
        raise UserError(
            f"{source} does not say how often each of the {COUNT} colours occurs: it is no colorization net"
        )
    return tuple(given)


def check_colours(dataset: Dataset) -> None:
    """UserError, with the first of them, where images have no colours to learn from or to judge by.

    A data set that comes as it is (in memory) may hold a few; of files each is looked at.
    """
    for split, source in (("training", dataset.train), (dataset.split, dataset.val)):
        gray = gray_images(source)
        if not len(gray) or (isinstance(source, Arrays) and len(gray) < len(source) / 2):
            continue
        name, count = image_names(source, gray[:1])[0], plural(len(gray), f"{split} image")
        raise UserError(
            f"task=colorization learns from colours, but {count} of {len(source):,} {are(len(gray))} gray: {name}"
            + (", …" if len(gray) > 1 else "")
            + "\nTake gray images out, or leave them out by data.on_error=skip."
        )


def without_gray(dataset: Dataset) -> Dataset:
    """Data set without the files that have no colour, which are named on stderr."""
    found: list[str] = []

    def coloured(source: Source) -> Source:
        if isinstance(source, Arrays) or not len(gray := gray_images(source)):
            return source
        found.extend(f"{name} is gray" for name in image_names(source, gray))
        kept = torch.ones(len(source), dtype=torch.bool)
        kept[gray] = False
        return source.subset(kept.nonzero().flatten())

    left = dataset.changed(coloured)
    if found:
        report_left_out(tuple(found), f"{are(len(found))} gray")
    return left


def gray_images(source: Source) -> Tensor:
    """Numbers int64 of the images without colour."""
    if isinstance(source, Arrays):
        images = source.images.int()
        return ((images.amax(1) - images.amin(1)).flatten(1).amax(1) <= GRAY).nonzero().flatten().cpu()
    found = for_each_image(is_gray, source, cores(), "look for gray images")
    return torch.tensor([index for index, gray in enumerate(found) if gray], dtype=torch.int64)


def is_gray(item: Any) -> bool:
    """Whether an item of a source has no colour. A JPEG is decoded at an eighth of its size."""
    if isinstance(item, str):
        with open_image(item, item) as image:
            if image.mode in MODES or image.mode.startswith("I;"):
                return True
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            return spread(image.convert("RGB")) <= GRAY
    return spread(read_item(item)) <= GRAY


def spread(picture: Any) -> int:
    """Largest difference of two channels in a pixel of an image in RGB, from Pillow or uint8 (3, H, W)."""
    if isinstance(picture, Tensor):
        return int((picture.int().amax(0) - picture.int().amin(0)).max())
    from PIL import ImageChops

    red, green, blue = picture.split()
    pairs = ((red, green), (green, blue), (red, blue))
    return max(int(np.asarray(ImageChops.difference(one, other)).max()) for one, other in pairs)
