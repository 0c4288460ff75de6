"""Hydra composes and launches the configuration; its refusals are explained to the user in one to three lines."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from cnnbench.config import commands, parsing, schema_keys
from cnnbench.config.arguments import config_dirs, groups, without_plus
from cnnbench.config.changed_hydra import changed_hydra
from cnnbench.config.elsewhere import hint
from cnnbench.config.sections import Resume, conf_dir
from cnnbench.utils.errors import UserError, did_you_mean, same_named, unknown

PATH_SETTINGS = {  # by group and kind of file: how a path is given
    "data": {"": "data=folder data.root", ".csv": "data=list data.file", ".tsv": "data=list data.file",
             ".npz": "data=arrays data.file", ".py": "data=python data.name=NAME data.file"},
    "model": {".py": "model=python model.name=NAME model.file"},
}  # fmt: skip


def launch(command: str, args: list[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the configuration from args and call `job` with it, once or for each job of a sweep.

    The job must not raise.
    """
    commands.register_schema(command)
    argv, sys.argv = sys.argv, ["cnnbench", *args]
    try:
        with changed_hydra(args):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)()
    except (BrokenPipeError, UserError):
        raise
    except Exception as error:  # Hydra raises more than its own errors for a wrong command line
        raise UserError(explain(error, command, args)) from None
    finally:
        sys.argv = argv


def job_overrides() -> list[str]:
    """Overrides of the job that Hydra is running. UserError where one refers to a key that does not exist."""
    try:
        return [without_plus(override) for override in HydraConfig.get().overrides.task]
    except OmegaConfBaseException as error:
        raise UserError(_reason(str(error))) from None


def typed_config(command: str, cfg: DictConfig, made_by: list[str] | None = None) -> Any:
    """Typed, checked configuration of a job, with the overrides that made it."""
    cfg.run.overrides = job_overrides() if made_by is None else made_by
    for override in cfg.run.overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] in schema_keys.unread_sections(commands.SCHEMAS[command]):
            raise UserError(_unknown_key(key, command, []))
    return parsing.parse(commands.SCHEMAS[command], cfg)


def search_path(args: list[str]) -> list[str]:
    """Override that adds the folder of `--config-dir` to Hydra's search path; empty where there is none."""
    return [f"hydra.searchpath=[file://{folder.absolute()}]" for folder in config_dirs(args)]


@contextmanager
def composing() -> Iterator[None]:
    """Hydra, ready to compose, within a command that it runs as well."""
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def compose(command: str, args: list[str]) -> DictConfig:
    """Composed configuration of a command; nothing runs. args may hold `--config-dir`."""
    commands.register_schema(command)
    overrides = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    overrides += search_path(args)
    with composing():
        return hydra.compose(command, overrides)


def replay_config(command: str, file: list[str], overrides: list[str]) -> Any:
    """Configuration that an earlier run saved, with single keys overridden: `--config FILE key=value`."""
    if not file:
        raise UserError("--config needs the config.yaml of an earlier run")
    for override in overrides:
        key = override.partition("=")[0]
        if override.startswith("-"):
            raise UserError(f"--config replays one run: it does not go with {override}")
        if "${" in override:
            raise UserError(f"{override}: with --config write the value itself")
        if key in groups():
            raise UserError(f"{override}: --config replays a run as it was; only single keys can change, as in seed=1")
    config = parsing.load_saved(command, Path(file[0]), overrides)
    if config.model:
        config.model = _own_code(config.model, "model", overrides)
    config.data = replace(config.data, **_own_code(vars(config.data), "data", overrides))
    if not any(override.startswith(("run.dir=", "run.name=")) for override in overrides):
        config.run.dir, config.resume = None, Resume.never  # a new run: the replayed one stays as it is
    config.run.overrides, config.sweep.trial = [*config.run.overrides, *overrides], None
    return config


def _own_code(section: dict[str, Any], group: str, overrides: list[str]) -> dict[str, Any]:
    """What a saved configuration says of the net or the data. UserError where it would run code that neither it nor
    the user vouches for. A file that is given again is trusted, whatever its content."""
    if section.get("source") != "python":
        return section
    if any(override.startswith((f"{group}.file=", f"{group}.name=")) for override in overrides):
        return {**section, "sha256": None}
    if not section.get("sha256"):
        raise UserError("--config names Python code without its SHA-256: give the file again, as "
                        f"{group}.file=my{group if group == 'data' else 'net'}.py")  # fmt: skip
    return section


def explain(error: Exception, command: str, args: list[str]) -> str:
    """Error of Hydra or OmegaConf in one to three lines, with the choices and the nearest of them."""
    text, cause = str(error), str(error.__cause__ or "")
    if isinstance(error, SearchPathException):
        return f"--config-dir: {text[0].lower()}{text[1:]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        if told := _path_for_name(str(error.missing_cfg_file)):
            return told
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "recipe" and not any(arg.startswith("recipe=") for arg in args):
            return f"data={choice} has no recipe of its own: choose one, as in recipe=folder"
        if group:
            return _unknown_choice(
                group, choice, list(error.options or groups(*config_dirs(args)).get(group, ["none yet"]))
            )
    if found := re.match(r"In '(.+?)': \w+ raised while composing config:\n(.*)", text, re.DOTALL):
        return f"{found[1]}.yaml: {_reason_in_file(found[2], command, args)}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: no YAML: {error.problem}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], command, args)
    if found := re.search(r"Ambiguous value for argument '(.+?)'", text):
        decimal = "; a decimal is written with a point" if re.search(r"=-?0,\d+$", found[1]) else ""
        return f"{found[1]} has several values: add -m for a sweep over them, or write [a,b] for a list{decimal}"
    if found := re.search(r"An item is already at '(.+?)'", text):
        return f"+{found[1]}: this key exists: write it without the plus sign"
    if found := re.search(r"Error merging override (.+)", text):
        return f"{found[1].strip()}: {_reason(cause or text)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override}: lists are written [a,b], special characters need quotes: 'key=\"value\"'"
    if "Config group override must be a string" in text:
        return _wrong_choice(args)
    return _reason(cause or text)


