"""The least that a checkpoint holds, and how a file is damaged."""

from pathlib import Path
from typing import Any

NEEDED: dict[str, Any] = {"model": {}, "inference": {}, "config": {}, "progress": {}}


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)
