"""Enlarges photographs of any size, tile by tile: colour, gray, with transparency."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.geometry import as_tensor
from cnnbench.data.luma import luma, rgb, ycbcr
from cnnbench.data.pictures import as_picture, opened, thumbnail
from cnnbench.data.sources import recolored
from cnnbench.models.enlarging import BICUBIC, Enlarger, enlarged
from cnnbench.tasks.picture_predictor import PicturePredictor, as_image, tiles
from cnnbench.tasks.predictor import ImagePrediction
from cnnbench.tasks.psnr import PEAK
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 256  # pixels of the small image: the side of a tile, without what it overlaps
ZOOM = 64  # pixels of the small image: the side of the part that a sheet shows
PLAIN = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}  # others: RGB
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # premultiplied by alpha -> not so


@dataclass(frozen=True)
class Enlarged(ImagePrediction):
    """An image at `scale` times its size: `picture` is uint8 (C, H, W), gray or RGB, with alpha where the image has it.

    before, bicubic, after: the part with the most detail, uint8 (H, W, 3), where a sheet asks for it.
    """

    scale: int = 1
    parts: Sequence[np.ndarray] = field(default=(), repr=False, compare=False)

    def image(self) -> "Image":
        """The picture as a Pillow image."""
        assert self.picture is not None
        return as_image(self.picture)


class Enlarging(PicturePredictor):
    """Predictor of a net that enlarges. What a tile gives is what the whole image would: tiles overlap by as many
    pixels as an answer depends on."""

    @property
    def net(self) -> Enlarger:
        assert isinstance(self.model, Enlarger)
        return self.model

    def empty(self, file: str | None, **known: Any) -> Enlarged:
        return Enlarged(file, scale=self.net.scale, **known)

    def prepared(self, image: Any) -> tuple[Any, Tensor]:
        pixels = as_pixels(image)
        return opaque(pixels), pixels

    def square(self, image: Any) -> Tensor:
        return luma(self.cut_square(image, 3)) if self.net.in_channels == 1 else super().square(image)

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        scale, (height, width) = self.net.scale, pixels.shape[1:]
        answer = torch.empty(scale * height, scale * width, len(pixels), dtype=torch.uint8)  # as a file has it
        overlap = max(self.net.radius, BICUBIC)
        for top, left in tiles(height, width, TILE, "enlarge"):
            piece = self.tile(pixels, top, left, overlap)
            rows, columns = slice(scale * top, scale * (top + TILE)), slice(scale * left, scale * (left + TILE))
            answer[rows, columns] = piece.permute(1, 2, 0)
        size = f"{scale * width} x {scale * height}"
        return {"picture": answer.permute(2, 0, 1), "answer": {"scale": scale, "size": size}}

    def for_sheet(self, found: Enlarged, pixels: Tensor) -> Enlarged:
        assert found.picture is not None
        return replace(found, parts=self.parts(pixels, found.picture))

    def tile(self, pixels: Tensor, top: int, left: int, overlap: int) -> Tensor:
        """Enlarged tile of uint8 pixels (1 to 4, h, w) at this place, without what it overlaps."""
        above, before, scale = min(overlap, top), min(overlap, left), self.net.scale
        part = pixels[:, top - above : top + TILE + overlap, left - before : left + TILE + overlap]
        height, width = (min(TILE, side - start) for side, start in zip(pixels.shape[1:], (top, left), strict=True))
        whole = self.enlarge(self.runtime.to_device(part).float())
        return whole[:, scale * above :, scale * before :][:, : scale * height, : scale * width].cpu()

    def enlarge(self, pixels: Tensor) -> Tensor:
        """Pixels float (1 to 4, h, w) in 0..255, gray or RGB, with or without alpha -> uint8 (1 to 4, H, W)."""
        color, alpha = (pixels[:-1], pixels[-1:]) if len(pixels) in (2, 4) else (pixels, pixels[:0])
        answer = self.in_colour(color) if len(color) == 3 else self.in_gray(color)
        veil = enlarged(alpha[None], self.net.scale)[0] if len(alpha) else answer[:0]
        return torch.cat([answer, veil]).round().clamp(0, PEAK).to(torch.uint8)

    def in_colour(self, pixels: Tensor) -> Tensor:
        """RGB by a colour net; by a net of luma, with chroma by bicubic interpolation."""
        if self.net.in_channels == 3:
            return self.ask(pixels)
        parts = ycbcr(pixels)
        return rgb(torch.cat([self.ask(parts[:1]), enlarged(parts[1:][None], self.net.scale)[0]]))

    def in_gray(self, pixels: Tensor) -> Tensor:
        if self.net.in_channels == 1:
            return self.ask(pixels)
        answer = self.ask(pixels.expand(3, -1, -1)).round().clamp(0, PEAK).to(torch.uint8)
        return recolored(answer[None].cpu(), 1)[0].to(pixels)

    def ask(self, pixels: Tensor) -> Tensor:
        """The net's answer, float in 0..255, to pixels of its channels."""
        return PEAK * self.ask_net(pixels)[0].float()

    # Sheet

    def parts(self, pixels: Tensor, picture: Tensor) -> list[np.ndarray]:
        """The most detailed part: its pixels as blocks, bicubic, and the net's."""
        from cnnbench.data.photographs import blocks
        from cnnbench.tasks.super_resolution.plots import most_detailed

        scale, small = self.net.scale, opaque(pixels)
        top, left = most_detailed(small, 1, ZOOM)
        part = small[:, top : top + ZOOM, left : left + ZOOM]
        bicubic = enlarged(part[None].float(), scale)[0].round().clamp(0, PEAK).to(torch.uint8)
        after = opaque(picture)[:, scale * top : scale * (top + ZOOM), scale * left : scale * (left + ZOOM)]
        return [thumbnail(one, scale * ZOOM) for one in (blocks(part, scale), bicubic, after)]

    def draw_sheet(self, found: Sequence[Any], file: Path, title: str) -> None:
        """Each image and the part of it with the most detail, before and after."""
        from cnnbench.output.image_grid import Row, Tile, draw_grid

        names = ("before", "bicubic", f"after: {self.spec.model['name']}")
        rows = [
            Row([Tile(one.thumbnail, "the image"), *map(Tile, one.parts, names)], Path(one.file or "").name)
            for one in found
        ]
        draw_grid(rows, file, title, side=2.4, footer="The part is that with the most detail.")


def opaque(pixels: Tensor) -> Tensor:
    """Pixels without alpha."""
    return pixels[:-1] if len(pixels) in (2, 4) else pixels


def as_pixels(image: Any) -> Tensor:
    """Pixels uint8 (C, H, W), gray or RGB, with alpha where there is one, of a path, a Pillow image or a tensor."""
    if isinstance(image, Tensor):
        pixels: Tensor = as_picture(image, len(image) if image.ndim == 3 and len(image) in (1, 3) else 3)
        return pixels
    return opened(image, _of_image)


def _of_image(image: "Image") -> Tensor:
    from PIL import ImageOps

    deep = image.mode[0] in "IF" or any(";16" in str(tile) for tile in getattr(image, "tile", []))
    if deep:
        raise UserError("it has more than 8 bits in a channel, which would be lost: save it with 8 bits first")
    turned = ImageOps.exif_transpose(image)
    straight = turned.convert(STRAIGHT.get(turned.mode, turned.mode))
    mode = PLAIN.get(turned.mode, "RGB")
    if "transparency" in turned.info and mode in ("L", "RGB"):
        mode = "LA" if mode == "L" else "RGBA"
    return as_tensor(straight.convert(mode))
