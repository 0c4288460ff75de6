"""Typed configurations from YAML, with every key and range checked, and back to plain values.

`parse()` turns the configuration that Hydra composed into a typed object. Each section of it then goes to the one
function that reads it.
"""

import math
import operator
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnbench.config.arguments import unquoted
from cnnbench.config.commands import SCHEMAS
from cnnbench.config.schema_keys import text_keys
from cnnbench.config.sections import DataConfig
from cnnbench.utils import plain_yaml
from cnnbench.utils.errors import UserError, unknown

ADDED_LATER: dict[type, dict[str, Any]] = {
    DataConfig: {
        "interpolation": "bilinear",
        "cache": "auto",
        "packed": None,
        "decode": "pillow",
        "on_error": "raise",
        "nested": True,
    }
}  # keys that earlier versions did not write, and how those versions behaved


def parse(schema: type, cfg: DictConfig | ListConfig) -> Any:
    """Typed configuration from a composed one. UserError for an unknown key, a missing value or one out of range."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:  # ${…} refers to a key that does not exist
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return _build(schema, {str(key): value for key, value in plain.items()}, "", partial=False)


def load_saved(command: str, file: Path, overrides: list[str]) -> Any:
    """Configuration that an earlier run saved, with single keys overridden."""
    try:
        text = plain_yaml.read(file)
        plain_yaml.check(text)
        texts = {key: value for key, _, value in (given.partition("=") for given in overrides)
                 if key in text_keys(SCHEMAS[command]) and value != "null"}  # fmt: skip
        others = OmegaConf.from_dotlist([given for given in overrides if given.partition("=")[0] not in texts])
        changed = OmegaConf.merge(OmegaConf.structured(SCHEMAS[command]), OmegaConf.create(text), others)
        for key, value in texts.items():
            OmegaConf.update(changed, key, unquoted(value))
        return parse(SCHEMAS[command], changed)
    except OSError as error:
        raise UserError(f"--config: cannot read {file}: {error.strerror}") from None
    except plain_yaml.NotPlainError as error:
        raise UserError(f"--config {file} {error}") from None
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--config {file}: {plain_yaml.first_line(error)}") from None


def from_plain(schema: type, plain: dict[str, Any]) -> Any:
    """Typed section of a checkpoint's configuration, from `to_plain()`. UserError for an unknown key."""
    try:
        saved = OmegaConf.create({**ADDED_LATER.get(schema, {}), **plain})
        found = parse(schema, OmegaConf.merge(OmegaConf.structured(schema), saved))
    except OmegaConfBaseException as error:
        raise UserError(
            f"the checkpoint's configuration does not fit this version: {str(error).splitlines()[0]}"
        ) from None
    if isinstance(found, DataConfig) and found.source == "python" and not (found.sha256 and found.file):
        raise UserError("the checkpoint names Python code for its data without its SHA-256: no checkpoint may run code "
                        "by itself")  # fmt: skip
    return found


def to_plain(config: Any) -> dict[str, Any]:
    """Configuration or schema as dicts, lists, strings and numbers, which YAML, JSON and checkpoints can hold."""
    values = vars(config() if isinstance(config, type) else config)
    return {item.name: _plain(values[item.name]) for item in fields(config)}


def _plain(value: Any) -> Any:
    """The value as OmegaConf gives it, which takes a hundred times as long."""
    if is_dataclass(value):
        return to_plain(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.name if isinstance(value, Enum) else value


def with_defaults(saved: dict[str, Any], schema: type) -> dict[str, Any]:
    """Saved configuration, flat; keys newer than its version have their defaults, which keep the old behaviour."""
    defaults = flatten(to_plain(schema))
    return {**{key: value for key, value in defaults.items() if value != MISSING}, **flatten(saved)}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots: `{"optim": {"lr": 1}}` -> `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def as_typed(value: Any) -> str:
    """Value as it is typed on the command line: `null`, `true`, `[1,2]`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return str(getattr(value, "name", value))


def parse_duration(key: str, duration: str) -> float:
    """Seconds of `90s`, `30m`, `1h30m` or `2d`. UserError that names the key."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise UserError(f"{key}={duration}: not a duration; write 90s, 30m or 2h")
    total = sum(float(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if total <= 0:
        raise UserError(f"{key}={duration}: must be more than 0 seconds")
    return total


def _build(schema: type, plain: dict[str, Any], prefix: str, partial: bool) -> Any:
    """Build the dataclass. UserError for an unknown key, a missing value or one out of range.

    In a section that is partial, a key without a value stays MISSING.
    """
    known = {item.name: item for item in fields(schema)}
    for name in plain.keys() - known.keys():
        raise unknown("key", f"{prefix}{name}", [f"{prefix}{item}" for item in known])
    values = {}
    for name, item in known.items():
        key, value = f"{prefix}{name}", plain.get(name, MISSING)
        if isinstance(item.type, type) and is_dataclass(item.type):
            value = _build(item.type, {} if value == MISSING else value, f"{key}.", "partial" in item.metadata)
        elif value == MISSING and not partial:
            advice = item.metadata.get("missing", f"{key} has no value: give {key}=… ({item.metadata['help']})")
            raise UserError(advice)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                _check_range(key, one, item.metadata["bounds"])
            if isinstance(one, str) and "\0" in one:
                raise UserError(f"{key}={one}: it holds a NUL character, which no name may")
        values[name] = value
    return schema(**values)


def _check_range(key: str, number: float, bounds: dict[str, float]) -> None:
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
    if not math.isfinite(number):
        raise UserError(f"{key}={number} is not a finite number")
    if not all(compare[sign](number, bound) for sign, bound in bounds.items()):
        wanted = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())
        raise UserError(f"{key}={number} is out of range: it must be {wanted}")
