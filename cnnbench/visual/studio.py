"""What every way of looking shares: the net, the images to look at, the data set, and a place for the pictures."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from cnnbench import data
from cnnbench.config.commands import VisualizeConfig
from cnnbench.config.sections import AugmentConfig, Crop, DataConfig, OptimConfig, ScheduleConfig, Split
from cnnbench.data import Dataset, Source
from cnnbench.data.inputs import find_images as find_files
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.pictures import as_picture
from cnnbench.models.layers import Net
from cnnbench.runtime.device import Normalize, Runtime
from cnnbench.utils.errors import UserError, did_you_mean
from cnnbench.visual.page import Picture
from cnnbench.visual.places import HEAD, Place, bounded_batch, choose_units, find

IMAGES = 4  # looked at where the user names none


@dataclass(frozen=True, eq=False)
class Shown:
    """An image that is looked at: the net's input, uint8 (C, S, S), what to call it, its class if known."""

    pixels: Tensor
    name: str
    target: int | None = None


@dataclass(frozen=True)
class Plan:
    """The training that is looked at before it begins."""

    augment: AugmentConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    epochs: int
    batch_size: int

    @property
    def augmentation(self) -> str:
        """What is done to the images, in words."""
        on = self.augment
        parts = [f"crop {on.crop.value}" + (f" by {on.padding}" if on.crop is Crop.pad else ""),
                 "mirrored" if on.flip else "", f"colours by {on.color:g}" if on.color else "",
                 f"a square of {on.cutout} cut out" if on.cutout else ""]  # fmt: skip
        return ", ".join(filter(None, parts))

    def steps_per_epoch(self, images: int) -> int:
        return math.ceil(images / self.batch_size)


def as_list(asked: Any) -> list[str]:
    """What a key that takes one or several names was given."""
    return [] if asked is None else [str(one) for one in (asked if isinstance(asked, list) else [asked])]


