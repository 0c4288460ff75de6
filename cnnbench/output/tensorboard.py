"""Event files of TensorBoard, written in the calling thread, so that a full disk gives a warning.

The SummaryWriter of torch writes in a thread of its own, which ends with a traceback when the disk is full.
"""

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cnnbench.utils.console import reason, warn
from cnnbench.utils.text import printable

VERSION = "brain.Event:2"


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def fresh_events(folder: Path) -> "Events":
    """New event file in a folder; the event files of earlier commands are deleted."""
    for old in event_files(folder):
        old.unlink()
    return Events(folder, purge_step=0)


class Events:
    """A new event file in a folder. It makes TensorBoard drop steps from `purge_step` on that older files hold.

    Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, purge_step: int) -> None:
        self._file: IO[bytes] | None = None
        if folder is None:
            return
        with self._once():
            stem = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}"
            path = next(path for n in count() if not (path := folder / f"{stem}.{n}").exists())
            self._file = path.open("wb")
        self._add(Event(file_version=VERSION))
        self._add(Event(step=purge_step, file_version=VERSION))
        self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=printable(tag), simple_value=value)])))

    def add_image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """picture: uint8 (H, W, 3)."""
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "png")
        height, width, colours = picture.shape
        image = Summary.Image(height=height, width=width, colorspace=colours, encoded_image_string=png.getvalue())
        self._add(Event(step=step, summary=Summary(value=[Summary.Value(tag=printable(tag), image=image)])))

    def add_picture(self, tag: str, file: Path, step: int) -> None:
        """A picture on disk, where it is there and whole."""
        with suppress(OSError), Image.open(file) as picture:
            self.add_image(tag, np.asarray(picture.convert("RGB")), step)

    def add_summary(self, summary: Summary) -> None:
        self._add(Event(summary=summary))

    def flush(self) -> None:
        with self._once():
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        with self._once():
            if self._file is not None:
                RecordWriter(self._file).write(event.SerializeToString())

    @contextmanager
    def _once(self) -> Iterator[None]:
        """Stop writing after the first error, with a warning: readers cannot read past an incomplete record."""
        try:
            yield
        except Exception as error:
            self._file = None
            warn(f"cannot write TensorBoard's events: {reason(error)}; the run goes on without them")
