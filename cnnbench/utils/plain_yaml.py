"""YAML that is data alone: read from regular files of a bounded size and depth, without aliases and references.

The configuration of a run is such a file. Aliases could make a small file grow without end, or hold itself; a reference
such as `${oc.env:NAME}` would bring in what lies outside of it.
"""

import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 2**18  # bytes; a configuration has some thousands
DEEPEST = 16  # of dictionaries and lists
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NOT_UTF8 = re.compile(r"\\u[dD][89a-fA-F]")  # bytes of names that are not UTF-8, which the fast loader refuses


class NotPlainError(ValueError):
    """A text that is not plain data. Its message completes "FILE …"."""


def read(path: Path) -> str:
    """Text of a file. Raises OSError, and NotPlainError where it is no regular file, too large or no text."""
    if path.exists() and not path.is_file():
        raise NotPlainError("is no regular file")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NotPlainError(f"is larger than any configuration ({LARGEST // 1024:,} KiB)")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise NotPlainError("is no text") from None


def load(path: Path) -> Any:
    """Value of a file. Raises OSError, and NotPlainError for what is no plain data."""
    return parse(read(path))


def parse(text: str) -> Any:
    """Value of a text. Raises NotPlainError."""
    check(text)
    try:
        return yaml.load(text, Loader=_loader(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that cannot be
        raise NotPlainError(f"is no YAML: {first_line(error)}") from None


def check(text: str) -> None:
    """Raise NotPlainError, in a time that grows with the length alone, where a text is no plain data."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_loader(text)):
            if isinstance(event, yaml.AliasEvent):
                raise NotPlainError(f"has an alias (*{event.anchor}), but a configuration says each value in its place")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise NotPlainError(f"refers to other values ({event.value[:40]}): write the values themselves")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise NotPlainError(f"is nested deeper than {DEEPEST} levels, as no configuration is")
    except yaml.YAMLError as error:
        raise NotPlainError(f"is no YAML: {first_line(error)}") from None


def _loader(text: str) -> Any:
    return yaml.SafeLoader if NOT_UTF8.search(text) else FAST


def first_line(error: BaseException) -> str:
    """First line of an error, with the place in the file where there is one."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, {getattr(error, 'problem', None) or text}" if mark else text
