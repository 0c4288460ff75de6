"""Predictor of a task whose answer to an image is a picture: images are taken whole, one by one, at their own size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnbench.data.transforms import whole
from cnnbench.tasks.measurement import progress
from cnnbench.tasks.predictor import ImagePrediction, Predictor
from cnnbench.utils.named_files import output

if TYPE_CHECKING:
    from PIL.Image import Image

LARGE = 10**7  # pixels from which on a PNG is written fast rather than small


class PicturePredictor(Predictor):
    """Predictor whose task says, in `answer_whole`, what the net answers to an image of any size."""

    pictorial = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.transform = whole

    def predictions(self, images: Any, *, batch_size: int = 1, **more: Any) -> Iterator[Any]:
        """Predictions one by one. batch_size: without effect, as images have sizes of their own."""
        return super().predictions(images, batch_size=1, **more)

    @torch.no_grad()
    def _answered(self, batch: Sequence[tuple[ImagePrediction, Any]], top: int) -> Iterator[Any]:
        for prediction, pixels in batch:
            if pixels is None:
                yield prediction
            elif fault := self.fault(pixels):
                yield replace(prediction, error=f"{prediction.file or 'an image'} {fault}")
            else:
                found = replace(prediction, **self.answer_whole(pixels))
                yield found if found.thumbnail is None else self.for_sheet(found, pixels)

    def fault(self, pixels: Tensor) -> str:
        """Why the net cannot answer to an image, to be said behind its name; empty where it can."""
        return ""

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        """Fields of the prediction for an image uint8 (C, H, W): its `picture`, and more in `answer`."""
        raise NotImplementedError

    def for_sheet(self, found: Any, pixels: Tensor) -> Any:
        """Answered prediction with what a sheet shows of it, where one is drawn: it holds the image's thumbnail."""
        return found

    def ask_net(self, inputs: Tensor) -> Tensor:
        """The net's answer (1, …) to one image (C, H, W), before normalisation. RunError where it is not finite."""
        return self.answers([inputs], ["the image"])

    def save(self, prediction: Any, path: Path) -> Any:
        with output("run.dir", path) as file:
            self.write_picture(prediction.picture, file)
        return replace(prediction, picture=None, answer={**prediction.answer, "picture": str(path)})

    def write_picture(self, picture: Tensor, file: Path) -> None:
        """Write an answer uint8 (1 to 4, H, W) as a PNG."""
        fast = picture.shape[1] * picture.shape[2] > LARGE
        as_image(picture).save(file, format="PNG", **({"compress_level": 1} if fast else {}))


def as_image(picture: Tensor) -> "Image":
    """Pillow image of pixels uint8 (1 to 4, H, W): gray or RGB, with or without alpha."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if len(picture) == 1 else pixels)


def tiles(height: int, width: int, side: int, what: str) -> Iterator[tuple[int, int]]:
    """Top and left of each tile of an image, with a progress bar where there are several."""
    places = list(product(range(0, height, side), range(0, width, side)))
    with progress(len(places) if len(places) > 1 else 0, what, "tile") as advance:
        for place in places:
            yield place
            advance(1)
