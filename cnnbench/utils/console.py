"""One log of a run: everything its console said, time-stamped, also when nobody was there to read it."""

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from tqdm import tqdm

silent = False  # in processes that train together with another one, which speaks for all


def say(text: str, stream: TextIO) -> None:
    """A line for the user, above the progress bar if there is one."""
    if silent:
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except OSError:
        redirect_to_devnull(stream)


def warn(text: str) -> None:
    """Something that the user should know though the run goes on."""
    say(f"warning: {text}", sys.stderr)


@contextmanager
def warn_if_unwritable(what: str) -> Iterator[None]:
    """A file that can be made again: where it cannot be written (disk full), that is said and the run goes on."""
    try:
        yield
    except OSError as error:
        warn(f"cannot write {what}: {error.strerror or error}; the run goes on without it")


def redirect_to_devnull(stream: TextIO) -> None:
    """Lead a stream that nobody reads any more (`| head`, a closed terminal, a full disk) to nowhere: that must not
    end a training, and what is still in its buffer must not raise when the process ends."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


class LoggedStream:
    """stdout or stderr, written into the log as well. What cannot be written to the terminal any more is let go."""

    def __init__(self, stream: TextIO, log: "Log") -> None:
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        self._keep(text)
        try:
            self._stream.write(text)
        except OSError:
            redirect_to_devnull(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            redirect_to_devnull(self._stream)

    def _keep(self, text: str) -> None:
        """Whole lines go to the log; of a line that was drawn over, as a progress bar is, only what is left of it."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if last := line.rstrip("\r").rpartition("\r")[2].rstrip():
                self._log.add(last)
        self._line = self._line[self._line.rfind("\r", 0, -1) + 1 :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Log:
    """While entered, stdout and stderr are written down too: into a file as soon as `open()` says which."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._file: IO[str] | None = None
        self._waiting: list[str] = []

    def __enter__(self) -> "Log":
        self._begun = _now()
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (LoggedStream(stream, self) for stream in self._streams)
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout, sys.stderr = self._streams
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def open(self, path: Path, title: str) -> None:
        """Append to this file from now on, beginning with a title and what was said so far."""
        waiting, self._waiting = self._waiting, []
        with suppress(OSError):  # a log is not worth a training
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            self.path = path
        self._write(f"{self._begun}  {title}\n")
        for line in waiting:
            self._write(line)

    def add(self, line: str) -> None:
        stamped = f"{_now()}  {line}\n"
        if self._file is None:
            self._waiting.append(stamped)
        else:
            self._write(stamped)

    def add_traceback(self, error: BaseException) -> None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            self.add(line)

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            if self._file is not None:
                self._file.write(line)