def _path_for_name(missing: str) -> str | None:
    """Sentence on a path where a name belongs, as in `data=photos/`; None where `missing`, group/choice, is no path."""
    group, _, value = missing.partition("/")
    path = Path(value)
    if group not in PATH_SETTINGS or not ("/" in value or path.exists()):
        return None
    setting = PATH_SETTINGS[group].get("" if path.is_dir() else path.suffix)
    return f"{group}= takes a name, not a path: {setting}={path}" if setting else None


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    """Message for a name that a group does not have; of a net, with where it is, unless one of ours is nearer."""
    said = str(unknown(group, choice, options))
    elsewhere = hint(choice, options) if group == "model" else ""
    return "\n".join([f"unknown model '{choice}'. {elsewhere}", *said.splitlines()[1:]]) if elsewhere else said


def _unknown_key(key: str, command: str, args: list[str]) -> str:
    known = known_keys(command, args, key)
    if any(name.startswith(f"{key}.") for name in known):
        return f"'{key}' is a section, not a single value: set one of its keys, as in {_first_in(key, known)}=…"
    section, _, last = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    same = same_named(last, known)
    near = f" Did you mean '{same[0]}'?" if same else did_you_mean(key, siblings if section and siblings else known)
    return f"unknown key '{key}'.{near}\nchoices: {', '.join(siblings or [n for n in known if '.' not in n])}"


def _wrong_choice(args: list[str]) -> str:
    """Message for a group whose choice is not a name. Hydra does not say which group it was."""
    for arg in args:
        group, _, choice = arg.partition("=")
        if group in groups() and choice not in (names := groups(*config_dirs(args))[group]):
            return str(unknown(group, choice, names))
    return "a group takes the name of one of its YAML files"


def _reason_in_file(text: str, command: str, args: list[str]) -> str:
    """Why a YAML file of the user's was refused: answered as the same key on the command line is."""
    found = re.search(r"full_key: (\S+)", text)
    if found and re.match(r"Key '.*?' (not in|is not in struct)", text):
        return _unknown_key(found[1], command, args)
    return f"{found[1]}: {_reason(text)}" if found else _reason(text)


def _first_in(section: str, known: list[str]) -> str:
    return next(name for name in known if name.startswith(f"{section}."))


def known_keys(command: str, args: list[str], key: str) -> list[str]:
    """Keys that a command takes; also the arguments of the chosen net, where `key` is one of a net."""
    known = {*schema_keys.help_texts(commands.SCHEMAS[command]), *command_groups(command)} - set(commands.FILLED_IN)
    if key.startswith("hydra."):
        known |= _plugin_keys(args)
    if key.startswith("model."):
        chosen = [arg for arg in args if arg.partition("=")[0] in command_groups(command) and "," not in arg]
        folders = [part for folder in config_dirs(args) for part in ("--config-dir", str(folder))]
        with suppress(HydraException, OmegaConfBaseException):  # the choice itself may be wrong
            model = compose(command, [*folders, *chosen]).model
            known |= {f"model.{name}" for name in model or {}}
    return sorted(known)


def _plugin_keys(args: list[str]) -> set[str]:
    """Settings of the chosen sweeper and launcher, where they are cnnbench's own."""
    chosen = [arg.partition("=")[::2] for arg in args if arg.startswith(("hydra/sweeper=", "hydra/launcher="))]
    files = [(group, conf_dir() / group / f"{name}.yaml") for group, name in chosen]
    keys = [(group, str(key)) for group, file in files if file.is_file() for key in OmegaConf.load(file)]
    return {f"{group.replace('/', '.')}.{key}" for group, key in keys if key not in ("defaults", "_target_")}


def command_groups(command: str) -> list[str]:
    """Groups of a command: those in the defaults list of its primary file, and those that its recipes choose."""
    primary = OmegaConf.load(conf_dir() / f"{command}.yaml")
    entries = [str(key) for entry in primary.defaults if isinstance(entry, DictConfig) for key in entry]
    unread = schema_keys.unread_sections(commands.SCHEMAS[command])
    listed = [entry for entry in entries if not entry.startswith("override ") and entry not in unread]
    return [*listed, "augment"] if "recipe" in listed else listed


def _reason(text: str) -> str:
    """First line of an error, without the dotted names that only a programmer can read."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it was refused")
    types = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}
    if found := re.search(r"Value '(.*?)' of type '.*?' could not be converted to (\w+)", line):
        return f"'{found[1]}' is not {types.get(found[2], found[2])}"
    if found := re.search(r"Value '(.*?)' is not a valid bool", line):
        return f"'{found[1]}' is not {types['Boolean']}"
    if found := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", line):
        return str(unknown("value", found[1], found[2].split(", ")))
    return line[0].lower() + line[1:]
