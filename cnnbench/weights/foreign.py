"""Files from elsewhere: harmless values that they may hold beside weights, and what a file is that is not loaded.

Nothing here runs what is in a file: its first bytes are looked at, and the names that its pickle asks for.
"""

import pickle
import pickletools
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from cnnbench.weights.tensors import USUAL

HEAD = 4096  # bytes that tell most kinds of files
MOST = 2**26  # bytes of a pickle that are looked at; its tensors lie elsewhere
PROTOCOL_4 = ord(pickle.SHORT_BINUNICODE)  # the first of the opcodes that came with this protocol
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first value in the files that torch wrote before they were archives
NUMBER = re.compile(r"[biufc]\d{1,2}")  # numpy's names of types of numbers


class NumberType:
    """In the place of numpy.dtype while a file is read: the name of a type of numbers, and nothing that could harm."""

    def __init__(self, name: str, *rest: object) -> None:
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.name = f"{state[1]}{self.name}" if state[1] in ("<", ">") else self.name


def number(kind: NumberType, data: bytes) -> Any:
    """In the place of numpy's scalar: the number, as Python's own."""
    if not NUMBER.fullmatch(kind.name.lstrip("<>")):
        raise pickle.UnpicklingError(f"a scalar of type {kind.name}")
    return np.frombuffer(data, np.dtype(kind.name))[0].item()


