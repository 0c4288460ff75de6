"""Atomic writes, files with a checksum that shows damage, locks, and JSON files."""

import errno
import fcntl
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cnnbench.utils.text import escaped

MARK = b"sha256:"
COMMENT = len(MARK) + 64  # a SHA-256 in hexadecimal
LENGTH = COMMENT.to_bytes(2, "little")
NO_COMMENT = b"\0\0"  # the end of a zip archive without a comment: its length
CHUNK = 2**20
LARGEST = 2**26  # bytes of a text file that is read


def try_lock(path: Path) -> IO[str] | None:
    """Lock on a file, held until the returned file is closed; None where another process holds it."""
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Atomic write: the content goes to a temporary file beside `path`, is flushed to the disk, then renamed.

    A reader finds the old content or the new one, never a part, even after a crash of the machine.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno and error.filename in (None, str(beside)):  # a full disk does not say which file it was
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def link_or_copy(path: Path, other: Path) -> None:
    """Make `other` a copy of a file by a hard link. Safe for files that are replaced, never changed in place."""
    beside = other.with_name(f".{other.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    try:
        beside.hardlink_to(path)
    except OSError:  # some file systems have no hard links
        with path.open("rb") as source, atomic_write(other) as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
        return
    beside.replace(other)
    beside.unlink(missing_ok=True)  # rename does nothing where both names are the same file
    sync_folder(other.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: only then does a rename survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed during `atomic_write()`."""
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):
            file.unlink()


class HashingWriter:
    """Writable file that keeps the SHA-256 of all data, and the error where writing failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_zip_with_checksum(path: Path, write_zip: Callable[[HashingWriter], None]) -> None:
    """Replace a file by the zip archive that `write_zip` writes, with its SHA-256 as the archive's comment.

    Readers of zip archives skip the comment.
    """
    with atomic_write(path) as file:
        hashing = HashingWriter(file)
        try:
            write_zip(hashing)
        except RuntimeError:  # torch hides the OSError of a full disk
            if hashing.error is None:
                raise
            raise hashing.error from None
        file.seek(-len(NO_COMMENT), os.SEEK_END)
        file.write(LENGTH + MARK + hashing.hash.hexdigest().encode())


def checksum_matches(path: Path) -> bool | None:
    """Whether a file is bit for bit as `write_zip_with_checksum()` wrote it; None where it has no checksum."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        content = size - COMMENT - len(LENGTH)
        if content < 0:
            return None
        file.seek(content)
        length, mark = file.read(len(LENGTH)), file.read()
        if not mark.startswith(MARK):
            return None
        file.seek(0)
        found = hashlib.sha256()
        while content > 0 and (chunk := file.read(min(CHUNK, content))):
            found.update(chunk)
            content -= len(chunk)
        found.update(NO_COMMENT)
        return length == LENGTH and mark == MARK + found.hexdigest().encode()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="surrogateescape"))  # names of files that are not UTF-8 stay what they are


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json_text(value) + "\n")


def without_waiting(path: str, flags: int) -> int:
    """Opener that does not wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: Path, largest: int = LARGEST) -> bytes:
    """Content of a regular file. OSError for anything else (a FIFO never ends), and for a file of more bytes."""
    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > largest:
            raise OSError(errno.EFBIG, "too large")
        return file.read()


def read_json(path: Path) -> dict[str, Any]:
    """JSON object of a file; empty where the file is missing or is no JSON object."""
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl, without a last line that a crash cut short."""
    rows = []
    try:
        for line in read_regular(path).splitlines():
            rows.append(json.loads(line))
    except (OSError, ValueError, RecursionError):
        pass
    return rows


def json_text(value: Any, *, indent: int | None = 2, ascii: bool = True, default: Any = None) -> str:
    """Value as valid JSON, by which all results leave: numbers that are not finite become null. The other arguments are
    those of `json.dumps`; what a terminal would obey is an escape in any case."""
    text = json.dumps(json_value(value), indent=indent, ensure_ascii=ascii, default=default, allow_nan=False)
    return escaped(text)


def json_value(value: Any) -> Any:
    """Value that JSON can hold: null in place of numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: json_value(item) for key, item in value.items()}
    return [json_value(item) for item in value] if isinstance(value, list | tuple) else value
