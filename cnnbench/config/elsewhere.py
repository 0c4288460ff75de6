"""Nets that torchvision or timm have, by their names, as their files say: nothing of theirs is imported."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FOLDERS = {"torchvision": ("models", "models/segmentation"), "timm": ("models",)}
REGISTERED = re.compile(r"^@register_model\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)


def hint(name: str, ours: Sequence[str]) -> str:
    """Sentence with what to type for the net that is meant by a name which is none of ours; empty where one of ours is
    as near, and where none is near."""
    found = {source: names(source) for source in FOLDERS}
    if source := next((source for source in found if name in found[source]), None):
        return f"{source} has it: model={source} model.name={name}"
    every = {one: source for source in reversed(FOLDERS) for one in found[source]}
    near = get_close_matches(name, [*every, *ours], n=1)
    if not near or near[0] in ours:
        return ""
    return f"Did you mean {every[near[0]]}'s, model={every[near[0]]} model.name={near[0]}?"


@cache
def names(source: str) -> list[str]:
    """Names of the nets that a package registers; none where it is not installed."""
    spec = find_spec(source)
    if spec is None or spec.origin is None:
        return []
    folders = [Path(spec.origin).parent / folder for folder in FOLDERS[source]]
    texts = [file.read_text(encoding="utf-8") for folder in folders for file in sorted(folder.glob("*.py"))]
    return [name for text in texts for name in REGISTERED.findall(text)]
