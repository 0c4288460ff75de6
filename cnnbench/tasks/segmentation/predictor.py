"""A trained segmentation net in use: a class for each pixel of an image at its own size."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cnnbench import models
from cnnbench.data.geometry import rescaled_size, resized
from cnnbench.tasks.picture_predictor import PicturePredictor, tiles
from cnnbench.tasks.predictor import ImagePrediction, as_sequence
from cnnbench.tasks.segmentation.metrics import best
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import output
from cnnbench.weights.sources import short_name

if TYPE_CHECKING:
    from cnnbench.tasks.predictor import ImageLike
    from cnnbench.tasks.segmentation.task import Segmentation

SHOWN = 5  # classes that are named for an image
TILE, MARGIN = 1024, 128  # pixels: larger images are answered tile by tile; what a tile sees beyond its own part
OVERLAY = 800  # pixels: longer side of the image under its answer


@dataclass(frozen=True)
class MaskPrediction(ImagePrediction):
    """Class of each pixel of one image, or why its file could not be read."""

    shares: dict[str, float] = field(default_factory=dict)  # of the pixels, in 0..1; the classes found, largest first
    overlay: np.ndarray | None = field(default=None, repr=False, compare=False)  # uint8 (h, w, 3): the image, coloured

    @property
    def mask(self) -> Tensor:
        """Classes uint8 (H, W), numbered as the net's are. UserError for a file that could not be read."""
        if self.picture is None:
            raise UserError(self.error or f"the mask of {self.file} has been written to a file")
        return self.picture[0]


class Segmenter(PicturePredictor):
    """A trained segmentation net, ready to be asked."""

    task: "Segmentation"

    def predict(self, images: "ImageLike | Iterable[ImageLike]", *, batch_size: int = 1) -> list[MaskPrediction]:
        """The class of each pixel of each image, in the order of the images. images: see `Predictor.predict`; they are
        taken whole, at their own size."""
        return list(self.predictions(as_sequence(images), batch_size=batch_size))

    def empty(self, file: str | None, **known: Any) -> MaskPrediction:
        return MaskPrediction(file, **known)

    def fault(self, pixels: Tensor) -> str:
        _, height, width = pixels.shape
        small = min(height, width) < self.least
        return f"has {width} x {height} pixels: the net needs {self.least} x {self.least}" if small else ""

    def for_sheet(self, found: MaskPrediction, pixels: Tensor) -> MaskPrediction:
        return replace(found, thumbnail=found.overlay)

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        from cnnbench.tasks.segmentation.plots import overlay

        mask = self.classes_of(pixels)
        counts = torch.bincount(mask.flatten(), minlength=len(self.classes)).tolist()
        found = sorted(zip(counts, self.classes, strict=True), key=lambda pair: -pair[0])
        shares = {name: count / mask.numel() for count, name in found if count}
        said = ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(shares.items())[:SHOWN])
        height, width = small_size(*mask.shape)
        small = resized(mask[None], height, width, "nearest")[0]
        return {
            "picture": mask[None],
            "shares": shares,
            "overlay": overlay(resized(pixels, height, width, "bilinear"), small, self.task.colors),
            "answer": {"pixels": f"{mask.shape[1]} x {mask.shape[0]}", "classes": said},
        }

    @cached_property
    def least(self) -> int:
        """Shorter side in pixels of the smallest image that the net takes."""
        return models.smallest_image(self.model)

    def classes_of(self, pixels: Tensor) -> Tensor:
        """Class of each pixel, uint8 (H, W), of an image uint8 (C, H, W). A large one is answered tile by tile: then
        memory does not grow with it, and a pixel's answer rests on MARGIN pixels around its tile at least."""
        _, height, width = pixels.shape
        found = torch.empty(height, width, dtype=torch.uint8)
        for top, left in tiles(height, width, TILE, "predict"):
            above, before = max(top - MARGIN, 0), max(left - MARGIN, 0)
            part = pixels[:, above : top + TILE + MARGIN, before : left + TILE + MARGIN]
            answer = best(self.ask_net(part))[0, top - above :, left - before :][:TILE, :TILE]
            found[top : top + TILE, left : left + TILE] = answer.cpu()
        return found

    def save(self, prediction: MaskPrediction, path: Path) -> MaskPrediction:
        """Write the mask to `path`, and beside it, as NAME.overlay.png, the image under its answer with a legend."""
        from cnnbench.tasks.segmentation.plots import plot_overlay

        beside = path.with_suffix(".overlay.png")
        assert prediction.overlay is not None
        classes = [self.classes.index(name) for name in prediction.shares]
        title = f"{Path(prediction.file or '').name}, by {short_name(self.source)}"
        with output("run.dir", beside) as file:
            plot_overlay(prediction.overlay, sorted(classes), self.classes, self.task.colors, file, title)
        saved: MaskPrediction = super().save(prediction, path)
        return replace(saved, overlay=None)

    def write_picture(self, picture: Tensor, file: Path) -> None:
        """Write a mask uint8 (1, H, W) as a PNG of class numbers, with the classes' colours as its palette."""
        from PIL import Image

        image = Image.fromarray(picture[0].numpy())
        image.putpalette(self.task.colors.tobytes())
        image.save(file, format="PNG")

    def bars(self, prediction: MaskPrediction) -> tuple[str, list[tuple[str, float, bool]]]:
        return "share of the pixels", [(name, share, False) for name, share in list(prediction.shares.items())[:SHOWN]]


def small_size(height: int, width: int) -> tuple[int, int]:
    """Height and width with a longer side of OVERLAY pixels at most."""
    if max(height, width) <= OVERLAY:
        return height, width
    return rescaled_size(height, width, max(1, OVERLAY * min(height, width) // max(height, width)))
