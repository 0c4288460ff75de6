"""The command line before Hydra sees it: options are put before overrides, paths in quotes, the rest is refused."""

import glob
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from cnnbench.config import commands, schema_keys
from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError, same_named, unknown
from cnnbench.utils.format import is_number

FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--info", "-i", "--config")
PATHS = ("model.file",)  # text among the arguments of a net
TEXT_OR_LIST = ("weights", "input", "prepare.classes", "target")  # a path or a name, or a list of them: [a,b]
LIST_KEYS = ("what", "layer", "units", "images", "precisions", "where")  # a,b is a list, unless a sweep is asked for
QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
SWEPT = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(")  # functions of Hydra
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion")
FLAGS = (*FLAGS_WITH_VALUE, "--multirun", "-m", "--resolve", "--hydra-help")


def hydra_arguments(command: str, args: list[str]) -> list[str]:
    """Arguments as Hydra takes them: options before overrides, text as it was typed. UserError for anything else."""
    options: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    schema, sweep = commands.SCHEMAS[command], is_sweep(args)
    takes_bare, texts = schema_keys.bare_key(schema), {*schema_keys.text_keys(schema), *PATHS}
    remaining = iter(args)
    for arg in remaining:
        if arg == "--" and takes_bare:
            bare += remaining
        elif takes_bare and _is_input(arg, schema):
            if "${" in arg:
                raise UserError(f"{arg}: a name with ${{ in it can only be given on stdin: ls | cnnbench {command} -")
            bare.append(arg)
        elif arg.startswith("-"):
            flag, joined, value = arg.partition("=")
            if flag not in FLAGS:
                raise _unknown_option(command, flag, value if joined else next(remaining, ""))
            options.append(flag)
            if flag in FLAGS_WITH_VALUE:
                value = value if joined else next(remaining, "")
                _check_option(command, flag, value)
                options.append(value)
        elif "=" not in arg and not arg.startswith("~"):
            raise UserError(_bare_argument(command, arg))
        else:
            overrides.append(_quoted(_added(arg), texts, sweep))
    if bare and any(override.startswith(f"{takes_bare}=") for override in overrides):
        raise UserError(f"give either {takes_bare}=… or {' '.join(bare)}, not both")
    if not sweep:
        overrides = [_as_list(override) for override in overrides]
    return options + overrides + ([f"{takes_bare}=[{','.join(map(in_quotes, bare))}]"] if bare else [])


def _added(override: str) -> str:
    """`++model.args.width=8` for `model.args.width=8`: arguments of the user's own net, which no YAML file lists."""
    return f"++{override}" if override.startswith("model.args.") else override


def without_plus(override: str) -> str:
    """The override as it was typed, before `_added()`."""
    return override.removeprefix("++")


def _as_list(override: str) -> str:
    """`what=a,b` as `what=[a,b]`. Items other than numbers are quoted: they may hold characters special to Hydra."""
    key, _, value = override.partition("=")
    if key not in LIST_KEYS or value in ("", "null", "all") or re.fullmatch(rf"\[.*\]|{QUOTED}", value, re.DOTALL):
        return override
    if key == "images" and _exists(value):  # one file, with a comma in its name
        return f"{key}={in_quotes(value)}"
    items = [part if part.isdigit() else in_quotes(part) for part in value.split(",")]
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


def _is_input(arg: str, schema: type) -> bool:
    """Whether an argument without a key is meant: it has no `=`, or it is a path that exists, or what stands before
    the `=` is no key of the command, as in the name of the file `a=b.png`."""
    if arg[:1] == "-":
        return arg == "-"
    if "=" not in arg and arg[:1] != "~":
        return True
    key = arg.partition("=")[0].lstrip("+~")
    known = re.split("[.@]", key)[0] in {*(item.name for item in fields(schema)), *groups(), "hydra"}
    if known or key.startswith("hydra/"):
        return _exists(arg)
    return "=" not in arg or not re.fullmatch(r"[\w.]+", key) or _exists(arg) or bool(glob.glob(arg))  # noqa: PTH207


def _quoted(override: str, texts: set[str], sweep: bool) -> str:
    """Override whose value, where its key takes text, is read by Hydra as it was typed: `data.root=1e3` is no number.

    `null` stays what it is, and so do values in quotes, interpolations, and in a sweep its commas and functions.
    """
    key, _, value = override.partition("=")
    name = key.lstrip("+")
    if name == "crop" and value.isdigit():  # the name of a YAML file; Hydra would read a number
        return f"{key}={in_quotes(value)}"
    takes_list = name in TEXT_OR_LIST and name not in texts
    is_list = takes_list and value[:1] == "[" and value[-1:] == "]"
    if not (takes_list or name in texts) or value in ("", "null") or "${" in value or is_list:
        return override
    if sweep and SWEPT.match(value):
        return override
    if sweep or (takes_list and not _exists(value)):
        return f"{key}={','.join(_as_text(part) for part in _parts(value))}"
    return f"{key}={_as_text(value)}"


def _parts(values: str) -> list[str]:
    """Values between commas that do not stand in quotes."""
    return re.findall(rf"({QUOTED}(?=,)|[^,]*),", f"{values},")


def _as_text(value: str) -> str:
    """Value that Hydra reads as text, in quotes where it would read something else."""
    is_quoted = re.fullmatch(QUOTED, value)
    is_plain = re.fullmatch(r"[\w/+.$%*@:|?-]+", value, re.ASCII) and value.lower() not in ("true", "false", "null")
    return value if is_quoted or (is_plain and not is_number(value)) else in_quotes(value)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def in_quotes(text: str) -> str:
    """Text in single quotes, for Hydra: a backslash is only special before a quote."""
    return "'{}'".format(re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text))


