"""A trained net in use: `cnnbench.load(weights).predict(images)`, and what the commands build on.

Weights say of themselves how their net is built and its images are prepared. Weights from elsewhere, tensors alone,
do not: then the caller says it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cnnbench import models, runtime, transfer
from cnnbench import weights as sources
from cnnbench.checkpoint import Inference
from cnnbench.config import Interpolation, PrepareConfig
from cnnbench.data.folders import IMAGENET_MEAN, IMAGENET_STD
from cnnbench.data.geometry import as_tensor
from cnnbench.data.inputs import find
from cnnbench.data.sources import quiet_pillow, read_image, upright
from cnnbench.data.transforms import EvalTransform
from cnnbench.errors import UserError
from cnnbench.machine import cores
from cnnbench.models.layers import Net
from cnnbench.weights import Weights

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

    def __init__(self, model: Net, inference: Inference, source: str, device: runtime.Runtime) -> None:
        self.model, self.inference, self.source, self.device = device.place(model).eval(), inference, source, device
        self.normalize = runtime.Normalize(device, inference.mean, inference.std)
        self.transform = EvalTransform(inference.image_size, inference.crop_ratio, inference.interpolation)

    @property
    def classes(self) -> list[str]:
        return self.inference.classes

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
            picture = as_picture(image, self.inference.in_channels)
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
    net, inference, _ = ready(found, chosen, prepared, dict(rename or {}), list(skip))
    return Classifier(net, inference, found.source, runtime.setup(device, precision, seed=None))


# From weights to a net


def ready(
    weights: Weights, model: dict[str, Any] | None, prepare: PrepareConfig, rename: dict[str, str], skip: list[str]
) -> tuple[Net, Inference, list[str]]:
    """The net with its weights, what it takes to use it, and what the user should be told. UserError if unknown.

    What `prepare` says wins over what the weights say.
    """
    classes = class_names(prepare.classes)
    notes: list[str] = []
    if weights.inference is not None:
        _check_own(weights, model, rename, skip)
        net, known = sources.build(weights), weights.inference
    else:
        net, known, notes = _from_tensors(weights, model, prepare, classes, rename, skip)
    keys = ("image_size", "crop_ratio", "interpolation", "mean", "std")
    said: dict[str, Any] = {key: value for key in keys if (value := getattr(prepare, key)) is not None}
    if "interpolation" in said:
        said["interpolation"] = Interpolation(said["interpolation"]).value
    if classes:
        said["classes"] = classes
    inference = replace(known, **said)
    _check(inference, len(known.classes), weights.source)
    if inference.image_size != known.image_size or weights.inference is None:
        models.check_image_size(net, inference.image_size)  # it takes a second: not where the size is the net's own
    return net, inference, notes


def _check_own(weights: Weights, model: dict[str, Any] | None, rename: dict[str, str], skip: list[str]) -> None:
    assert weights.inference is not None
    own = weights.inference.model["name"]
    if model is not None and model["name"] != own:
        raise UserError(f"{weights.source} holds the weights of {own}, not of {model['name']}")
    if rename or skip:
        raise UserError(f"weights_rename and weights_skip are for files from elsewhere: {weights.source} needs neither")


def _from_tensors(
    weights: Weights,
    model: dict[str, Any] | None,
    prepare: PrepareConfig,
    classes: list[str] | None,
    rename: dict[str, str],
    skip: list[str],
) -> tuple[Net, Inference, list[str]]:
    """Tensors alone: the net is the caller's, its number of classes and of channels theirs."""
    if model is None:
        raise UserError(
            f"{weights.source} does not say of which net its weights are: add model=…, as in model=resnet20"
        )
    arguments = {key: value for key, value in model.items() if value is not None}
    with torch.device("meta"):
        sketch = models.build(**arguments)
    state = renamed(weights.state, rename)
    outputs, channels = _shape(sketch, state, last=True, default=1000), _shape(sketch, state, last=False, default=3)
    notes = []
    if classes is None:
        if outputs != 1000:
            raise UserError(
                f"{weights.source} does not name its {outputs} classes: give prepare.classes=FILE, with a name in each "
                "line, or a list"
            )
        classes = imagenet_classes()
        notes.append("classes: the 1,000 of ImageNet, by torchvision's names")
    if prepare.mean is None or prepare.std is None:
        if channels != 3:
            raise UserError(f"{weights.source} does not say how its images were normalised: give prepare.mean and .std")
        notes.append("images: normalised as usual for ImageNet; prepare.mean and prepare.std say otherwise")
    net = models.build(**{**arguments, "num_classes": outputs, "in_channels": channels})
    merge(net, weights, rename, skip)
    inference = Inference(
        model=model,
        classes=classes,
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
        image_size=net.image_size,
        in_channels=channels,
        crop_ratio=0.875 if net.image_size > 64 else 1.0,
    )
    return net.eval(), inference, notes


