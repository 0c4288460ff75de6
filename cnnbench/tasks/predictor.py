"""A trained net in use: `cnnbench.load(weights).predict(images)`, on which the command `predict` builds too."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnnbench import tasks
from cnnbench.config.sections import CropConfig, Format, PrepareConfig
from cnnbench.data import EvalTransform
from cnnbench.data.inputs import find_images
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import as_input, as_picture, from_array, suffixes_for, thumbnail
from cnnbench.data.sounds import remarked
from cnnbench.data.sources import quiet_pillow
from cnnbench.data.spectrogram import KEY, Spectrogram
from cnnbench.models.layers import Net
from cnnbench.output.tables import render
from cnnbench.runtime.device import Normalize, Runtime, create_runtime
from cnnbench.tasks.base import Task
from cnnbench.tasks.embedding import embedded
from cnnbench.tasks.measurement import measuring
from cnnbench.tasks.passes import check_answers
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text
from cnnbench.utils.system import cores
from cnnbench.weights import sources
from cnnbench.weights.load import ready

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = "str | os.PathLike[str] | Image | Tensor | np.ndarray"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image, or why its file could not be read."""

    file: str | None  # None for images in memory
    answer: dict[str, Any] = field(default_factory=dict)  # plain values, as the task describes them
    error: str | None = None
    thumbnail: np.ndarray | None = field(default=None, repr=False, compare=False)  # uint8 (H, W, 3), where asked for
    picture: Tensor | None = field(default=None, repr=False, compare=False)  # a pictorial task's answer


