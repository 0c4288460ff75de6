"""Predictor of a task whose answer to an image is a picture: images are taken whole, one by one, at their own size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench.data.transforms import whole
from cnnbench.tasks.predictor import ImagePrediction, Predictor
from cnnbench.utils.named_files import output


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
            yield prediction if pixels is None else replace(prediction, **self.answer_whole(pixels))

    def answer_whole(self, pixels: Tensor) -> dict[str, Any]:
        """Fields of the prediction for an image uint8 (C, H, W): its `picture`, and more in `answer`."""
        raise NotImplementedError

    def save(self, prediction: Any, path: Path) -> Any:
        with output("run.dir", path) as file:
            self.write_picture(prediction.picture, file)
        return replace(prediction, picture=None, answer={**prediction.answer, "picture": str(path)})

    def write_picture(self, picture: Tensor, file: Path) -> None:
        """Write an answer uint8 (1 or 3, H, W) as a PNG."""
        from PIL import Image

        pixels = picture.permute(1, 2, 0).numpy()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