class Studio:
    """One net and what it is shown. Files are made from the first picture on; entering it is for TensorBoard's."""

    def __init__(
        self, cfg: VisualizeConfig, model: Net | None, spec: ModelSpec, runtime: Runtime, path: Path,
        data_config: DataConfig | None, make_plan: Callable[[], Plan], source: str,
    ) -> None:  # fmt: skip
        self.cfg, self._model, self.spec, self.runtime, self.path = cfg, model, spec, runtime, path
        self._data_config, self._make_plan, self.source = data_config, make_plan, source
        self.normalize = Normalize(runtime, spec.input.mean, spec.input.std)
        self.size, self.channels, self.classes = spec.input.image_size, spec.input.in_channels, spec.labels

    @property
    def model(self) -> Net:
        assert self._model is not None  # what needs a net is refused before where there is none
        return self._model

    @property
    def title(self) -> str:
        return str(self.spec.model["name"])

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the command line names, or that the net was trained on, with as many channels as it takes."""
        if self._data_config is None:
            raise UserError(f"{self.source} does not say on which data it was trained: add data=…, as in data=cifar10")
        dataset = data.with_channels(data.load_dataset(self._data_config), self.channels)
        known = self.spec
        return replace(dataset, crop_ratio=known.input.crop_ratio, interpolation=known.input.interpolation)

    @property
    def data_name(self) -> str:
        """Folders are told apart by their own names."""
        folder = self._data_config.root if self._data_config and self.dataset.name == "folder" else None
        return Path(folder).name if folder else self.dataset.name

    @cached_property
    def plan(self) -> Plan:
        return self._make_plan()

    @property
    def images_of(self) -> Source:
        return self.dataset.val if self.cfg.split is Split.val else self.dataset.train

    @cached_property
    def looked_through(self) -> Source:
        """The images of the data that are searched: at most `limit`, from all over it."""
        source, limit = self.images_of, self.cfg.limit
        if limit is None or len(source) <= limit:
            return source
        return source.subset(data.evenly_spaced(source, limit))

    @property
    def split(self) -> str:
        return self.dataset.split if self.cfg.split is Split.val else "train"

    def name_of(self, target: int) -> str:
        """The class of the data's images; the net's own classes may be others."""
        return self.dataset.classes[target]

    # Images to look at

    @cached_property
    def shown(self) -> list[Shown]:
        """Those that `images=` names: files, folders, or numbers of the data's; by default a few of these."""
        self.check_channels()
        asked = self.cfg.images
        items = [] if asked is None else asked if isinstance(asked, list) else [asked]
        if all(isinstance(item, int) or str(item).isdigit() for item in items):
            return self._of_data([int(item) for item in items])
        return [self._file(file) for file in find_files(str(item) for item in items)]

    def _of_data(self, indices: list[int]) -> list[Shown]:
        source = self.images_of
        if wrong := [index for index in indices if not 0 <= index < len(source)]:
            raise UserError(
                f"images={wrong[0]}: {self.dataset.name} has the {self.split} images 0 to {len(source) - 1}"
            )
        if not indices:
            indices = data.evenly_spaced(source, IMAGES).tolist()
        pixels = self.pixels(source, indices)
        targets = source.targets[indices].tolist()
        return [Shown(one, f"{self.name_of(target)} (no. {index})", self._own(target))
                for one, target, index in zip(pixels, targets, indices, strict=True)]  # fmt: skip

    def _own(self, target: int) -> int | None:
        """The data's class among the net's."""
        name = self.name_of(target)
        return self.classes.index(name) if name in self.classes else None

    def pixels(self, source: Source, indices: Sequence[int]) -> Tensor:
        """uint8 (N, C, S, S): these images as the net is given them."""
        part = source.subset(torch.tensor(list(indices), dtype=torch.int64))
        if not len(part):
            return torch.zeros(0, self.channels, self.size, self.size, dtype=torch.uint8)
        batches = data.eval_loader(part, self.dataset, image_size=self.size, batch_size=64, workers=0)
        return torch.cat([batch["image"] for batch in batches.epoch(0)])

    def _file(self, path: str) -> Shown:
        known = self.spec
        transform = data.EvalTransform(known.input.image_size, known.input.crop_ratio, known.input.interpolation)
        return Shown(transform(as_picture(path, self.channels)), Path(path).stem)

    def check_channels(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(
                f"{self.source} takes {self.channels} channels, and pictures have 1 or 3: only what=filters shows it"
            )

    # The class in question

    def targets(self, logits: Tensor) -> Tensor:
        """The class that each image is asked about: `target=`, else what the net answers."""
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
                f"target={asked} is no class of {self.source}, nor a number below {len(self.classes)}.{near}"
            )
        return torch.full((len(logits),), number, device=logits.device)

    # Work

    def places(self, names: Sequence[str]) -> list[Place]:
        return find(self.model, names, self.size, self.channels)

    @property
    def layers(self) -> list[str]:
        """Those that `layer=` names."""
        return as_list(self.cfg.layer)

    def units(self, place: Place) -> list[int] | None:
        """Those that `units=` names, in the head also by the names of classes; None where it names none."""
        return choose_units(self.cfg.units, place.units, place.name, self.classes if place.name == HEAD else ())

    def batch(self, wanted: int | None = None) -> int:
        """Images for one forward pass, in bounded memory."""
        return bounded_batch(self.model, self.size, self.channels, wanted or self.cfg.batch_size)

    def batches(self, source: Source) -> Iterator[data.Batch]:
        loader = data.eval_loader(source, self.dataset, image_size=self.size, batch_size=self.batch(),
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
            return torch.cat([self.model(self.normalize(part)) for part in images.split(self.batch())]).float()

    # What is left behind

    def picture(self, heading: str, name: str, title: str, caption: str) -> Picture:
        """Where a picture of that name goes, and what is said of it."""
        self._make_directory()
        safe = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)
        return Picture(heading, title, caption, self.path / f"{safe}.png")

    def keep(self, picture: Picture) -> None:
        """A picture that is drawn, for TensorBoard."""
        from PIL import Image

        with Image.open(picture.path) as image:
            self.writer.add_image(f"{picture.heading}/{picture.path.stem}", np.asarray(image.convert("RGB")),
                                  dataformats="HWC")  # fmt: skip

    @cached_property
    def writer(self) -> Any:
        """TensorBoard's, for the directory; the events of an earlier call are gone."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self._make_directory()
        for old in self.path.glob("events.out.tfevents*"):
            old.unlink()
        return SummaryWriter(str(self.path))

    def _make_directory(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from None

    def about(self) -> list[str]:
        """What is looked at, in lines for a reader."""
        known = [f"{self.source}: {len(self.classes):,} classes, {self.size} × {self.size} pixels, "
                 f"{self.channels} channel{'' if self.channels == 1 else 's'}."]  # fmt: skip
        if "dataset" in vars(self):
            known.append(f"Images: {self.data_name}, {len(self.images_of):,} of {self.split}.")
        return known

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *error: object) -> None:
        if "writer" in vars(self):
            self.writer.close()
