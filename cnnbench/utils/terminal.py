"""stdout and stderr as this program writes to them: no text commands the terminal, none is refused by its encoding."""

import codecs
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cnnbench.utils.text import json_escape, printable

# What progress bars write: a return before the bar, moves between lines.
BAR = re.compile(r"\r|\n*(\x1b\[A)*\Z")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json_escape(error.object[error.start : error.end]), error.end


codecs.register_error("json_escape", _escaped)


class SafeStream:
    """A stream that shows control characters in place of obeying them, and writes what its encoding lacks as JSON
    does (`\\u2192`)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        found = BAR.match(text)
        start = found.end() if found else 0
        encoding = self._stream.encoding or "utf-8"
        shown = (text[:start] + printable(text[start:])).encode(encoding, "json_escape").decode(encoding)
        self._stream.write(shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal that a stream goes to; None where it goes elsewhere."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def terminal_width() -> int | None:
    """Columns for a table on stdout: its terminal's, or what COLUMNS says; None where it goes to a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make stdout and stderr safe streams inside this block, or in the function that this decorates."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and SafeStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
