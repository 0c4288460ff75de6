"""The least that a checkpoint holds, a checkpoint as earlier versions wrote it, and how a file is damaged."""

from pathlib import Path
from typing import Any

NEEDED: dict[str, Any] = {"model": {}, "spec": {}, "config": {}, "progress": {}}
NEEDED_BEFORE: dict[str, Any] = {"model": {}, "inference": {}, "config": {}, "progress": {}}  # formats 1 and 2


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)
