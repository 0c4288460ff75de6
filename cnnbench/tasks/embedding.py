"""Embeddings of images by any trained net: what its last layer sees, to look for alike images or near copies."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.sources import quiet_pillow
from cnnbench.models.embedding import features
from cnnbench.tasks.passes import check_answers
from cnnbench.utils.errors import UserError
from cnnbench.utils.system import cores

if TYPE_CHECKING:
    from cnnbench.tasks.predictor import Predictor


@dataclass(frozen=True)
class Embedded:
    """Embedding float32 (D,) of one image, or why its file could not be read."""

    file: str | None  # None for images in memory
    row: np.ndarray | None = None
    error: str | None = None


def embedded(
    predictor: "Predictor", images: Iterable[Any], batch_size: int, workers: int | None = None
) -> Iterator[Embedded]:
    """Embeddings one by one, in the order of the images, while files are still being read."""
    from cnnbench.tasks.predictor import in_threads

    with quiet_pillow():
        read = in_threads(lambda image: _read(predictor, image), images, workers or cores(), 2 * batch_size)
        while batch := list(islice(read, batch_size)):
            rows = iter(_rows(predictor, [(one, inputs) for one, inputs in batch if inputs is not None]))
            for one, inputs in batch:
                yield one if inputs is None else Embedded(one.file, next(rows))


def _read(predictor: "Predictor", image: Any) -> tuple[Embedded, Tensor | None]:
    """The image's name with the net's input uint8 or float (C, S, S), or with the reason why there is none."""
    file = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    try:
        return Embedded(file), predictor.square(image)
    except UserError as error:
        if file is None:
            raise
        return Embedded(file, error=str(error)), None


@torch.no_grad()
def _rows(predictor: "Predictor", batch: list[tuple[Embedded, Tensor]]) -> np.ndarray:
    if not batch:
        return np.zeros((0, 0), np.float32)
    with predictor.runtime.autocast():
        found = features(predictor.model, predictor.normalize(torch.stack([inputs for _, inputs in batch])))
    names = [str(one.file) for one, _ in batch]
    check_answers(found, predictor.source, lambda at: [names[index] for index in at], predictor.runtime.precision)
    rows: np.ndarray = found.float().cpu().numpy()
    return rows
