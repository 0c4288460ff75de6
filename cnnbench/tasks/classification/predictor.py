"""A trained net in use: `cnnbench.load(weights).predict(images)`, which the command `predict` builds on too."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnnbench.config.sections import PrepareConfig
from cnnbench.data.inputs import find_images
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import as_picture, thumbnail
from cnnbench.data.sources import quiet_pillow
from cnnbench.data.transforms import EvalTransform
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime, create_runtime
from cnnbench.utils.errors import UserError
from cnnbench.utils.system import cores
from cnnbench.weights import sources
from cnnbench.weights.load import ready

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = "str | os.PathLike[str] | Image | Tensor"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """One class and its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What the net says of one image: its classes, the likeliest first; or why the file could not be read."""

    file: str | None  # None for images in memory
    predictions: tuple[Prediction, ...]
    error: str | None = None
    thumbnail: np.ndarray | None = field(default=None, repr=False, compare=False)  # uint8 (H, W, 3), where asked for

    @property
    def best(self) -> Prediction:
        """The likeliest class. UserError for a file that could not be read."""
        if self.error is not None:
            raise UserError(self.error)
        return self.predictions[0]


class Classifier:
    """A trained net, ready to be asked. `load()` makes it."""

    def __init__(self, model: Net, spec: ModelSpec, source: str, device: Runtime) -> None:
        self.model, self.spec, self.source, self.device = device.place(model).eval(), spec, source, device
        self.normalize = Normalize(device, spec.input.mean, spec.input.std)
        self.transform = EvalTransform(spec.input.image_size, spec.input.crop_ratio, spec.input.interpolation)

    @property
    def classes(self) -> list[str]:
        return self.spec.labels

    def predict(self, images: "ImageLike | Iterable[ImageLike]", top: int = 5, batch_size: int = 32) -> list[Answer]:
        """The `top` likeliest classes of each image, in the order of the images.

        images: one or a sequence of: a path; a Pillow image; a tensor (C, H, W), uint8 or floating in 0..1, of 1 or 3
        channels. Also a folder, a pattern such as "photos/*.jpg", or a tensor (N, C, H, W). They are turned upright,
        resized, cropped and normalised as the net's own were. A file that cannot be read gets an answer with `error`.
        """
        return list(self.answers(_as_sequence(images), top=top, batch_size=batch_size))

    def answers(
        self,
        images: Iterable[Any],
        *,
        top: int = 5,
        batch_size: int = 32,
        workers: int | None = None,
        thumbnails: int = 0,
    ) -> Iterator[Answer]:
        """As `predict`, one by one while files are still being read. thumbnails: side in pixels of those to keep."""
        with quiet_pillow():
            read = in_threads(lambda image: self._read(image, thumbnails), images, workers or cores(), 2 * batch_size)
            while batch := list(islice(read, batch_size)):
                yield from self._answered(batch, top)

    def _read(self, image: Any, thumbnails: int) -> "tuple[Answer, Tensor | None]":
        """The answer to be, and the net's input; None where the file cannot be read."""
        file = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        try:
            picture = as_picture(image, self.spec.input.in_channels)
        except UserError as error:
            if file is None:
                raise
            return Answer(file, (), str(error)), None
        small = thumbnail(picture, thumbnails) if thumbnails else None
        return Answer(file, (), thumbnail=small), self.transform(picture)

    @torch.no_grad()
    def _answered(self, batch: "Sequence[tuple[Answer, Tensor | None]]", top: int) -> Iterator[Answer]:
        inputs = [pixels for _, pixels in batch if pixels is not None]
        found: Iterator[tuple[Prediction, ...]] = iter(())
        if inputs:
            with self.device.autocast():
                logits = self.model(self.normalize(torch.stack(inputs)))
            best = logits.float().softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
            found = map(self._named, best.values.tolist(), best.indices.tolist())
        for answer, pixels in batch:
            yield answer if pixels is None else replace(answer, predictions=next(found))

    def _named(self, probabilities: list[float], indices: list[int]) -> tuple[Prediction, ...]:
        pairs = zip(indices, probabilities, strict=True)
        return tuple(Prediction(self.classes[index], probability) for index, probability in pairs)


def load(
    weights: str | os.PathLike[str],
    *,
    model: str | dict[str, Any] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    rename: dict[str, str] | None = None,
    skip: Sequence[str] = (),
    **prepare: Any,
) -> Classifier:
    """A trained net: `cnnbench.load("outputs/train/resnet8-digits").predict("photo.jpg")`.

    weights: a run's directory, a file, `zoo:NAME`, or `imagenet` for the published weights of `model`. model: the net's
    name, or a dictionary of its name and arguments, where the weights do not say it. rename, skip: for weights of other
    names (see `cnnbench predict --help`, as for `prepare`: image_size, crop_ratio, interpolation, mean, std, classes).
    Raises UserError, a ValueError, for whatever is wrong.
    """
    chosen = {"name": model} if isinstance(model, str) else model
    known = {item.name for item in fields(PrepareConfig)}
    if wrong := prepare.keys() - known:
        raise TypeError(f"load() got an unexpected keyword argument '{min(wrong)}'")
    prepared = PrepareConfig(**{**dict.fromkeys(known), **prepare})
    found = sources.load(os.fspath(weights), chosen)
    with torch.random.fork_rng(devices=[]):  # nets draw weights before they are given theirs
        net, spec, _ = ready(found, chosen, prepared, rename, list(skip))
    return Classifier(net, spec, found.source, create_runtime(device, precision, seed=None))


def _as_sequence(images: Any) -> Iterable[Any]:
    if isinstance(images, str | os.PathLike):
        return find_images([os.fspath(images)])
    if isinstance(images, Tensor) and images.ndim == 3:
        return [images]
    return images if isinstance(images, Iterable) and not hasattr(images, "getbands") else [images]


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Result]:
    """`map` in so many threads, in order, never more than `ahead` results before the reader."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
