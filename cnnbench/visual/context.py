"""State of one call of `cnnbench visualize`: the net, the images, the data set, and where the pictures go."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from torch.nn import Module

from cnnbench import data, tasks
from cnnbench.config.commands import VisualizeConfig
from cnnbench.config.data_names import data_name
from cnnbench.config.sections import AugmentConfig, DataConfig, OptimConfig, ScheduleConfig
from cnnbench.data import Dataset, Source
from cnnbench.data.inputs import find_images
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import as_input, suffixes_for
from cnnbench.models.layers import Net
from cnnbench.output.tensorboard import Events, fresh_events
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.tasks.classification.temperature import tempered
from cnnbench.training.augmentation import active
from cnnbench.utils.errors import UserError, did_you_mean
from cnnbench.utils.format import plural
from cnnbench.visual.html_page import Picture
from cnnbench.visual.layer_view import HEAD, LayerView, bounded_batch, choose_units, layer_views

IMAGES = 4  # where `images=` names none


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image as the net sees it, uint8 (C, S, S), its name, and its class if known."""

    pixels: Tensor
    name: str
    target: int | None = None


@dataclass(frozen=True)
class PlannedTraining:
    """Settings of a training that `what=batch` and `what=schedule` draw.

    rows: those of its epochs, if it is over and nothing else is typed.
    """

    augment: AugmentConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    epochs: int
    batch_size: int
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def augmentation(self) -> str:
        """Augmentation in words."""
        return ", ".join(active(self.augment)) or "none"

    def steps_per_epoch(self, images: int) -> int:
        return math.ceil(images / self.batch_size)


def as_list(asked: Any) -> list[str]:
    """Names given to a key that takes one or a list."""
    return [] if asked is None else [str(one) for one in (asked if isinstance(asked, list) else [asked])]