def unquoted(value: str) -> str:
    """Text of a value in quotes; any other value as it is."""
    if not re.fullmatch(QUOTED, value):
        return value
    return re.sub(rf"(\\+)({value[0]}|\Z)", lambda found: len(found[1]) // 2 * "\\" + found[2], value[1:-1])


def command_line(command: str, overrides: Iterable[str]) -> str:
    """Command line to read, and to paste into a shell: quoted once, by the shell's rules alone."""
    texts = schema_keys.text_keys(commands.SCHEMAS[command])
    return shlex.join(["cnnbench", command, *(_without_quotes(override, texts) for override in overrides)])


def _without_quotes(override: str, texts: set[str]) -> str:
    """`what=a,b` for `what=['a','b']`: what the user may type, wherever it is read as the same again."""
    key, _, value = override.partition("=")
    plain = re.sub(QUOTED, lambda quoted: unquoted(quoted[0]), value)
    if key in LIST_KEYS and value[:1] == "[":
        plain = plain.removeprefix("[").removesuffix("]")
    text = f"{key}={plain}"
    return text if _as_list(_quoted(text, texts, sweep=False)) == override else override


def _unknown_option(command: str, flag: str, value: str) -> UserError:
    """As `--lr 0.1` is written elsewhere: the setting that has this name, else all options."""
    word = flag.lstrip("-").replace("-", "_")
    keys = [*schema_keys.help_texts(commands.SCHEMAS[command]), *groups()]
    if same := [key for key in keys if key == word] or same_named(word, keys):
        value = "…" if value.startswith("-") or "=" in value else value
        return UserError(f"{flag}: settings are written without dashes: {same[0]}={value or '…'}")
    return unknown("option", flag, [flag for flag in FLAGS if flag.startswith("--")])


def _bare_argument(command: str, arg: str) -> str:
    for group, names in groups().items():
        if arg in names:
            return f"'{arg}' is not of the form key=value: did you mean {group}={arg}?"
    return f"'{arg}' is not of the form key=value, as in epochs=5; see cnnbench {command} --help"


def sweep_dir(args: list[str]) -> str:
    """Directory of a sweep: the last `sweep.dir=` of a command line, without its quotes."""
    return unquoted([arg for arg in args if arg.startswith("sweep.dir=")][-1].partition("=")[2])


def is_sweep(args: list[str]) -> bool:
    return any(arg in ("-m", "--multirun", "hydra.mode=MULTIRUN") for arg in args)


NO_GROUPS = ("hydra", "claims")  # folders of YAML files that are no choices


def groups(*more: Path) -> dict[str, list[str]]:
    """Groups of YAML files with their choices; `more` are the user's own folders."""
    found: dict[str, set[str]] = {}
    for root in (conf_dir(), *more):
        for file in sorted(root.glob("*/*.yaml")):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(choices) for group, choices in sorted(found.items()) if group not in NO_GROUPS}


def config_dirs(args: list[str]) -> list[Path]:
    """Folders of `--config-dir`: one or none."""
    return [Path(value) for flag, value in pairwise(args) if flag in ("--config-dir", "-cd")]


def typed_keys(cfg: Any) -> set[str]:
    """Keys that were given on the command line of this run: `optim.lr`, or a group such as `data`."""
    return {override.partition("=")[0].lstrip("+~") for override in cfg.run.overrides}