def renamed(state: dict[str, Tensor], rename: dict[str, str]) -> dict[str, Tensor]:
    """SEAM"""
    out = {}
    for name, value in state.items():
        for a, b in rename.items():
            if name == a or name.startswith(a + "."):
                name = b + name[len(a) :]
        out[name] = value
    return out


def merge(net: Net, weights: Weights, rename: dict[str, str], skip: list[str]) -> None:
    """SEAM"""
    transfer.load_weights(net, renamed(weights.state, rename), weights.source)


def _shape(sketch: Net, state: dict[str, Tensor], *, last: bool, default: int) -> int:
    """Of the state: how many classes its last layer tells apart, or how many channels its first one takes."""
    names = {module: name for name, module in sketch.named_modules()}
    parts = list(sketch.stages["head"]) if last else [sketch]
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    layer = layers[-1 if last else 0]
    weight = state.get(f"{names[layer]}.weight")
    if weight is None or weight.ndim < 2:
        return default
    return weight.shape[0] if last else weight.shape[1] * getattr(layer, "groups", 1)


def _check(inference: Inference, outputs: int, source: str) -> None:
    if len(inference.classes) != outputs:
        raise UserError(f"{source} tells {outputs} classes apart, but {len(inference.classes)} are named")
    for name in ("mean", "std"):
        if len(getattr(inference, name)) != inference.in_channels:
            count = len(getattr(inference, name))
            raise UserError(f"{name} has {count} values, but {source} takes {inference.in_channels} channels")


def class_names(given: Any) -> list[str] | None:
    """Names of classes as `prepare.classes` has them: a list, or the path of a text file with one in each line."""
    if given is None:
        return None
    if isinstance(given, list | tuple):
        return [str(name) for name in given]
    try:
        lines = Path(given).expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"prepare.classes: cannot read {given}: {getattr(error, 'strerror', None) or 'no text'}"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def imagenet_classes() -> list[str]:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return list(_IMAGENET_CATEGORIES)


# From what a user calls an image to pixels


def _as_sequence(images: Any) -> Iterable[Any]:
    if isinstance(images, str | os.PathLike):
        return find([os.fspath(images)])
    if isinstance(images, Tensor) and images.ndim == 3:
        return [images]
    return images if isinstance(images, Iterable) and not hasattr(images, "getbands") else [images]


def as_picture(image: Any, channels: int) -> Any:
    """A path, Pillow image or tensor as a Pillow image (RGB or L) or a uint8 tensor (C, H, W) of so many channels."""
    if channels not in (1, 3):
        raise UserError(f"the net takes {channels} channels: images in files have 1 or 3")
    if isinstance(image, Tensor):
        return _with_channels(_as_bytes(image), channels)
    if isinstance(image, str | os.PathLike):
        picture = read_image(image, quietly=False)
    elif hasattr(image, "getbands"):
        picture = upright(image)
    else:
        raise UserError(f"an image is a path, a Pillow image or a tensor, not {type(image).__name__}")
    return picture if channels == 3 else picture.convert("L")


def _as_bytes(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"an image is a tensor (C, H, W) of 1 or 3 channels, not {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or image.min() < 0 or image.max() > 1:
        raise UserError("an image is a tensor of uint8, or of floating numbers in 0..1, not yet normalised")
    return (image * 255).round().to(torch.uint8)


def _with_channels(image: Tensor, channels: int) -> Tensor:
    if image.shape[0] == channels:
        return image
    if channels == 3:
        return image.expand(3, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's
    return (image.float() * weights.view(3, 1, 1)).sum(dim=0, keepdim=True).round().to(torch.uint8)


def thumbnail(picture: Any, side: int) -> np.ndarray:
    """The whole picture as uint8 (H, W, 3), its longer side at most `side` pixels."""
    if not isinstance(picture, Tensor):
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        return np.array(small)
    from PIL import Image

    pixels = as_tensor(picture).cpu().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return thumbnail(Image.fromarray(np.ascontiguousarray(pixels)), side)


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