class Predictor:
    """A trained net, ready to be asked. `load()` makes it; a task that has more to say overrides the last methods.

    A task whose answer to an image is a picture is `pictorial`: `save` writes it into a file.
    """

    pictorial: ClassVar[bool] = False

    def __init__(self, task: Task, model: Net, spec: ModelSpec, source: str, runtime: Runtime) -> None:
        self.task, self.spec, self.source, self.runtime = task, spec, source, runtime
        self.name = name_of(source)  # for a title
        self.remarks: dict[str, list[str]] = {}  # files by what was done to these sounds, or is wrong with them
        self.model = runtime.place(model).eval()
        self.normalize = Normalize(runtime, spec.input.mean, spec.input.std)
        self.transform: Callable[[Any], Tensor] = EvalTransform(
            spec.input.image_size, spec.input.crop_ratio, spec.input.interpolation
        )

    @property
    def classes(self) -> list[str]:
        return self.spec.labels

    def predict(self, images: "ImageLike | Iterable[ImageLike]", *, batch_size: int = 32) -> Sequence[ImagePrediction]:
        """Predictions in the order of the images.

        images: one or a sequence of: a path; a Pillow image; an array uint8 (H, W) or (H, W, C), gray, RGB or RGBA; a
        tensor (C, H, W), uint8 or floating in 0..1, of 1 or 3 channels. Also a folder, a pattern such as
        "photos/*.jpg", an array (N, H, W, C) or a tensor (N, C, H, W). They are turned upright, resized, cropped and
        normalised as the net's own were. A file that cannot be read gets one with `error`.
        """
        return list(self.predictions(as_sequence(images, self.spec), batch_size=batch_size))

    def predictions(
        self,
        images: Iterable[Any],
        *,
        top: int = 5,
        batch_size: int = 32,
        workers: int | None = None,
        thumbnails: int = 0,
    ) -> Iterator[Any]:
        """Predictions one by one, as `predict` makes them, while files are still being read.

        top: how many alternatives, where the task has any. thumbnails: side in pixels of those to keep.
        """
        with quiet_pillow():
            read = in_threads(lambda image: self._read(image, thumbnails), images, workers or cores(), 2 * batch_size)
            while batch := list(islice(read, batch_size)):
                yield from self._answered(batch, top)

    def embed(self, images: "ImageLike | Iterable[ImageLike]", *, batch_size: int = 32) -> np.ndarray:
        """Embeddings float32 (N, D) of the images, in their order: what the net's last layer sees, to look for alike
        images or near copies. images: see `predict`. UserError for a file that cannot be read."""
        found = list(embedded(self, as_sequence(images, self.spec), batch_size))
        if wrong := next((one.error for one in found if one.error), None):
            raise UserError(wrong)
        return np.stack([one.row for one in found if one.row is not None])

    def square(self, image: Any) -> Tensor:
        """The net's input of the centre of an image, uint8 or float (C, S, S), for an embedding. UserError where it
        cannot be read."""
        return self.cut_square(image, self.spec.input.in_channels)

    def cut_square(self, image: Any, channels: int) -> Tensor:
        """Centre uint8 (C, S, S) of an image, of so many channels, at the net's size."""
        given = self.spec.input
        cut = EvalTransform(self.spec.side, given.crop_ratio, given.interpolation)
        own = channels == given.in_channels
        return cut(as_input(image, self.spec, {}) if own else as_picture(image, channels))

    def _read(self, image: Any, thumbnails: int) -> "tuple[ImagePrediction, Any]":
        """The prediction to be, and the net's input; None where the file cannot be read."""
        file = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        try:
            picture, inputs = self.prepared(image)
        except UserError as error:
            if file is None:
                raise
            return self.empty(file, error=str(error)), None
        small = thumbnail(picture, thumbnails) if thumbnails else None
        return self.empty(file, thumbnail=small), inputs

    @torch.no_grad()
    def _answered(self, batch: "Sequence[tuple[ImagePrediction, Any]]", top: int) -> Iterator[Any]:
        inputs, read = [one for _, one in batch if one is not None], [one for one, given in batch if given is not None]
        found: Iterator[dict[str, Any]] = iter(())
        if inputs:
            found = iter(self.decode(self.answers(inputs, [str(one.file) for one in read]), top))
        for prediction, given in batch:
            yield prediction if given is None else replace(prediction, **next(found))

    # The task's own

    def asked(
        self, others: "Sequence[Predictor]" = (), crop: CropConfig | None = None, least: float | None = None
    ) -> "Predictor":
        """Predictor that asks other nets too, by several views, and is unsure below the probability `least`. UserError
        where the task cannot do so."""
        if others or least is not None or (crop and crop != CropConfig()):
            raise UserError(f"several weights, crop and min_probability are for classification: {self.task.name} takes "
                            "none of them")  # fmt: skip
        return self

    def notes(self) -> list[str]:
        """What the user should be told before the answers."""
        return []

    def remarked(self) -> list[str]:
        """What the user should be told of the files that were read, after the answers."""
        return remarked(Spectrogram.of(self.spec.extra[KEY]), self.remarks) if self.remarks else []

    def prepared(self, image: Any) -> tuple[Any, Any]:
        """The picture, as a person sees it, and what the net is given of it. UserError where it cannot be read."""
        picture = as_input(image, self.spec, self.remarks)
        return picture, self.transform(picture)

    def answers(self, inputs: Sequence[Any], names: Sequence[str]) -> Tensor:
        """The net's answers to what it is given of each image. RunError where they are not finite."""
        with self.runtime.autocast():
            found = self.task.answer(self.model(self.normalize(torch.stack(list(inputs)))))
        check_answers(found, self.source, lambda at: [names[index] for index in at], self.runtime.precision)
        return found

    def empty(self, file: str | None, **known: Any) -> ImagePrediction:
        """Prediction without an answer yet."""
        return ImagePrediction(file, **known)

    def decode(self, answers: Tensor, top: int) -> Iterable[dict[str, Any]]:
        """Fields of the prediction for each image of a batch."""
        return [{"answer": self.task.describe(one, self.spec)} for one in answers]

    def save(self, prediction: Any, path: Path) -> Any:
        """The prediction without its picture, which is now in the file `path`, a PNG."""
        raise NotImplementedError

    def text(self, found: Sequence[Any], format: Format, width: int | None) -> str:
        """All predictions as a table, JSON or CSV."""
        rows = [{"file": one.file, **one.answer, **({"error": one.error} if one.error else {})} for one in found]
        if format is Format.json:
            return json_text(rows, ascii=False)
        return render(rows, format)

    def closing(self, found: Sequence[Any]) -> str:
        """What is said of all predictions at the end; empty where nothing is."""
        return ""

    def draw_sheet(self, found: Sequence[Any], path: Path, title: str) -> None:
        """Draw a page of answered images, by their thumbnails, into the file `path`."""
        from cnnbench.output.prediction_cards import Card, draw_cards  # matplotlib takes its time

        answers = [(one, *self.bars(one)) for one in found]
        cards = [
            Card(one.thumbnail, name, Path(one.file).name if one.file else "", bars) for one, name, bars in answers
        ]
        draw_cards(cards, path, title)

    def bars(self, prediction: Any) -> tuple[str, list[tuple[str, float, bool]]]:
        """Title and bars (name, share in 0..1, whether it is true) under an image on a sheet."""
        return ", ".join(f"{key} {value}" for key, value in prediction.answer.items()), []


