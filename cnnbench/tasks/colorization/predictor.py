"""Colours for photographs: the lightness stays as it is, at full size; only the colours come from the net."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnbench.data.pictures import as_picture, opened, thumbnail
from cnnbench.data.sources import upright
from cnnbench.data.transforms import whole
from cnnbench.output.image_grid import Tile, draw_grid, in_rows
from cnnbench.tasks.colorization.bins import COUNT, TEMPERATURE
from cnnbench.tasks.colorization.colours import GRAY
from cnnbench.tasks.colorization.lab import lab_to_rgb, rgb_to_lab
from cnnbench.tasks.colorization.metrics import ab_of, colourfulness
from cnnbench.tasks.picture_predictor import PicturePredictor
from cnnbench.tasks.predictor import ImagePrediction, as_sequence
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

STRIDE = 8  # of the net: sides are multiples of it
ROWS = 512  # of an image that are converted at a time, so that memory stays bounded
COLUMNS, SHEET_SIDE = 3, 3.6  # of a sheet: images in a row, and inches of each


@dataclass(frozen=True)
class ColouredImage(ImagePrediction):
    """A photograph in the net's colours: `picture` uint8 (3, H, W), or (4, H, W) where the image has transparency."""

    was_gray: bool | None = None  # whether the image had no colours of its own; those of others were not looked at
    colourfulness: float | None = None  # Hasler & Suesstrunk's, of the answer


class Colorizer(PicturePredictor):
    """Predictor that gives images of any size their colours. temperature: see `predictions`."""

    temperature = TEMPERATURE

    def predict(self, images: Any, *, batch_size: int = 1, temperature: float | None = None) -> Sequence[ColouredImage]:
        """Coloured images in the order of the images, which are given as for any predictor; temperature as for
        `predictions`. Images in colour are made gray first."""
        return list(self.predictions(as_sequence(images), temperature=temperature))

    def predictions(self, images: Any, *, temperature: float | None = None, **more: Any) -> Iterator[Any]:
        """Coloured images one by one. temperature: of the mean over the colours: 1 is pale, towards 0 each pixel has
        its likeliest colour; None: 0.38, the paper's."""
        if temperature is not None and self.spec.outputs != COUNT:
            raise UserError(f"temperature={temperature:g}: {self.source} answers with colours, not with shares of 313")
        self.temperature = temperature or TEMPERATURE
        return super().predictions(images, **more)

    def empty(self, file: str | None, **known: Any) -> ColouredImage:
        return ColouredImage(file, **known)

    def prepared(self, image: Any) -> tuple[Any, Any]:
        """The picture in colour, and its pixels uint8 (3, H, W), or (4, H, W) with its transparency."""
        if isinstance(image, Tensor):
            return (as_picture(image, 3),) * 2
        return opened(image, with_transparency)

    def for_sheet(self, found: ColouredImage, pixels: Tensor) -> ColouredImage:
        return replace(found, thumbnail=side_by_side(found))

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        image = pixels[:3]
        ab = self.colours(image)
        picture = recoloured(image, ab)
        was_gray = int((image.amax(0) - image.amin(0)).max()) <= GRAY
        colour = float(colourfulness(picture[None])[0])
        said = {"input": "gray" if was_gray else "colour, made gray", "colourfulness": round(colour, 1)}
        return {"picture": torch.cat([picture, pixels[3:]]), "answer": said, "was_gray": was_gray,
                "colourfulness": colour}  # fmt: skip

    def square(self, image: Any) -> Tensor:
        pixels = self.cut_square(image, 3)
        height, width = pixels.shape[1:]
        return 2.55 * lightness_of(pixels, *seen_size(height, width, self.spec.side))[0]

    def colours(self, image: Tensor) -> Tensor:
        """Colours ab float32 (1, 2, h, w), on the CPU, of an image uint8 (3, H, W), seen at the net's own size."""
        height, width = image.shape[1:]
        lightness = lightness_of(image, *seen_size(height, width, self.spec.input.image_size))
        return ab_of(self.ask_net(2.55 * lightness[0]), self.temperature).cpu()

    def draw_sheet(self, found: Sequence[Any], path: Path, title: str) -> None:
        tiles = [Tile(one.thumbnail, Path(one.file).name if one.file else "", note_of(one)) for one in found]
        footer = "gray | answer | truth; of a gray image there is no truth"
        draw_grid(in_rows(tiles, min(len(tiles), COLUMNS)), path, title, side=SHEET_SIDE, footer=footer)


def with_transparency(image: "Image") -> "tuple[Image, Tensor]":
    """A Pillow image in colour, upright, and its pixels uint8 (3, H, W), or (4, H, W) where it has transparency."""
    from PIL import ImageOps

    picture = upright(image)
    if not image.has_transparency_data:
        return picture, whole(picture)
    alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
    return picture, torch.cat([whole(picture), whole(alpha)])


def seen_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns at which an image is seen: the shorter of about `side`, both multiples of the net's stride."""
    scale = side / min(height, width)
    rows, columns = (max(1, round(length * scale / STRIDE)) * STRIDE for length in (height, width))
    return rows, columns


def lightness_of(image: Tensor, height: int, width: int) -> Tensor:
    """Lightness L float32 (1, 1, height, width) of an image uint8 (3, H, W)."""
    strips = [rgb_to_lab(strip)[:1] for strip in image.split(ROWS, dim=1)]
    whole_image = torch.cat(strips, dim=1)[None]
    return F.interpolate(whole_image, size=(height, width), mode="bilinear", antialias=True).clamp(0, 100)


def recoloured(image: Tensor, ab: Tensor | None) -> Tensor:
    """Image uint8 (3, H, W) with its own lightness and the colours ab (1, 2, h, w), enlarged; None: gray."""
    height, width = image.shape[1:]
    if ab is None:
        ab = torch.zeros(1, 2, 1, 1)
    large = F.interpolate(ab, size=(height, width), mode="bilinear", align_corners=False)[0]
    strips = zip(image.split(ROWS, dim=1), large.split(ROWS, dim=1), strict=True)
    return torch.cat([lab_to_rgb(torch.cat([rgb_to_lab(pixels)[:1], colours])) for pixels, colours in strips], dim=1)


def side_by_side(one: ColouredImage) -> np.ndarray:
    """Picture uint8 (H, W, 3) of an answered image: gray | answer | truth, the truth only where there is one."""
    assert one.picture is not None and one.thumbnail is not None
    truth = torch.from_numpy(one.thumbnail).permute(2, 0, 1)
    answer = torch.from_numpy(thumbnail(one.picture[:3], max(truth.shape[1:]))).permute(2, 0, 1)
    shown = [recoloured(truth, None), answer, torch.full_like(truth, 255) if one.was_gray else truth]
    return torch.cat(shown, dim=2).permute(1, 2, 0).contiguous().numpy()


def note_of(one: ColouredImage) -> str:
    return f"colourfulness {one.colourfulness:.1f}" + ("; a gray image" if one.was_gray else "")
