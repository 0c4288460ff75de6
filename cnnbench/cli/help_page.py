"""`cnnbench COMMAND --help`: examples, the groups and their choices, every key with its default and meaning."""

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from cnnbench.cli.wrapped import entry, example, wrapped
from cnnbench.config import arguments, commands, parsing, schema_keys
from cnnbench.config.arguments import config_dirs, groups
from cnnbench.config.compose import command_groups, compose, explain
from cnnbench.config.parsing import as_typed
from cnnbench.config.registry import as_words
from cnnbench.utils.errors import UserError

if TYPE_CHECKING:
    from cnnbench.config.registry import Command

PAGE = """\
{usage}

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


def render_page(command: str, about: "Command", args: list[str]) -> str:
    """Help page of a command. The defaults shown belong to the groups chosen in args."""
    args = arguments.hydra_arguments(command, args)
    known = groups(*config_dirs(args))
    listed = "\n".join(
        entry(f"{group}=", ", ".join(known[group]) if group in known else "none yet", 14)
        for group in command_groups(command)
    )
    try:
        composed = OmegaConf.to_container(compose(command, [arg for arg in args if "," not in arg]))
    except Exception as error:
        raise UserError(explain(error, command, args)) from None
    assert isinstance(composed, dict)
    values = parsing.flatten({str(key): value for key, value in composed.items()})
    return PAGE.format(
        usage=_usage(command),
        help=wrapped(f"{about.help[0].upper()}{about.help[1:]}."),
        examples="\n".join(map(example, about.examples)),
        groups=f"\ngroups (each choice is a YAML file)\n{listed}\n" if listed else "",
        keys="\n".join(_keys(commands.SCHEMAS[command], values)),
    )


def _usage(command: str) -> str:
    bare = schema_keys.bare_key(commands.SCHEMAS[command])
    begin = f"usage: cnnbench {as_words(command)} "
    options = "[key=value\0...] [-m] [--cfg\0job] [--config-dir\0DIR] [--config\0FILE]"
    return wrapped(f"[{bare.upper()}\0...] {options}" if bare else options, begin, " " * len(begin))


def _keys(which: type, values: dict[str, Any]) -> list[str]:
    """Entries of the schema's keys; `model` is replaced by the arguments of the net."""
    lines = []
    texts = schema_keys.help_texts(which)
    for key, text in sorted(texts.items(), key=lambda entry: "." in entry[0]):  # keys of daily use come first
        if key in commands.FILLED_IN:
            continue
        if key == "model":
            own = ", ".join(f"{name}={as_typed(value)}" for name, value in values.items() if name.startswith("model."))
            lines.append(entry("model.*", f"{text}: {own}", 36))
        else:
            default = as_typed(values[key]) if key in values else "???"
            lines.append(entry(f"{key}={'' if default == '???' else default}", text, 36))
    return lines
