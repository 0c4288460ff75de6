"""Write docs/config.md: every key of every command with its default, range and meaning, from the schema itself.

`--check` writes nothing and exits with 1 where the file is not what the schema says.
"""

import enum
import sys
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from omegaconf import OmegaConf

from cnnbench.config import arguments, commands, compose, parsing, registry, schema_keys

FILE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """\
# All settings

Written by `scripts/config_reference.py` from the package's schema and `conf/`; do not edit by hand. Defaults are those
of the command as it is typed without settings; a choice of `model=`, `data=`, `optim=` and so on changes what its file
says, and `cnnbench COMMAND model=NAME --help` shows the values that then hold. `null` is no value. Ranges are checked
before anything runs.
"""
ENVIRONMENT = """\
## Environment variables

| variable | meaning |
| --- | --- |
| `CNNBENCH_DATA` | folder that holds the data, where `data.root` is not given |
| `CNNBENCH_FAST_START` | `0`: use no private parts of torch and Python to start, run and end faster. Results are the \
same, a command takes seconds longer. Try it when cnnbench does not start with a new version of torch or Python |
| `OMP_NUM_THREADS` | threads of each process on the CPU; by default all cores, shared out among the processes |
"""


def page() -> str:
    """The whole file. A section that several commands share stands once, with the defaults of the first of them."""
    shared: dict[type, tuple[str, str]] = {}
    parts = [HEAD, _groups()]
    for command, which in commands.SCHEMAS.items():
        if command in registry.COMMANDS:
            parts.append(_command(command, which, shared))
    parts += [_section(which, name, command) for which, (name, command) in shared.items()]
    return "\n".join([*parts, ENVIRONMENT])


def _groups() -> str:
    listed = "\n".join(
        f"| `{group}=` | {', '.join(f'`{name}`' for name in names)} |" for group, names in arguments.groups().items()
    )
    return f"## Choices\n\nEach is a file in `conf/`.\n\n| group | choices |\n| --- | --- |\n{listed}\n"


def _command(command: str, which: type, shared: dict[type, tuple[str, str]]) -> str:
    """The keys of a command alone; its sections are linked to."""
    rows, links = [], []
    defaults = _defaults(command)
    for item in fields(which):
        if item.name in schema_keys.unread_sections(which):
            continue
        if isinstance(item.type, type) and is_dataclass(item.type):
            shared.setdefault(item.type, (item.name, command))
            links.append(f"[`{item.name}.*`](#{item.name}-{item.type.__name__.lower()})")
        else:
            rows.append(_row(item, item.name, defaults))
    groups = ", ".join(f"`{group}=`" for group in compose.command_groups(command))
    about = f"{registry.COMMANDS[command].help[0].upper()}{registry.COMMANDS[command].help[1:]}."
    lines = [f"## cnnbench {registry.as_words(command)}", "", about, ""]
    lines += [f"Groups: {groups}.", ""] if groups else []
    lines += [f"Sections: {', '.join(links)}.", ""] if links else []
    return "\n".join([*lines, *_table(rows)]) + "\n"


def _section(which: type, name: str, command: str) -> str:
    rows = _rows(which, name, _defaults(command))
    return "\n".join([f"## {name}: {which.__name__}", "", *_table([row for row in rows if row])]) + "\n"


def _rows(which: type, name: str, defaults: dict[str, Any]) -> list[str]:
    rows = []
    for item in fields(which):
        key = f"{name}.{item.name}"
        inner = isinstance(item.type, type) and is_dataclass(item.type)
        rows += _rows(item.type, key, defaults) if inner else [_row(item, key, defaults)]  # type: ignore[arg-type]
    return rows


def _table(rows: list[str]) -> list[str]:
    head = ["| key | default | type | range | meaning |", "| --- | --- | --- | --- | --- |"]
    return [*head, *(row for row in rows if row)]


def _row(item: Any, key: str, defaults: dict[str, Any]) -> str:
    if key in commands.FILLED_IN:
        return ""
    bounds = " and ".join(f"{sign} {bound:,}" for sign, bound in item.metadata["bounds"].items())
    default = "" if key == "model" else f"`{_shown(defaults[key])}`" if defaults.get(key, "???") != "???" else ""
    return (
        f"| `{key}` | {default} | {_type(item.type)} | {bounds} | {item.metadata['help'].replace('|', chr(92) + '|')} |"
    )


def _defaults(command: str) -> dict[str, Any]:
    composed = OmegaConf.to_container(compose.compose(command, []), resolve=False)
    assert isinstance(composed, dict)
    return parsing.flatten({str(key): value for key, value in composed.items()})


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(getattr(value, "name", value))


def _type(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        return f"list of {_type(get_args(kind)[0])}s"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"`{choice.name}`" for choice in kind)
    names = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text", Any: "text, list or mapping"}
    return names.get(kind, "section")


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not FILE.exists() or FILE.read_text() != text)
    FILE.write_text(text)
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
