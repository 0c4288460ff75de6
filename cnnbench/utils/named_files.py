"""Files that a user names: what `out=` and `sheet=` write, and paths as they are typed."""

import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cnnbench.utils.errors import UserError
from cnnbench.utils.files import sync_folder

READER = 10.0  # seconds that a named pipe may be without a reader
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a disk"))  # nothing to write into


def typed_path(text: str) -> Path:
    """Path as it was typed, `~` and `~user` replaced. UserError where there is no such user."""
    expanded = os.path.expanduser(text)  # noqa: PTH111 (a Path forgets the ./ in ./~x)
    if text.startswith("~") and expanded == text:
        name = text[1:].partition("/")[0]
        raise UserError(f"{text}: there is no user {name}; for a folder of that name write ./{text}")
    return Path(expanded)


def common_folder(files: Iterable[str]) -> str:
    """Folder that holds all these files; "" where that is the current one, or where some paths are absolute."""
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files])  # noqa: PTH120
    except ValueError:  # absolute and relative ones
        return ""


def check_output(key: str, given: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """Path of the file that a user names with `key=`, known to be writable before the work begins.

    UserError for a folder, a place that cannot be written to, and a file that the command itself reads.
    """
    if not str(given):
        raise UserError(f"{key}= has no value: give the name of a file, or leave it out")
    path = given if isinstance(given, Path) else typed_path(given)
    try:
        status = _status(path)
        for is_kind, kind in KINDS:
            if str(given).endswith("/") or (status and is_kind(status.st_mode)):
                raise UserError(f"{key}={given} is {kind}: give the name of a file")
        folder = _target(path).parent
        if not folder.is_dir():
            raise UserError(f"{key}={given}: there is no folder {folder}")
        if not _takes_a_stream(status) and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{key}={given}: cannot write there: {error.strerror}") from None
    if status and stat.S_ISREG(status.st_mode):
        _refuse_what_is_used(key, given, status, inputs)
    return path


def _refuse_what_is_used(key: str, given: str | Path, status: os.stat_result, inputs: Iterable[str | Path]) -> None:
    if any(_is_same(status, file) for file in inputs):
        raise UserError(f"{key}={given} is a file that this command reads: give another name")
    for stream in (sys.stdout, sys.stderr):
        descriptor = _descriptor(stream)
        if descriptor is not None and _is_same(status, descriptor):
            raise UserError(f"{key}={given}: what this command prints goes there already: give another name")


def _descriptor(stream: Any) -> int | None:
    """Of stdout or stderr; None where they are closed, or no file of the system."""
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _is_same(status: os.stat_result, file: str | Path | int) -> bool:
    try:
        return os.path.samestat(status, os.stat(file))  # noqa: PTH116 (there may be many)
    except (OSError, ValueError):  # what cannot be read is reported where it is read
        return False


@contextmanager
def output(key: str, given: str | Path) -> Iterator[Path]:
    """Path of a temporary file of the same suffix, whose content becomes that of the file named with `key=`.

    A regular file is replaced as a whole and keeps its mode, that of a link's target; a named pipe or a character
    device is written into. UserError where that cannot be done: what was there before is then still there.
    """
    path = check_output(key, given)
    try:
        folder = tempfile.gettempdir() if _takes_a_stream(_status(path)) else _target(path).parent
        with tempfile.TemporaryDirectory(prefix=".cnnbench-", dir=folder, ignore_cleanup_errors=True) as beside:
            file = Path(beside) / f"new{path.suffix}"
            yield file
            _deliver(file, path)
    except OSError as error:
        raise UserError(f"{key}={given}: cannot write there: {error.strerror or error}") from None


def _deliver(file: Path, path: Path) -> None:
    """Put a finished file in the place of `path`."""
    status = _status(path)
    if _takes_a_stream(status):
        with file.open("rb") as source, os.fdopen(_open_stream(path), "wb") as stream:
            shutil.copyfileobj(source, stream)
        return
    if status:
        with suppress(PermissionError):  # only root may give a file away
            os.chown(file, status.st_uid, status.st_gid)
        file.chmod(stat.S_IMODE(status.st_mode))
    with file.open("rb") as source:
        os.fsync(source.fileno())
    target = _target(path)
    file.replace(target)
    sync_folder(target.parent)


def _open_stream(path: Path) -> int:
    """Descriptor of a device or a named pipe. OSError where nobody reads the pipe."""
    end = time.monotonic() + READER
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OSError(errno.ENXIO, f"no program reads from it within {READER:.0f} s") from None
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _status(path: Path) -> os.stat_result | None:
    """Of the file itself or of a link's target; None where there is none yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _takes_a_stream(status: os.stat_result | None) -> bool:
    return status is not None and (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode))


def _target(path: Path) -> Path:
    """The file itself, at the end of all links."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
