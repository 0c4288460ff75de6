"""Completion of values that name something on the disk (runs, weights, tables, folders), or are one of a few."""

import os
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from cnnbench.config import schema_keys
from cnnbench.config.arguments import PATHS
from cnnbench.config.commands import SCHEMAS

WEIGHTS = (".pt", ".pth", ".th", ".safetensors")
ZOO = Path(__file__).parents[1] / "zoo"
LISTED = re.compile(r"(\[?(?:.*,)?)(.*)", re.DOTALL)  # what stands before the last item of a list, and that item
FLAGS = {"--config": "file", "--config-dir": "folder", "-cd": "folder"}


def of(command: str, before: list[str], word: str) -> list[str] | None:
    """Whole words that `word` may become; None where the value, or the word, is none of these."""
    if before and before[-1] in FLAGS:
        return _paths(word, FLAGS[before[-1]])
    schema = SCHEMAS[command]
    key, given, value = word.partition("=")
    if not given:
        return (schema_keys.bare_key(schema) and word and _paths(word, "file")) or None
    found = LISTED.fullmatch(value)
    assert found
    values = _values(schema, key, found[2])
    return values and [f"{key}={found[1]}{one}" for one in values]


def _values(schema: type, key: str, begin: str) -> list[str] | None:
    """Values of a key that begin so. A path may stand for any name of a group: the answer says how it is given."""
    leaf = schema_keys.leaves(schema).get(key)
    kind = leaf.metadata.get("names") if leaf else None
    if kind:
        return [*(_known_weights(begin) if kind == "weights" else []), *_paths(begin, kind)]
    if key in PATHS or begin.startswith((".", "/", "~")):
        return _paths(begin, "file")
    return [choice for choice in _choices(leaf.type) if choice.startswith(begin)] or None if leaf else None


def _choices(kind: Any) -> list[str]:
    """Values of a key that takes one of a few."""
    found: list[str] = []
    for one in get_args(kind) or [kind]:
        if isinstance(one, type) and issubclass(one, Enum):
            found += one.__members__
        found += ["true", "false"] if one is bool else ["null"] if one is type(None) else []
    return found if found != ["null"] else []


def _known_weights(begin: str) -> list[str]:
    names = [*(f"zoo:{file.stem}" for file in ZOO.glob("*.safetensors")), "imagenet"]
    return sorted(name for name in names if name.startswith(begin))


def _paths(begin: str, kind: str) -> list[str]:
    """Folders, and files of a kind, whose names begin so. Where no weights have the usual endings: all files."""
    at = begin.rfind("/") + 1
    home, name = os.path.expanduser(begin[:at]) or ".", begin[at:]  # noqa: PTH111
    try:
        entries = sorted(Path(home).iterdir())
    except OSError:
        return []
    entries = [entry for entry in entries if entry.name.startswith(name) and (name[:1] == "." or entry.name[0] != ".")]
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if not entry.is_dir() and kind != "folder"]
    likely = [file for file in files if kind != "weights" or file.endswith(WEIGHTS)]
    return [f"{begin[:at]}{one}" for one in [*folders, *(likely or ([] if folders else files))]]
