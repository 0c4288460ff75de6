"""The command line before Hydra sees it: options are put before overrides, paths in quotes, the rest is refused."""

import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from cnnbench.config import commands
from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError, unknown

FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--info", "-i", "--config")
PATH_KEYS = (
    "weights",
    "input",
    "out",
    "sheet",
    "prepare.classes",
    "run.dir",
    "run.name",
    "run.root",
    "sweep.dir",
    "data.root",
    "data.packed",
)
LIST_KEYS = ("what", "layer", "units", "images", "precisions", "where")  # a,b is a list, unless a sweep is asked for
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion")
FLAGS = (*FLAGS_WITH_VALUE, "--multirun", "-m", "--resolve", "--hydra-help")


def hydra_arguments(command: str, args: list[str]) -> list[str]:
    """Arguments as Hydra takes them: options before overrides. UserError for anything else."""
    options: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    takes_bare = commands.bare_key(commands.SCHEMAS[command])
    remaining = iter(args)
    for arg in remaining:
        if takes_bare and (arg == "-" or ("=" not in arg and arg[0:1] not in ("-", "~"))):
            if "${" in arg:
                raise UserError(f"{arg}: a name with ${{ in it can only be given on stdin: ls | cnnbench {command} -")
            bare.append(arg)
        elif arg.startswith("-"):
            flag, joined, value = arg.partition("=")
            if flag not in FLAGS:
                raise unknown("option", flag, [flag for flag in FLAGS if flag.startswith("--")])
            options.append(flag)
            if flag in FLAGS_WITH_VALUE:
                value = value if joined else next(remaining, "")
                _check_option(command, flag, value)
                options.append(value)
        elif "=" not in arg and not arg.startswith("~"):
            raise UserError(_bare_argument(command, arg))
        else:
            overrides.append(_quoted(arg))
    if bare and any(override.startswith(f"{takes_bare}=") for override in overrides):
        raise UserError(f"give either {takes_bare}=… or {' '.join(bare)}, not both")
    if not is_sweep(options):
        overrides = [_as_list(override) for override in overrides]
    return options + overrides + ([f"{takes_bare}=[{','.join(map(_in_quotes, bare))}]"] if bare else [])


def _as_list(override: str) -> str:
    """`what=a,b` as `what=[a,b]`. Items other than numbers are quoted: they may hold characters special to Hydra."""
    key, _, value = override.partition("=")
    if key not in LIST_KEYS or value[:1] in ("", "[", "'", '"') or value in ("null", "all"):
        return override
    items = [part if part.isdigit() else _in_quotes(part) for part in value.split(",")]
    return f"{key}=[{','.join(items)}]" if len(items) > 1 else f"{key}={items[0]}"


def _check_option(command: str, flag: str, value: str) -> None:
    if not value:
        raise UserError(f"{flag} needs a value; see cnnbench {command} --help")
    if flag in ("--cfg", "-c") and value not in ("job", "hydra", "all"):
        raise unknown("value of --cfg", value, ("job", "hydra", "all"))
    if flag in ("--info", "-i") and value not in INFOS:
        raise unknown("value of --info", value, INFOS)
    if flag in ("--config-dir", "-cd") and not Path(value).is_dir():
        raise UserError(f"--config-dir: there is no folder {value}")


def _quoted(override: str) -> str:
    """Put a path in quotes: blanks, equals signs and the like are special to Hydra."""
    key, _, value = override.partition("=")
    if key == "crop" and value.isdigit():  # the name of a YAML file; Hydra would read a number
        return f"{key}={_in_quotes(value)}"
    if (
        key not in PATH_KEYS
        or re.fullmatch(r"[\w/+.$%*@:|?,-]*", value, re.ASCII)
        or value[:1] in ("'", '"', "")
        or (value[0] == "[" and value[-1] == "]")
        or "${" in value
    ):
        return override
    return f"{key}={_in_quotes(value)}"


def _in_quotes(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))


def command_line(command: str, overrides: Iterable[str]) -> str:
    """Command line to read, and to paste into a shell: quoted once, by the shell's rules alone."""
    return shlex.join(["cnnbench", command, *map(_without_quotes, overrides)])


def _without_quotes(override: str) -> str:
    """`what=a,b` for `what=['a','b']`: what the user may type, wherever it is read as the same again."""
    key, _, value = override.partition("=")
    plain = re.sub(r"'((?:[^'\\]|\\.)*)'", lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1]), value)
    if key in LIST_KEYS and value[:1] == "[":
        plain = plain.removeprefix("[").removesuffix("]")
    text = f"{key}={plain}"
    return text if _as_list(_quoted(text)) == override else override


def _bare_argument(command: str, arg: str) -> str:
    for group, names in groups().items():
        if arg in names:
            return f"'{arg}' is not of the form key=value: did you mean {group}={arg}?"
    return f"'{arg}' is not of the form key=value, as in epochs=5; see cnnbench {command} --help"


def sweep_dir(args: list[str]) -> str:
    """Directory of a sweep: the last `sweep.dir=` of a command line, without its quotes."""
    value = [arg for arg in args if arg.startswith("sweep.dir=")][-1].partition("=")[2]
    quoted = value[:1] in ("'", '"') and value[-1:] == value[:1]
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value


def is_sweep(args: list[str]) -> bool:
    return any(arg in ("-m", "--multirun", "hydra.mode=MULTIRUN") for arg in args)


def groups(*more: Path) -> dict[str, list[str]]:
    """Groups of YAML files with their choices; `more` are the user's own folders."""
    found: dict[str, set[str]] = {}
    for root in (conf_dir(), *more):
        for file in sorted(root.glob("*/*.yaml")):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(choices) for group, choices in sorted(found.items()) if group != "hydra"}


def config_dirs(args: list[str]) -> list[Path]:
    """Folders of `--config-dir`: one or none."""
    return [Path(value) for flag, value in pairwise(args) if flag in ("--config-dir", "-cd")]


def typed_keys(cfg: Any) -> set[str]:
    """Keys that were given on the command line of this run: `optim.lr`, or a group such as `data`."""
    return {override.partition("=")[0].lstrip("+~") for override in cfg.run.overrides}
