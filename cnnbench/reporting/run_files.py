"""Files of runs as the report reads them, whoever wrote them: regular files of a bounded size, with values of the
types that a run leaves. No link leads out of the directories that were asked for."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cnnbench.config.parsing import flatten
from cnnbench.tasks import metrics_of
from cnnbench.utils import plain_yaml
from cnnbench.utils.files import json_value, read_regular

LARGEST = 2**22  # bytes of a file that describes a run
DEEPEST = 32  # levels of nesting
HUGE = 1e300  # numbers above cannot be drawn, nor added up
TYPES: dict[type, tuple[str, ...]] = {
    str: ("model", "data", "split", "crop", "select_on", "device", "precision", "task"),
    float: ("n", "train_n", "epochs", "params", "macs", "wall_seconds", "seed"),
    dict: ("arguments", "protocol"),
    list: ("warnings", "trained"),
}
WORDS = {str: "text", float: "a number", dict: "an object", list: "a list"}


class DamagedError(Exception):
    """A file is not what a run leaves; the text says why."""


def is_inside(path: Path, roots: Sequence[str]) -> bool:
    """Whether a path leads to a place in or below one of these real paths."""
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, root]) == root for root in roots)


def read_file(file: Path, roots: Sequence[str], largest: int = LARGEST) -> bytes:
    """Content of a file of a run. DamagedError for what is no regular file, is too large, or lies elsewhere."""
    if file.is_symlink() and not is_inside(file, roots):
        raise DamagedError(f"{file.name} is a link to a place outside")
    try:
        return read_regular(file, largest)
    except OSError as error:
        raise DamagedError(f"{file.name} cannot be read: {(error.strerror or str(error)).lower()}") from None


def read_object(file: Path, roots: Sequence[str]) -> dict[str, Any]:
    """JSON object of a file, null in place of numbers that are not finite. DamagedError where it is none."""
    try:
        value = json.loads(read_file(file, roots))
    except (ValueError, RecursionError):
        raise DamagedError(f"{file.name} is damaged") from None
    if not isinstance(value, dict) or not value or not _is_shallow(value):
        raise DamagedError(f"{file.name} is damaged")
    found: dict[str, Any] = json_value(value)
    return found


def _is_shallow(value: Any, levels: int = DEEPEST) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


def check_result(result: dict[str, Any]) -> None:
    """DamagedError where a result lacks its metric, or holds values of other types than a run writes."""
    metrics = metrics_of(result)
    if not is_number(result.get(primary := metrics[0].name)):
        raise DamagedError(f"result.json has no {primary}")
    types = {key: kind for kind, keys in TYPES.items() for key in keys}
    types |= {name: float for metric in metrics for name in (metric.name, f"train_{metric.name}")}
    for key, kind in types.items():
        value = result.get(key)
        if value is not None and not (is_number(value) if kind is float else isinstance(value, kind)):
            raise DamagedError(f"result.json: {key} is not {WORDS[kind]}")
    shares = [name for metric in metrics if metric.unit == "%" for name in (metric.name, f"train_{metric.name}")]
    for name in shares:
        if not 0 <= (result.get(name) or 0) <= 100:
            raise DamagedError(f"result.json: {name} is {result[name]:g} %, not from 0 to 100")
    if any(metric.decimals not in range(20) for metric in metrics):
        raise DamagedError("result.json: its metrics have no such decimals")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < HUGE


def read_config(file: Path, roots: Sequence[str]) -> dict[str, Any]:
    """Saved configuration. Sections are parsed one by one and cached: the runs of a sweep share most of them."""
    try:
        text = read_file(file, roots).decode()
        try:
            whole = {key: value for part in re.split(r"^(?=\w)", text, flags=re.M) if part.strip()
                     for key, value in _section(part).items()}  # fmt: skip
        except plain_yaml.NotPlainError:  # written by hand in another layout
            whole = plain_yaml.parse(text)
        if isinstance(whole, dict) and whole and not _has_huge_numbers(whole):
            return whole
    except ValueError:  # NotPlainError among them
        pass
    raise DamagedError(f"{file.name} is damaged")


def _has_huge_numbers(config: dict[str, Any]) -> bool:
    return any(isinstance(value, int) and abs(value) >= HUGE for value in flatten(config).values())


@lru_cache(maxsize=4096)
def _section(text: str) -> dict[str, Any]:
    found = plain_yaml.parse(text)
    if not isinstance(found, dict):
        raise plain_yaml.NotPlainError("is no dictionary")
    return found


def read_overrides(file: Path, roots: Sequence[str], config: dict[str, Any]) -> list[str]:
    """Overrides of the command line that made the run."""
    try:
        return read_file(file, roots).decode(errors="surrogateescape").splitlines()
    except DamagedError:
        run = config.get("run")
        found = run.get("overrides") if isinstance(run, dict) else None
        return [str(text) for text in found] if isinstance(found, list) else []


def read_metrics(file: Path, roots: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl, numbers only, up to the first line that is none."""
    return list(_rows(_lines(file, roots), strict=True))


def last_row(file: Path, roots: Sequence[str]) -> dict[str, Any]:
    """Last complete row; a line that is still being written is skipped."""
    return next(_rows(reversed(_lines(file, roots)), strict=False), {})


def _lines(file: Path, roots: Sequence[str]) -> list[bytes]:
    try:
        return read_file(file, roots, 2**26).splitlines()
    except DamagedError:
        return []


def _rows(lines: Iterator[bytes] | list[bytes], strict: bool) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if strict:
                return
            continue
        if row := _numbers(row):
            yield row


def _numbers(row: Any) -> dict[str, Any]:
    """Numbers of a row of metrics, finite or not; empty if it has no epoch."""
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int) or abs(row["epoch"]) > HUGE:
        return {}
    return {key: value for key, value in row.items()
            if isinstance(value, float) or (isinstance(value, int) and abs(value) < HUGE)}  # fmt: skip