HARMLESS: list[Any] = [Namespace, (NumberType, "numpy.dtype"),
                       *((number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]  # fmt: skip

BEGINNINGS = (  # of files, by which they are told; those of text in lower case
    (b"version https://git-lfs", "is a Git LFS pointer, not the file that it stands for: 'git lfs pull' fetches that"),
    (b"<!doctype html", "is a web page, not a file of weights: fetch the file that the page links to"),
    (b"<html", "is a web page, not a file of weights: fetch the file that the page links to"),
    (b"<?xml", "is an XML text (often a server's refusal), not a file of weights: fetch it again"),
    (b"\x89hdf", "is an HDF5 file (as Keras writes), which is not read: save the tensors as safetensors"),
    (b"\x93numpy", "is one array of NumPy, not weights by name"),
    (b"\x1f\x8b", "is compressed (gzip): unpack it, and give the file in it"),
    (b"bzh", "is compressed (bzip2): unpack it, and give the file in it"),
    (b"\xfd7zxz", "is compressed (xz): unpack it, and give the file in it"),
    (b"7z\xbc\xaf", "is an archive (7z): unpack it, and give the file in it"),
    (b"rar!", "is an archive (RAR): unpack it, and give the file in it"),
    (b"\xff\xd8\xff", "is an image, not a file of weights"),
    (b"\x89png", "is an image, not a file of weights"),
)


def complaint(path: Path, error: Exception) -> str:
    """What a file is that gave this error, and what to do, to be put behind its name. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if not head:
            return "is empty: copy or fetch it again"
        begin = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        for mark, said in BEGINNINGS:
            if begin.startswith(mark):
                return said
        if head[257:262] == b"ustar":
            return "is an archive (tar): unpack it, and give the file in it"
        if head.startswith(b"PK\3\4"):
            return _archive(path, error)
        if head.startswith(b"\x80") and head[1:2] <= b"\5":
            file.seek(0)
            return _pickle(file, path, error)
    if is_text(head):
        return (
            f"is a text, not a file of weights; it begins with {head[:40].decode(errors='replace').splitlines()[0]!r}"
        )
    return "is damaged, or no file of weights"


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and the object."""
    with path.open("rb") as file:
        head = file.read(9)
        size = file.seek(0, 2)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def is_text(head: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return not re.search(r"[\x00-\x08\x0e-\x1f]", head[: HEAD - 4].decode())  # the cut may lie in a character
    return False


def _archive(path: Path, error: Exception) -> str:
    """What a zip archive is, which torch's own files are too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inside = {name.partition("/")[2] for name in names}
            if "constants.pkl" in inside:
                return _advised("is TorchScript, a program", f"torch.jit.load({path.name!r}).state_dict()", path)
            if "data.pkl" in inside:
                with archive.open(next(name for name in names if name.endswith("/data.pkl"))) as file:
                    return _pickle(file, path, error, by_torch=True)
            if any("serialized_exported_program" in name or name.endswith("models/model.json") for name in names):
                return _advised("is an ExportedProgram", f"torch.export.load({path.name!r}).state_dict", path)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError):
        return "is damaged: cut short, or changed; copy or fetch it again"
    first = f", as {names[0]}" if names else ""
    return f"is a zip archive of other files{first}: unpack it, and give the file of weights in it"


def _pickle(file: IO[bytes], path: Path, error: Exception, by_torch: bool = False) -> str:
    """What a pickle holds beside tensors, by the name that torch refused."""
    names = (r"GLOBAL (\S+) was not an allowed", r"unsupported GLOBAL (\S+) whose", r"got <class '(.+?)'>")
    refused = next((found[1] for text in names if (found := re.search(text, str(error)))), None)
    strings, before, asks_torch = _looked_at(file, refused)
    by_torch = by_torch or asks_torch
    whole = f"torch.load({path.name!r}, weights_only=False)"
    if not by_torch:
        return "is a pickle that torch.save did not write"
    if refused is None and (code := re.search(r"operand (\d+)", str(error))) and int(code[1]) >= PROTOCOL_4:
        return _advised("is written with a newer pickle protocol than torch's own", whole, path)
    if refused is None and (kind := re.search(r"a scalar of type (\S+)", str(error))):
        return _advised(f"holds more than weights: a scalar of NumPy of type {kind[1]}", _tensors(whole, strings), path)
    if refused is None:
        return "is damaged, or holds what is no weights: copy or fetch it again"
    if before is None:
        return _advised(f"holds a whole pickled object ({refused})", f"{whole}.state_dict()", path)
    arrays = refused.startswith("numpy.")
    tensors = _tensors(whole, strings, "" if arrays else before, arrays)
    return _advised(f"holds more than weights: '{before}' is of type {refused}", tensors, path)


def _tensors(whole: str, strings: set[str], refused: str | None = "", arrays: bool = False) -> str:
    """Python for the weights alone. refused: the key of a whole net; arrays: the weights may be NumPy's."""
    usual = next((one for one in USUAL if one in strings), None)
    inside = f"{whole}['{usual}']" if usual else whole
    if arrays:
        return f"{{k: torch.as_tensor(v) for k, v in {inside}.items() if hasattr(v, 'shape')}}"
    if usual is None:
        return f"{{k: v for k, v in {whole}.items() if torch.is_tensor(v)}}"
    return f"{inside}.state_dict()" if usual == refused else inside


def _advised(what: str, tensors: str, path: Path) -> str:
    new = f"{path.stem}-tensors.pt"
    return (
        f"{what}, and no code from a file is run here\nif you trust it, save its tensors alone, where its code is at "
        f'home: python -c "import torch; torch.save({tensors}, {new!r})"'
    )


def _looked_at(file: IO[bytes], refused: str | None) -> tuple[set[str], str | None, bool]:
    """Strings in a pickle, the one before a name (None where it begins with that), and whether torch wrote it."""
    strings: list[str] = []
    every: set[str] = set()
    before: str | None = None
    by_torch = seen = False
    for code, value in _opcodes(file):
        if code == "STOP":  # what torch once wrote before the object itself
            strings.clear()
        if code not in ("GLOBAL", "STACK_GLOBAL"):
            strings += [value] if isinstance(value, str) else []
            every.update(strings[-1:])
            by_torch = by_torch or value == TORCH_MAGIC
            continue
        name = value.replace(" ", ".") if code == "GLOBAL" else ".".join(strings[-2:])
        by_torch = by_torch or name.startswith("torch.")
        if not seen and refused in (name, re.sub(r"^(builtins|__builtin__)\.", "", name)):
            keys = [text for text in strings if text != "module"]  # a word of torch's own, before classes of modules
            seen, before = True, keys[-1] if keys else None
    return every, before, by_torch


def _opcodes(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Opcodes of the pickles in a file, one behind the other as torch once wrote them, as far as they can be read."""
    data = BytesIO(file.read(MOST))
    with suppress(Exception):  # whatever is wrong with them: they are only looked at
        while data.tell() < data.getbuffer().nbytes:
            for code, value, _ in pickletools.genops(data):
                yield code.name, value