def load(
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    model: str | dict[str, Any] | None = None,
    crop: str | None = None,
    min_probability: float | None = None,
    device: str = "auto",
    precision: str | None = None,
    key: str | None = None,
    rename: dict[str, str] | None = None,
    skip: Sequence[str] = (),
    **prepare: Any,
) -> Any:
    """Trained net: `cnnbench.load("outputs/train/resnet8-digits").predict("photo.jpg")`.

    weights: a run's directory, a file, `zoo:NAME`, or `imagenet` for the published weights of `model`; of a list, the
    answers are averaged. model: the net's name, or a dictionary of its name and arguments, where the weights do not say
    it. crop: the views of each image, as `ten`. min_probability: below it an answer is unsure. key, rename, skip: for
    files from elsewhere (see `cnnbench predict --help`, as for `prepare`: image_size, crop_ratio, interpolation, mean,
    std, classes). Raises UserError, a ValueError, for whatever is wrong.
    """
    chosen = {"name": model} if isinstance(model, str) else model
    known = {item.name for item in fields(PrepareConfig)}
    if wrong := prepare.keys() - known:
        raise TypeError(f"load() got an unexpected keyword argument '{min(wrong)}'")
    prepared = PrepareConfig(**{**dict.fromkeys(known), **prepare})
    given = [weights] if isinstance(weights, str | os.PathLike) else weights
    found = [sources.load(where, chosen, key) for where in sources.places([os.fspath(one) for one in given])]
    with torch.random.fork_rng(devices=[]):  # nets draw weights before they are given theirs
        nets = [ready(one, chosen, prepared, rename, list(skip))[:2] for one in found]
    runtime = create_runtime(device, precision, seed=None)
    runtime = runtime if precision else measuring(runtime, None, found)
    views = CropConfig(name=crop) if crop else None
    return predictor_of([(*net, one.source) for net, one in zip(nets, found, strict=True)], runtime, views,
                        min_probability)  # fmt: skip


def predictor_of(
    nets: Sequence[tuple[Net, ModelSpec, str]], runtime: Runtime, crop: CropConfig | None, least: float | None
) -> Predictor:
    """Predictor of the task that the nets were trained for: each with its spec and what to call it. UserError where
    the task, or these nets together, cannot be asked so."""
    made = []
    for model, spec, source in nets:
        task = tasks.find(spec.task).of(spec)
        made.append(task.predictor(model, spec, source, runtime) or Predictor(task, model, spec, source, runtime))
    first, *others = made
    for one in others:
        if one.spec.task != first.spec.task:
            raise UserError(f"{first.source} is for {first.spec.task}, {one.source} for {one.spec.task}")
    return first.asked(others, crop, least)


def name_of(source: str) -> str:
    """Short name of weights: of a run or a file, else what they are called."""
    return sources.short_name(source) if Path(source).is_file() else source


def as_sequence(images: Any, spec: ModelSpec | None = None) -> Iterable[Any]:
    if isinstance(images, str | os.PathLike):
        return find_images([os.fspath(images)], suffixes=suffixes_for(spec) if spec else None)
    alone = (isinstance(images, Tensor) and images.ndim == 3) or (isinstance(images, np.ndarray) and images.ndim != 4)
    if alone or hasattr(images, "getbands") or not isinstance(images, Iterable):
        return [from_array(images)]
    return map(from_array, images)


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
