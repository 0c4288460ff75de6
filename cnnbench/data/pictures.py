"""Images that a user gives (a path, a Pillow image or a tensor) as pixels, and their thumbnails."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.formats import image_suffixes
from cnnbench.data.grids import KEY as GRID
from cnnbench.data.grids import SUFFIXES as GRIDS
from cnnbench.data.grids import read_grid
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sound_files import SUFFIXES, Sound, read_clip
from cnnbench.data.sources import check_is_file, open_image, recolored, upright
from cnnbench.data.spectrogram import KEY, Spectrogram
from cnnbench.utils.errors import UserError

Result = TypeVar("Result")


def as_picture(image: Any, channels: int) -> Any:
    """Pillow image (RGB or L) or uint8 tensor (C, H, W) of so many channels, from a path, Pillow image or tensor."""
    if channels not in (1, 3):
        raise UserError(f"the net takes {channels} channels, but images have 1 or 3")
    if isinstance(image, Tensor):
        image = _as_bytes(image)
        return image if len(image) == channels else recolored(image[None], channels)[0]
    picture = opened(image, upright)
    return picture if channels == 3 else picture.convert("L")


def from_array(image: Any) -> Any:
    """Pillow image of an array uint8 (H, W) or (H, W, C), which is gray, RGB or RGBA; anything else as it is.

    UserError for other arrays.
    """
    if not isinstance(image, np.ndarray):
        return image
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise UserError(f"an image array must be uint8 (H, W) or (H, W, C) with 1, 3 or 4 channels, not {image.dtype} "
                        f"{image.shape}")  # fmt: skip
    if 0 in image.shape:
        raise UserError(f"an image array must have pixels, not {image.shape}")
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2:] == (1,) else image))


def opened(image: Any, read: Callable[[Any], Result]) -> Result:
    """What `read` takes from a Pillow image, or from that of a path, whose file is opened once."""
    if isinstance(image, str | os.PathLike):
        check_is_file(image)
        with open_image(image, image, quietly=False) as found:
            return read(found)
    if hasattr(image, "getbands"):
        return read(image)
    raise UserError(f"an image must be a path, a Pillow image, a uint8 array or a tensor, not {type(image).__name__}")


def as_input(image: Any, spec: ModelSpec, remarks: dict[str, list[str]]) -> Any:
    """What `as_picture` gives, for a trained net: of a sound file its spectrogram, where the net is for sounds.

    remarks: gets the file for what was done to a sound, in keys of `sounds.REMARKS`.
    """
    values = spec.extra.get(GRID)
    if values is not None and isinstance(image, str | os.PathLike):
        return read_grid(image, values, spec.input.in_channels, spec.input.image_size)
    known = spec.extra.get(KEY)
    if known is not None and isinstance(image, str | os.PathLike):
        spectrogram, file = Spectrogram.of(known), os.fspath(image)
        clip = image.clip() if isinstance(image, Sound) else read_clip(file, spectrogram)
        for key in clip.remarks:
            remarks.setdefault(key, []).append(file)
        image = spectrogram.picture(clip.samples)
    return as_picture(image, spec.input.in_channels)


def suffixes_for(spec: ModelSpec) -> tuple[str, ...] | None:
    """Suffixes of the files that a net is asked about, where they are no images."""
    return SUFFIXES if KEY in spec.extra else GRIDS if GRID in spec.extra else None


def any_suffixes() -> tuple[str, ...]:
    """Suffixes of all files that some net is asked about."""
    return *image_suffixes(), *SUFFIXES, *GRIDS


def _as_bytes(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"an image tensor must be (C, H, W) with 1 or 3 channels, not {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or image.min() < 0 or image.max() > 1:
        raise UserError("an image tensor must be uint8, or float in 0..1 before normalisation")
    return (image * 255).round().to(torch.uint8)


def thumbnail(picture: Any, side: int) -> np.ndarray:
    """Whole picture as uint8 (H, W, 3), its longer side at most `side` pixels."""
    if not isinstance(picture, Tensor):
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        return np.array(small)
    from PIL import Image

    gray = picture if len(picture) in (1, 3) else picture.float().mean(0, keepdim=True).to(torch.uint8)
    pixels = gray.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return thumbnail(Image.fromarray(np.ascontiguousarray(pixels)), side)
