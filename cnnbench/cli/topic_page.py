"""`cnnbench help WORD`: what a group of choices, one of its choices, a section or a key is for."""

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cnnbench.cli.wrapped import entry, wrapped
from cnnbench.config import commands, schema_keys
from cnnbench.config.arguments import config_dirs, groups
from cnnbench.config.compose import command_groups
from cnnbench.config.parsing import as_typed, flatten
from cnnbench.config.registry import COMMANDS, as_words
from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError, did_you_mean, same_named, unknown

PARAGRAPH = re.compile(r"\w+: |\s+cnnbench ")  # beginning of one, in the comment of a YAML file


def render_topic(word: str, args: list[str]) -> str:
    """Page of `data`, `data=folder`, `optim.lr` or `checkpoint`. UserError where nothing has this name."""
    folders = [conf_dir(), *config_dirs(args)]
    known, texts = groups(*folders[1:]), _texts()
    group, chosen, choice = word.partition("=")
    if chosen and group in known:
        if choice not in known[group]:
            raise unknown(group, choice, known[group])
        return _of_choice(group, choice, folders, texts)
    keys = [key for key in texts if key == group or key.startswith(f"{group}.")]
    if group not in known and not keys:
        raise _unknown_word(word, known, texts)
    choices = [entry(f"{group}={name}", _sentence(_comment(_file(group, name, folders))), 24)
               for name in known.get(group, [])]  # fmt: skip
    parts = {"choices": choices, "keys": [entry(key, texts[key], 36) for key in keys]}
    return "\n".join([wrapped(f"{group}: of {', '.join(_takers(group, keys))}"), *_headed(parts)])


def _headed(parts: dict[str, list[str]]) -> list[str]:
    """Lines of the parts that are not empty, each below its heading."""
    return [line for heading, lines in parts.items() if lines for line in (f"\n{heading}", *lines)] + [""]


def _of_choice(group: str, choice: str, folders: list[Path], texts: dict[str, str]) -> str:
    comment = _comment(_file(group, choice, folders))
    body = OmegaConf.to_container(OmegaConf.load(_file(group, choice, folders)))
    body = body if isinstance(body, dict) else {}
    begins = [_chosen(group, one) for one in body.pop("defaults", []) if one != "_self_"]
    swept = OmegaConf.select(OmegaConf.create({"hydra": body.pop("hydra", None)}), "hydra.sweeper.params") or {}
    is_global = "# @package _global_" in _file(group, choice, folders).read_text(encoding="utf-8")
    values = flatten({str(key): value for key, value in (body if is_global else {group: body}).items()})
    parts = {
        "begins with": [f"  {one}" for one in begins],
        "sets": [entry(f"{key}={as_typed(value)}", texts.get(key, ""), 36) for key, value in values.items()],
        "with -m it is a sweep over": [
            entry(f"{key}=", str(value).replace(",", ", "), 24) for key, value in swept.items()
        ],
    }
    return "\n".join([f"{group}={choice}\n", *map(wrapped, _paragraphs(comment)), *_headed(parts)])


def _chosen(group: str, default: Any) -> str:
    """An item of a defaults list as it is typed: `{"/augment": "flip"}` as `augment=flip`, `sgd` as `optim=sgd`."""
    if isinstance(default, dict):
        return ", ".join(f"{str(key).removeprefix('override ').lstrip('/')}={name}" for key, name in default.items())
    return f"{group}={default}"


def _takers(group: str, keys: list[str]) -> list[str]:
    """Commands that take a group or any of these keys, as they are typed."""
    return [as_words(command) for command, schema in commands.SCHEMAS.items()
            if {*keys} & {*schema_keys.help_texts(schema)} or group in command_groups(command)]  # fmt: skip


def _texts() -> dict[str, str]:
    """What each key of any command is for; where commands differ, as the first of them says."""
    found: dict[str, str] = {}
    for schema in commands.SCHEMAS.values():
        found = {**schema_keys.help_texts(schema), **found}
    return {key: text for key, text in found.items() if key not in commands.FILLED_IN}


def _unknown_word(word: str, known: dict[str, list[str]], texts: dict[str, str]) -> UserError:
    """The group that has a choice of this name, or the key; else what is near."""
    named = [f"{group}={word}" for group, names in known.items() if word in names] + same_named(word, texts)
    words = [*map(as_words, COMMANDS), *known]
    near = did_you_mean(word, {*words, *texts, *(key.rpartition(".")[0] for key in texts)})
    meant = f" Did you mean '{named[0]}'?" if named else near
    return UserError(f"help: nothing is called '{word}'.{meant}\ncommands and groups: {', '.join(words)}")


def _file(group: str, choice: str, folders: list[Path]) -> Path:
    """YAML file of a choice: the user's own before cnnbench's."""
    files = [folder / group / f"{choice}.yaml" for folder in reversed(folders)]
    return next(file for file in files if file.is_file())


def _comment(file: Path) -> list[str]:
    """Lines of the comment that a YAML file begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.lstrip("#").removeprefix(" ") for line in lines[:end] if "@package" not in line]


def _paragraphs(lines: list[str]) -> list[str]:
    """A comment's lines, joined where none begins a paragraph."""
    found: list[str] = []
    for line in lines:
        if found and not PARAGRAPH.match(line):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


def _sentence(comment: list[str]) -> str:
    """First sentence of a comment."""
    return re.split(r"(?<=[^.]\w[.)])\s+(?=[A-Z])", " ".join(comment), maxsplit=1)[0]