class VisualizeContext:
    """One net, its images, and its pictures. The directory is made for the first picture; leaving the context closes
    TensorBoard's file."""

    def __init__(
        self, cfg: VisualizeConfig, model: Net | None, spec: ModelSpec, runtime: Runtime, path: Path,
        data_config: DataConfig | None, load: Callable[[DataConfig], Dataset],
        plan_training: Callable[[], PlannedTraining], source: str,
    ) -> None:  # fmt: skip
        self.cfg, self._model, self.spec, self.runtime, self.path = cfg, model, spec, runtime, path
        self._data_config, self._load, self._plan_training, self.source = data_config, load, plan_training, source
        self.normalize = Normalize(runtime, spec.input.mean, spec.input.std)
        self.size, self.channels, self.classes = spec.input.image_size, spec.input.in_channels, spec.labels

    @property
    def model(self) -> Net:
        assert self._model is not None  # without a net, the command has refused pictures that need one
        return self._model

    @cached_property
    def answering(self) -> Module:
        """The net with logits whose softmax gives the probabilities: divided by its temperature, where it has one."""
        return tempered(self.model, self.spec)

    @property
    def title(self) -> str:
        return str(self.spec.model["name"])

    @property
    def heading(self) -> str:
        """`resnet8 on digits`: the net and the data of the command line, else of its training, as far as they are
        known."""
        known = self._data_config
        named = [self.title] if self._model is not None or self.cfg.model else []
        return " on ".join([*named, *([data_name(known.name, known.root, known.file)] if known else [])])

    @cached_property
    def dataset(self) -> Dataset:
        """The data of the command line, else of the net's training, with the number of channels that the net takes, and
        in its classes where all of the data's names are among them."""
        if self._data_config is None:
            raise UserError(f"{self.source} does not name its training data: add data=…, as in data=cifar10")
        named = self._model is not None or bool(self.cfg.model)
        net = {**self.spec.model, "in_channels": self.channels} if named else {}
        dataset = tasks.adopt(self._load(self._data_config), self.spec.task, net)
        dataset = data.with_channels(dataset, self.channels)
        if data.matched(dataset.classes, self.classes):
            dataset, _ = data.in_classes_of(dataset, self.classes, self.source)
        known = self.spec.input
        return replace(dataset, crop_ratio=known.crop_ratio, interpolation=known.interpolation, whole=False)

    @property
    def data_name(self) -> str:
        """Name of the data set, or of the user's own folder or list."""
        known = self._data_config
        return data_name(self.dataset.name, known and known.root, known and known.file)

    @cached_property
    def planned(self) -> PlannedTraining:
        return self._plan_training()

    @property
    def split_source(self) -> Source:
        """All images of `split=`."""
        return self.dataset.chosen(self.cfg.split)[1]

    @cached_property
    def searched(self) -> Source:
        """The images that are searched: at most `limit=` of the split, evenly spaced."""
        source, limit = self.split_source, self.cfg.limit
        if limit is None or len(source) <= limit:
            return source
        return source.subset(data.evenly_spaced(source, limit))

    @property
    def split(self) -> str:
        return self.dataset.chosen(self.cfg.split)[0]

    def name_of(self, target: int) -> str:
        """Class name in the data; the classes of the net may be others."""
        return self.dataset.classes[target]

    # Images

    @cached_property
    def images(self) -> list[ShownImage]:
        """Images in `images=`: files, folders, or numbers of images of the data; by default a few of the data."""
        self.check_channels()
        asked = self.cfg.images
        items = [] if asked is None else asked if isinstance(asked, list) else [asked]
        if all(isinstance(item, int) or str(item).isdigit() for item in items):
            return self._images_of_data([int(item) for item in items])
        return [
            self._image_of_file(file)
            for file in find_images((str(item) for item in items), suffixes=suffixes_for(self.spec))
        ]

    def _images_of_data(self, indices: list[int]) -> list[ShownImage]:
        source = self.split_source
        if wrong := [index for index in indices if not 0 <= index < len(source)]:
            raise UserError(
                f"images={wrong[0]}: the {self.split} images of {self.dataset.name} are numbered 0 to {len(source) - 1}"
            )
        if not indices:
            indices = data.evenly_spaced(source, IMAGES).tolist()
        pixels = self.pixels(source, indices)
        if data.has_spatial_targets(source) or not self.dataset.classes:
            return [ShownImage(one, f"no. {index}") for one, index in zip(pixels, indices, strict=True)]
        targets = source.targets[indices].tolist()
        return [ShownImage(one, f"{self.name_of(target)} (no. {index})", self._class_of_net(target))
                for one, target, index in zip(pixels, targets, indices, strict=True)]  # fmt: skip

    def _class_of_net(self, target: int) -> int | None:
        """Number that the net gives to a class of the data."""
        name = self.name_of(target)
        return self.classes.index(name) if name in self.classes else None

    def pixels(self, source: Source, indices: Sequence[int]) -> Tensor:
        """Inputs uint8 (N, C, S, S) of the net for these images."""
        part = source.subset(torch.tensor(list(indices), dtype=torch.int64))
        if not len(part):
            return torch.zeros(0, self.channels, self.size, self.size, dtype=torch.uint8)
        batches = data.eval_loader(part, self.dataset, image_size=self.size, batch_size=64, workers=0)
        images = torch.cat([batch["image"] for batch in batches.epoch(0)])
        return images.round().clamp(0, 255).to(torch.uint8) if images.is_floating_point() else images

    def _image_of_file(self, path: str) -> ShownImage:
        known = self.spec.input
        transform = data.EvalTransform(known.image_size, known.crop_ratio, known.interpolation)
        return ShownImage(transform(as_input(path, self.spec, {})), Path(path).stem)

    def check_channels(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(
                f"{self.source} takes {self.channels} channels, but images have 1 or 3: only what=filters works"
            )

    # Classes

    def targets(self, logits: Tensor) -> Tensor:
        """Class that each image is asked about: `target=`, else the answer of the net."""
        asked = self.cfg.target
        if asked is None:
            return logits.argmax(1)
        if str(asked) in self.classes:
            number = self.classes.index(str(asked))
        elif str(asked).isdigit() and int(asked) < len(self.classes):
            number = int(asked)
        else:
            near = did_you_mean(str(asked), self.classes)
            raise UserError(
                f"target={asked}: not a class of {self.source}, nor a number below {len(self.classes)}.{near}"
            )
        return torch.full((len(logits),), number, device=logits.device)

    # Layers and batches

    def layer_views(self, names: Sequence[str]) -> list[LayerView]:
        return layer_views(self.model, names, self.size, self.channels)

    @property
    def layers(self) -> list[str]:
        """Names in `layer=`."""
        return as_list(self.cfg.layer)

    def units(self, view: LayerView) -> list[int] | None:
        """Units in `units=`, in the head also by the names of classes; None where it names none."""
        return choose_units(self.cfg.units, view.units, view.name, self.classes if view.name == HEAD else ())

    def batch_size(self, wanted: int | None = None) -> int:
        """Images in one forward pass, in bounded memory."""
        return bounded_batch(self.model, self.size, self.channels, wanted or self.cfg.batch_size)

    def batches(self, source: Source) -> Iterator[data.Batch]:
        loader = data.eval_loader(source, self.dataset, image_size=self.size, batch_size=self.batch_size(),
                                  workers=self.workers)  # fmt: skip
        return loader.epoch(0)

    @property
    def workers(self) -> int | None:
        return self._data_config.workers if self._data_config else None

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        with self.runtime.autocast():
            return torch.cat([self.answering(self.normalize(part)) for part in images.split(self.batch_size())]).float()

    # Output

    def new_picture(self, heading: str, name: str, title: str, caption: str) -> Picture:
        """A picture to be drawn, with its path NAME.png in the directory."""
        self._make_directory()
        safe = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)
        return Picture(heading, title, caption, self.path / f"{safe}.png")

    def add_to_tensorboard(self, picture: Picture) -> None:
        self.events.add_picture(f"{picture.heading}/{picture.path.stem}", picture.path, 0)

    @cached_property
    def events(self) -> Events:
        """TensorBoard's events in the directory."""
        self._make_directory()
        return fresh_events(self.path)

    def _make_directory(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from None

    def description(self) -> list[str]:
        """The net and the images in words, one line each."""
        known = [f"{self.source}: {plural(len(self.classes), 'class')}, {self.size} × {self.size} pixels, "
                 f"{plural(self.channels, 'channel')}."]  # fmt: skip
        if "dataset" in vars(self):
            known.append(f"Images: {self.data_name}, {len(self.split_source):,} of {self.split}.")
        return known

    def __enter__(self) -> "VisualizeContext":
        return self

    def __exit__(self, *error: object) -> None:
        if "events" in vars(self):
            self.events.close()
