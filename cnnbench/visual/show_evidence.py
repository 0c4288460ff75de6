"""`what=gradcam`, `occlusion`, `saliency`: where in an image the evidence for a class lies."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cnnbench.tasks.measure import progress
from cnnbench.utils.errors import UserError
from cnnbench.visual import attribution, sheet
from cnnbench.visual.page import Picture
from cnnbench.visual.places import stages
from cnnbench.visual.sheet import Tile, as_picture
from cnnbench.visual.studio import Studio


def draw_gradcam(studio: Studio) -> Iterator[Picture]:
    images, targets, probabilities = _questions(studio)
    (place,) = studio.places((studio.layers or [_last_maps(studio)])[:1])
    if not place.has_maps:
        raise UserError(
            f"Grad-CAM needs maps, and {place.name} gives one number for each unit: choose a layer before it"
        )
    heat = torch.cat([
        attribution.gradcam(studio.model, part, goal, studio.normalize, place)
        for part, goal in _parts(studio, images, targets)
    ])  # fmt: skip
    legend = (
        f"Grad-CAM (Selvaraju et al., 2017) at {place.name}, {place.shape[1]} × {place.shape[2]} places: bright is "
        "where the maps speak for the class, each image up to its own largest value."
    )
    yield _evidence(
        studio, "gradcam", f"evidence by Grad-CAM at {place.name}", legend, images, targets, probabilities, heat
    )


def draw_saliency(studio: Studio) -> Iterator[Picture]:
    images, targets, probabilities = _questions(studio)
    heat = torch.cat([
        attribution.saliency(studio.model, part, goal, studio.normalize, studio.cfg.seed)
        for part, goal in _parts(studio, images, targets)
    ])  # fmt: skip
    legend = (
        "Bright pixels move the class's logit most, either way (Simonyan et al., 2014; the mean over "
        f"{attribution.SAMPLES} noisy copies, Smilkov et al., 2017), each image up to its own largest value."
    )
    yield _evidence(studio, "saliency", "the pixels that move its answer", legend, images, targets, probabilities, heat)


def draw_occlusion(studio: Studio) -> Iterator[Picture]:
    images, targets, probabilities = _questions(studio)
    with progress(len(images), "occlusion") as advance:
        heat = attribution.occlusion(
            studio.model, images, targets, studio.normalize, batch=studio.batch(), progress=advance
        )
    legend = (
        "Orange: hiding this place with a gray square lowers the class's probability; purple: hiding it helps (Zeiler "
        "and Fergus, 2014). Below: the largest fall, in points of a hundred."
    )
    yield _evidence(
        studio, "occlusion", "what it misses when it is hidden", legend, images, targets, probabilities, heat
    )


def _questions(studio: Studio) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 (N, C, S, S), the class that each is asked about, and its probability."""
    images = torch.stack([one.pixels for one in studio.shown])
    logits = studio.logits(images)
    targets = studio.targets(logits)
    return images, targets, logits.softmax(1).gather(1, targets[:, None])[:, 0].cpu()


def _parts(studio: Studio, images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, studio.batch(16) // 2)  # gradients take as much memory again
    yield from zip(images.split(size), targets.split(size), strict=True)


def _evidence(
    studio: Studio, what: str, title: str, legend: str, images: Tensor, targets: Tensor,
    probabilities: Tensor, heat: Tensor,
) -> Picture:  # fmt: skip
    """Image and evidence side by side, two pairs to a row."""
    tiles = []
    for one, image, target, probability, values in zip(
        studio.shown, images, targets.tolist(), probabilities.tolist(), heat.cpu(), strict=True
    ):
        signed = what == "occlusion"
        note = f"falls by {100 * max(float(values.max()), 0):.2g}" if signed else ""
        tiles += [
            Tile(as_picture(image), one.name, marked=one.target is not None and one.target != target),
            Tile(sheet.overlay(image, values, signed), f"{studio.classes[target]} {100 * probability:.0f} %", note),
        ]
    rows = sheet.grid(tiles, 4 if len(tiles) > 2 else 2)
    marked = " A frame around an image: the class in question is not its own." if any(t.marked for t in tiles) else ""
    title = f"{studio.title}: {title}"
    found = studio.picture(what, what, title, legend + marked)
    sheet.draw(rows, found.path, title, side=2.2, footer=legend + marked)
    return found


def _last_maps(studio: Studio) -> str:
    """The last stage that still has maps."""
    names = stages(studio.model)
    with_maps = [place.name for place in studio.places(names) if place.has_maps]
    if not with_maps:
        raise UserError(f"{studio.title} has no stage with maps: Grad-CAM needs one")
    return with_maps[-1]
