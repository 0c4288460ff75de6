"""`cnnbench COMMAND --help`: examples, the groups and their choices, every key with its default and meaning."""

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from cnnbench.config import arguments, commands, parsing
from cnnbench.config.arguments import config_dirs, groups
from cnnbench.config.compose import command_groups, compose, explain
from cnnbench.config.parsing import as_typed
from cnnbench.config.registry import as_words
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.config.registry import Command

PAGE = """\
usage: cnnbench {command}{bare} [key=value ...] [-m] [--cfg job] [--config-dir DIR] [--config FILE]

{help}

examples
{examples}
{groups}
keys
{keys}

  -m                 a sweep: one run for each combination, as in -m seed=0,1,2
  --cfg job          print the configuration and stop
  --config-dir DIR   a folder of your own YAML files, beside those of cnnbench
  --config FILE      run again what the config.yaml of an earlier run says
"""


def render_page(command: str, entry: "Command", args: list[str]) -> str:
    """Help page of a command. The defaults shown belong to the groups chosen in args."""
    args = arguments.hydra_arguments(command, args)
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    known = groups(*config_dirs(args))
    listed = "\n".join(
        _entry(f"{group}=", ", ".join(known[group]) if group in known else "none yet", 14, width)
        for group in command_groups(command)
    )
    try:
        composed = OmegaConf.to_container(compose(command, [arg for arg in args if "," not in arg]))
    except Exception as error:
        raise UserError(explain(error, command, args)) from None
    assert isinstance(composed, dict)
    values = parsing.flatten({str(key): value for key, value in composed.items()})
    return PAGE.format(
        command=as_words(command),
        bare=f" [{bare.upper()} ...]" if (bare := commands.bare_key(commands.SCHEMAS[command])) else "",
        help=f"{entry.help[0].upper()}{entry.help[1:]}.",
        examples="\n".join(f"  {example}" for example in entry.examples),
        groups=f"\ngroups (each choice is a YAML file)\n{listed}\n" if listed else "",
        keys="\n".join(_keys(commands.SCHEMAS[command], values, width)),
    )


def _keys(which: type, values: dict[str, Any], width: int) -> list[str]:
    """Entries of the schema's keys; `model` is replaced by the arguments of the net."""
    lines = []
    texts = commands.help_texts(which)
    for key, text in sorted(texts.items(), key=lambda entry: "." in entry[0]):  # keys of daily use come first
        if key in commands.FILLED_IN:
            continue
        if key == "model":
            own = ", ".join(f"{name}={as_typed(value)}" for name, value in values.items() if name.startswith("model."))
            lines.append(_entry("model.*", f"{text}: {own}", 36, width))
        else:
            default = as_typed(values[key]) if key in values else "???"
            lines.append(_entry(f"{key}={'' if default == '???' else default}", text, 36, width))
    return lines


def _entry(name: str, text: str, indent: int, width: int) -> str:
    first = f"  {name:{indent - 3}} "
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False)
