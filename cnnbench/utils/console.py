"""Messages for the user, and the log of a run: a time-stamped copy of all that its console showed."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from tqdm import tqdm

from cnnbench.utils.errors import UserError
from cnnbench.utils.text import printable

silent = False  # True on ranks other than 0: rank 0 prints for all


def say(text: str, stream: TextIO) -> None:
    """Print a line for the user, above the progress bar if there is one."""
    if silent:
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except OSError:
        redirect_to_devnull(stream)


def warn(text: str) -> None:
    """Print a warning: the run goes on."""
    say(f"warning: {text}", sys.stderr)


@contextmanager
def warn_if_unwritable(what: str) -> Iterator[None]:
    """Turn an OSError inside the block (disk full) into a warning: for files that can be made again."""
    try:
        yield
    except OSError as error:
        warn(f"cannot write {what}: {error.strerror or error}; the run goes on without it")


def warn_in_result(result: dict[str, Any], text: str) -> None:
    """Print a warning, and keep it in a result."""
    warn(text)
    result["warnings"].append(text)


@contextmanager
def warn_if_undrawn(what: str, tell: Callable[[str], None] = warn) -> Iterator[None]:
    """Turn any error inside the block into a warning: for pictures and tables, none of which may cost a result."""
    try:
        yield
    except Exception as error:
        tell(f"cannot write {what}: {reason(error)}; the result is complete without it")


def reason(error: Exception) -> str:
    """An error in a few words."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def redirect_to_devnull(stream: TextIO) -> None:
    """Discard all further output of a stream that cannot be written (`| head`, a closed terminal, a full disk).

    Such a stream must not end a training, and its buffer must not raise when the process ends.
    """
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


class LoggedStream:
    """stdout or stderr with a copy in the log. Output that the terminal does not take is dropped."""

    def __init__(self, stream: TextIO, log: "Log") -> None:
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        self._copy(text)
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

    def _copy(self, text: str) -> None:
        """Copy whole lines to the log. Of a line that was overwritten (a progress bar), the last state alone."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if last := line.rstrip("\r").rpartition("\r")[2].rstrip():
                self._log.add(last)
        self._line = self._line[self._line.rfind("\r", 0, -1) + 1 :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Log:
    """Copies stdout and stderr while entered. Lines wait in memory until `open()` names the file."""

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
        """Append to this file from now on: a title first, then the lines that waited."""
        waiting, self._waiting = self._waiting, []
        with suppress(OSError):  # a log that cannot be written must not end a training
            self._file = path.open("a", encoding="utf-8", buffering=1)
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
                self._file.write(printable(line))
