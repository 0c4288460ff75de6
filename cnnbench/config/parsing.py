"""Between YAML and typed configuration, both ways: parsed with every key and range checked, replayed, restored, plain.

`parse()` turns what Hydra has composed into a typed object; each section then goes to the one function that reads it.
"""

import math
import operator
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnbench.config.commands import SCHEMAS
from cnnbench.config.sections import DataConfig
from cnnbench.utils.errors import UserError, unknown

LATER: dict[type, dict[str, Any]] = {
    DataConfig: {
        "interpolation": "bilinear",
        "cache": "auto",
        "packed": None,
        "decode": "pillow",
        "on_error": "raise",
    }
}  # keys that earlier versions did not write, and what they did


def parse(schema: type, cfg: DictConfig | ListConfig) -> Any:
    """The composed configuration as its typed dataclass, each key known, given and within its range."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:  # ${…} of something that is not there
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return _build(schema, {str(key): value for key, value in plain.items()}, "", partial=False)


def load_saved(command: str, file: Path, overrides: list[str]) -> Any:
    """The configuration saved by an earlier run, with single keys overridden."""
    try:
        saved = OmegaConf.load(file)
        changed = OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), saved, OmegaConf.from_dotlist(overrides))
        return parse(SCHEMAS[command], changed)
    except OSError as error:
        raise UserError(f"--config: cannot read {file}: {error.strerror}") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"--config {file}: {str(error).splitlines()[0]}") from None


def from_plain(schema: type, plain: dict[str, Any]) -> Any:
    """A typed section of a checkpoint's configuration, from `to_plain()`; a key that nobody knows is an error."""
    try:
        saved = OmegaConf.create({**LATER.get(schema, {}), **plain})
        return parse(schema, OmegaConf.merge(OmegaConf.structured(schema), saved))
    except OmegaConfBaseException as error:
        raise UserError(f"its configuration does not fit this version: {str(error).splitlines()[0]}") from None


def to_plain(config: Any) -> dict[str, Any]:
    """A typed configuration (or a schema, of which most is MISSING) as dicts, lists, strings and numbers alone: what
    YAML, JSON and a checkpoint can hold."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def with_defaults(saved: dict[str, Any], schema: type) -> dict[str, Any]:
    """A saved configuration, flat, with the keys that its version did not have yet, at what that version did."""
    defaults = flatten(to_plain(schema))
    return {**{key: value for key, value in defaults.items() if value != MISSING}, **flatten(saved)}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` as `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def parse_duration(duration: str) -> float:
    """`90s`, `30m`, `1h30m` or `2d` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise UserError(f"'{duration}' is no duration: write 90s, 30m, 1h30m or 2d")
    total = sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if total <= 0:
        raise UserError(f"'{duration}' is no time at all: give more than 0 seconds")
    return total


def _build(schema: type, plain: dict[str, Any], prefix: str, partial: bool) -> Any:
    """Refuse a key that nobody reads, a key without a value, and a value outside its range. In a section that is
    partial a key may go without a value: it stays MISSING."""
    known = {item.name: item for item in fields(schema)}
    for name in plain.keys() - known.keys():
        raise unknown("key", f"{prefix}{name}", [f"{prefix}{item}" for item in known])
    values = {}
    for name, item in known.items():
        key, value = f"{prefix}{name}", plain.get(name, MISSING)
        if isinstance(item.type, type) and is_dataclass(item.type):
            value = _build(item.type, {} if value == MISSING else value, f"{key}.", "partial" in item.metadata)
        elif value == MISSING and not partial:
            raise UserError(f"{key} has no value: give {key}=… ({item.metadata['help']})")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_range(key, number, item.metadata["bounds"])
        values[name] = value
    return schema(**values)


def _check_range(key: str, number: float, bounds: dict[str, float]) -> None:
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
    if not math.isfinite(number):
        raise UserError(f"{key}={number} is no finite number")
    if not all(compare[sign](number, bound) for sign, bound in bounds.items()):
        wanted = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())
        raise UserError(f"{key}={number} is out of range: it must be {wanted}")
