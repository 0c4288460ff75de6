"""Hostile edits of nested values: what a file holds after somebody changed it by hand."""

from typing import Any

from tests.corpus.case import Random

ODD_VALUES: list[Any] = [None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "x", "NaN", "../..",
                         "\x1b[2J", [], {}, [[]], {"a": {}}, "x" * 5000, [1, "a"], -0.5]  # fmt: skip


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in nested dictionaries and lists."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        found += [(value, key), *places(inner)]
    return found


def edit(value: Any, rng: Random) -> None:
    """Change, remove or double one or two of the values in place."""
    for _ in range(rng.randint(1, 2)):
        container, key = rng.choice(places(value))
        kind = rng.choice(["change", "change", "remove", "rename"])
        if kind == "change":
            container[key] = rng.choice(ODD_VALUES)
        elif kind == "rename" and isinstance(container, dict):
            container[f"{key}x"] = container.pop(key)
        else:
            del container[key]
        if not places(value):
            return
