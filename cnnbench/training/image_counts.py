"""Counts of a data set, by which risks of a training on it are known before its images are."""

from dataclasses import dataclass
from typing import Self

from cnnbench import data
from cnnbench.data.balance import class_counts
from cnnbench.data.spectrogram import KEY
from cnnbench.utils.format import plural


@dataclass(frozen=True)
class ImageCounts:
    """Counts of a data set: training and validation images, classes, channels."""

    name: str
    train: int
    val: int
    classes: int
    channels: int
    split: str
    alike: str = ""  # sentence where the images hardly differ
    notes: tuple[str, ...] = ()  # on what was guessed or left out
    labels: tuple[str, ...] = ()
    train_by_class: tuple[int, ...] = ()  # empty where they are not known, or images have masks
    val_by_class: tuple[int, ...] = ()
    test_by_class: tuple[int, ...] = ()
    groups: int = 0  # of the training images; 0: they have none
    test: int | None = None  # test images beside val, where they were counted
    kept: str = ""  # what these are, in words
    outputs: int | None = None  # of a net for them; None: one for each class
    side: int | None = None  # of the images, pixels, where it was looked at
    seen: int | None = None  # shorter side of the images as they are, pixels, where a few were looked at
    sounds: bool = False  # whether the images are spectrograms

    @classmethod
    def of(cls, dataset: data.Dataset) -> Self:
        groups = data.groups_of(dataset.train)
        classes = 0 if dataset.pair else len(dataset.classes)  # targets of the task's own making are no classes
        return cls(
            name=dataset.name,
            train=len(dataset.train),
            val=len(dataset.val),
            classes=len(dataset.classes),
            channels=dataset.in_channels,
            split=dataset.split,
            outputs=dataset.outputs,
            side=dataset.image_size,
            seen=data.usual_side(dataset.train) if dataset.task == "classification" else None,
            alike=data.hardly_differ(dataset.train),
            notes=dataset.notes,
            labels=tuple(dataset.classes),
            train_by_class=class_counts(dataset.train, classes),
            val_by_class=class_counts(dataset.val, classes),
            test_by_class=class_counts(dataset.test, classes) if dataset.test is not None else (),
            groups=0 if groups is None else len(groups.unique()),
            test=None if dataset.test is None else len(dataset.test),
            kept=dataset.kept,
            sounds=KEY in dataset.extra,
        )

    @property
    def text(self) -> str:
        """`digits: 1,152 training and 286 held-out images, 10 classes; its test images are kept for split=test`."""
        parts = [f"{self.name}: {self.train:,} training and {plural(self.val, f'{self.split} image')}"]
        parts += [plural(self.classes, "class")] if self.classes else []
        parts += [f"{plural(self.groups, 'group')} to train on"] if self.groups else []
        if not self.kept:
            return ", ".join(parts)
        kept = self.kept if self.test is None else plural(self.test, "test image")
        return f"{', '.join(parts)}; {kept} kept for evaluate split=test"
