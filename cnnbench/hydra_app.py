"""Between the command line and Hydra: what Hydra is given, and what the user is told when it refuses.

With config.py the only place that knows Hydra.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnbench import config as schema
from cnnbench.errors import UserError, did_you_mean, unknown

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
LIST_KEYS = ("what", "layer", "units", "images", "precisions", "where")  # a,b is a list where no sweep is asked for
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion")
EXTRAS = {"hydra/launcher/ray": "ray", "hydra/launcher/submitit_slurm": "slurm"}
FLAGS = (*FLAGS_WITH_VALUE, "--multirun", "-m", "--resolve", "--hydra-help")


def check_arguments(command: str, args: list[str]) -> list[str]:
    """The arguments as Hydra wants them: options before overrides. Refuses, in our own words, what is neither."""
    options: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    takes_bare = schema.bare(schema.SCHEMAS[command])
    remaining = iter(args)
    for arg in remaining:
        if takes_bare and (arg == "-" or ("=" not in arg and arg[0:1] not in ("-", "~"))):
            if "${" in arg:
                raise UserError(f"{arg}: names with ${{ in them are taken from stdin alone: ls | cnnbench {command} -")
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
    """`what=a,b` as `what=[a,b]`, each in quotes unless it is a number: names and paths may hold signs of Hydra's."""
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
    """A path may hold signs that mean something to Hydra, such as blanks and equals signs: quote it for the user."""
    key, _, value = override.partition("=")
    if key == "crop" and value.isdigit():  # the name of a YAML file, which Hydra would take for a number
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


def _bare_argument(command: str, arg: str) -> str:
    for group, names in groups().items():
        if arg in names:
            return f"what is '{arg}'? Settings are written key=value: did you mean {group}={arg}?"
    return f"what is '{arg}'? Settings are written key=value, as in epochs=5; see cnnbench {command} --help"


def jobs(args: list[str]) -> tuple[list[list[str]], list[str]] | None:
    """The overrides of each job of a sweep, and the keys that it runs over; None where a sweeper chooses as it goes,
    and where nothing is run. A mistake is left to be found by `launch()`."""
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    flags = [arg.partition("=")[0] for arg in args]
    if any(flag in SHOWS for flag in flags) or any(arg.startswith("hydra/sweeper=") for arg in given):
        return None
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(schema.conf_dir())):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(given)
            combined = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except Exception:  # as in launch(), which says it
        return None
    swept = [arg.partition("=")[2] for arg in given if arg.startswith("sweep.keys=")][-1]
    return combined, swept.strip("[]").split(",")


def sweep_dir(args: list[str]) -> Path:
    """Where a sweep lives: the last `sweep.dir=` of a command line, which may be in quotes."""
    value = [arg for arg in args if arg.startswith("sweep.dir=")][-1].partition("=")[2]
    quoted = value[:1] in ("'", '"') and value[-1:] == value[:1]
    return Path(re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value)


def is_sweep(args: list[str]) -> bool:
    return any(arg in ("-m", "--multirun", "hydra.mode=MULTIRUN") for arg in args)


def swept_by_experiment(args: list[str]) -> list[str]:
    """What the file of `experiment=` sweeps over (its `hydra.sweeper.params`), apart from what args set themselves.

    Hydra would find it too; but whoever names and counts the jobs has to know it beforehand.
    """
    settings = dict(arg.partition("=")[::2] for arg in args if "=" in arg and not arg.startswith("-"))
    names = settings.get("experiment", "").split(",")
    files = [file for name in names for root in (*config_dirs(args), schema.conf_dir())
             if (file := root / "experiment" / f"{name}.yaml").is_file()]  # fmt: skip
    params = [OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or {} for file in files]
    if len(names) > 1 and any(params):
        raise UserError("one experiment at a time: each has a sweep of its own")
    return [f"{key}={value}" for found in params[:1] for key, value in found.items() if key not in settings]


def groups(*more: Path) -> dict[str, list[str]]:
    """The groups of YAML files and their choices, also those of the user's own folders."""
    found: dict[str, set[str]] = {}
    for root in (schema.conf_dir(), *more):
        for file in sorted(root.glob("*/*.yaml")):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(choices) for group, choices in sorted(found.items()) if group != "hydra"}


def config_dirs(args: list[str]) -> list[Path]:
    """The folder of `--config-dir`, if there is one."""
    return [Path(value) for flag, value in pairwise(args) if flag in ("--config-dir", "-cd")]


def launch(command: str, args: list[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the configuration from args and call the job with it, once or per job. It must not raise."""
    schema.register_schemas()
    _prepare_launcher(args)
    argv, sys.argv = sys.argv, ["cnnbench", *args]
    try:
        with _hydra_raises(), _composed_by_launcher(args):
            hydra.main(version_base="1.3", config_path=str(schema.conf_dir()), config_name=command)(job)()
    except (BrokenPipeError, UserError):
        raise
    except Exception as error:  # Hydra raises more kinds than its own for a command line that it does not like
        raise UserError(explain(error, command, args)) from None
    finally:
        sys.argv = argv


def _prepare_launcher(args: list[str]) -> None:
    """Make ours known to Hydra where one is asked for, and say what is missing for it."""
    choices = [arg.partition("=")[2] for arg in args if arg.startswith("hydra/launcher=")]
    if choices and choices[-1] == "slurm":
        from cnnbench import queueing

        queueing.check(choices[-1])
    detach = any(arg.lower() == "sweep.detach=true" for arg in args)
    if detach and choices[-1:] in ([], ["basic"], ["local"], ["ray"]):
        raise UserError("sweep.detach=true leaves the jobs to a scheduler: it needs hydra/launcher=slurm")
    if choices or any(arg.startswith("hydra/sweeper=") for arg in args):
        from cnnbench import launchers

        launchers.register()


def overrides() -> list[str]:
    """Those of the job that Hydra is running. UserError where one refers to what is not there."""
    try:
        return list(HydraConfig.get().overrides.task)
    except OmegaConfBaseException as error:
        raise UserError(_reason(str(error))) from None


def typed(command: str, cfg: DictConfig, made_by: list[str] | None = None) -> Any:
    """The job's configuration, checked, with the overrides that made it."""
    cfg.run.overrides = overrides() if made_by is None else made_by
    for override in cfg.run.overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] in schema.unread(schema.SCHEMAS[command]):
            raise UserError(_unknown_key(key, command, []))
    return schema.parse(schema.SCHEMAS[command], cfg)


def combinations(command: str, args: list[str]) -> list[Any]:
    """The typed configuration of each job of a sweep, in order: nothing runs and no file is written.

    Empty where there is nothing to combine, and where Hydra is only asked to show something (`--cfg`).
    """
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    if any(flag.partition("=")[0] in SHOWS for flag in args):
        return []
    schema.register_schemas()
    made_by: list[str] = given
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(schema.conf_dir())):
            search = _search_path(args)
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(given)
            if not is_sweep(args) and not any(override.is_sweep_override() for override in parsed):
                return []
            configs = []
            for made_by in BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]:
                configs.append(typed(command, hydra.compose(command, [*made_by, *search]), made_by))
            return configs
    except UserError:
        raise
    except Exception as error:  # as in launch()
        raise UserError(explain(error, command, [*made_by, *(a for a in args if a not in given)])) from None


def readings(args: list[str]) -> list[tuple[Any, Any]]:
    """For `doctor config [train|finetune] …`: each configuration that the arguments stand for, with its recipe, which
    is what the same choice of net and data has when nothing else is set."""
    command, args = (args[0], args[1:]) if args[:1] in (["train"], ["finetune"]) else ("train", args)
    args = check_arguments(command, args)
    if "--config" in args:
        at = args.index("--config")
        configs = [replay(command, args[at + 1 :][:1], args[:at] + args[at + 2 :])]
    else:
        args += swept_by_experiment(args) if is_sweep(args) else []
        configs = combinations(command, args) or [_one(command, [arg for arg in args if "=" in arg], args)]
    return [(config, _one(command, _chosen(config.run.overrides), args)) for config in configs]


def _chosen(overrides: list[str]) -> list[str]:
    """The overrides that say what is trained on what; all others are to be compared with what goes with these."""
    return [text for text in overrides if re.match(r"\+?(model|data|recipe|experiment|transfer)\b", text)]


def _one(command: str, overrides: list[str], args: list[str]) -> Any:
    folders = [part for folder in config_dirs(args) for part in ("--config-dir", str(folder))]
    try:
        return typed(command, compose(command, [*folders, *overrides]), overrides)
    except UserError:
        raise
    except Exception as error:  # as in launch()
        raise UserError(explain(error, command, [*overrides, *folders])) from None


def _search_path(args: list[str]) -> list[str]:
    return [f"hydra.searchpath=[file://{folder.absolute()}]" for folder in config_dirs(args)]


@contextmanager
def _composed_by_launcher(args: list[str]) -> Iterator[None]:
    """Hydra composes each job of a sweep for a trial before it starts any; our own launchers do so by themselves."""
    before = BasicSweeper.validate_batch_is_legal
    if any(arg.startswith("hydra/launcher=") for arg in args):
        BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        BasicSweeper.validate_batch_is_legal = before  # type: ignore[method-assign]


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints a refusal in several lines and exits, unless told to raise it: we want to say it ourselves."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def compose(command: str, args: list[str]) -> DictConfig:
    """The configuration of a command, for those who only want to look at it. args may hold `--config-dir`."""
    schema.register_schemas()
    overrides = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    overrides += _search_path(args)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(schema.conf_dir())):
        return hydra.compose(command, overrides)


def replay(command: str, file: list[str], overrides: list[str]) -> Any:
    """The configuration in a file that an earlier run saved, with single keys overridden: `--config FILE key=value`."""
    if not file:
        raise UserError("--config needs the config.yaml of an earlier run")
    for override in overrides:
        key = override.partition("=")[0]
        if override.startswith("-"):
            raise UserError(f"--config replays one run, so it does not go with {override}")
        if key in groups():
            raise UserError(
                f"{override}: --config replays a run as it was, so only single keys can change, as in seed=1"
            )
    config = schema.replay(command, Path(file[0]), overrides)
    if not any(override.startswith(("run.dir=", "run.name=")) for override in overrides):
        config.run.dir, config.resume = None, schema.Resume.never  # a run of its own: the replayed one stays as it is
    config.run.overrides, config.sweep.trial = [*config.run.overrides, *overrides], None
    return config


def explain(error: Exception, command: str, args: list[str]) -> str:
    """A refusal of Hydra or OmegaConf in one to three lines, with the choices and the nearest of them."""
    text, cause = str(error), str(error.__cause__ or "")
    if isinstance(error, SearchPathException):
        return f"--config-dir: {text[0].lower()}{text[1:]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if extra := EXTRAS.get(f"{group}/{choice}"):
            return f"{choice} is not installed: pip install 'cnnbench[{extra}]'"
        if group == "recipe" and not any(arg.startswith("recipe=") for arg in args):
            return f"data={choice} has no recipe of its own: say which to use, as in recipe=folder"
        if group:
            return str(unknown(group, choice, error.options or ["none yet"]))
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], command, args)
    if found := re.search(r"Ambiguous value for argument '(.+?)'", text):
        return f"{found[1]} has several values: add -m for a sweep over them, or write [a,b] for a list"
    if found := re.search(r"An item is already at '(.+?)'", text):
        return f"+{found[1]}: this key exists, so write it without the plus sign"
    if found := re.search(r"Error merging override (.+)", text):
        return f"{found[1].strip()}: {_reason(cause or text)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override}: lists are written [a,b], and other signs need quotes: 'key=\"value\"'"
    if "Config group override must be a string" in text:
        return _wrong_choice(args)
    return _reason(cause or text)


def _unknown_key(key: str, command: str, args: list[str]) -> str:
    known = known_keys(command, args, key)
    if any(name.startswith(f"{key}.") for name in known):
        return f"'{key}' is a section, not a single value: set one of its keys, as in {_first_in(key, known)}=…"
    section = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    near = did_you_mean(key, siblings if section and siblings else known)
    return f"unknown key '{key}'.{near}\nchoices: {', '.join(siblings or [n for n in known if '.' not in n])}"


def _wrong_choice(args: list[str]) -> str:
    """Of a group that was given something else than a name: Hydra does not say which."""
    for arg in args:
        group, _, choice = arg.partition("=")
        if group in groups() and choice not in (names := groups(*config_dirs(args))[group]):
            return str(unknown(group, choice, names))
    return "a group takes the name of one of its YAML files"


def _first_in(section: str, known: list[str]) -> str:
    return next(name for name in known if name.startswith(f"{section}."))


def known_keys(command: str, args: list[str], key: str) -> list[str]:
    """The keys that this command takes; the arguments of the chosen net too, where the key in question is such."""
    known = {*schema.help_texts(schema.SCHEMAS[command]), *takes(command)} - set(schema.FILLED_IN)
    if key.startswith("hydra."):
        known |= _plugin_keys(args)
    if key.startswith("model."):
        chosen = [arg for arg in args if arg.partition("=")[0] in takes(command) and "," not in arg]
        folders = [part for folder in config_dirs(args) for part in ("--config-dir", str(folder))]
        with suppress(HydraException, OmegaConfBaseException):  # a choice may be what is wrong
            model = compose(command, [*folders, *chosen]).model
            known |= {f"model.{name}" for name in model or {}}
    return sorted(known)


def _plugin_keys(args: list[str]) -> set[str]:
    """The settings of the sweeper and the launcher that are asked for, where they are ours."""
    chosen = [arg.partition("=")[::2] for arg in args if arg.startswith(("hydra/sweeper=", "hydra/launcher="))]
    files = [(group, schema.conf_dir() / group / f"{name}.yaml") for group, name in chosen]
    keys = [(group, str(key)) for group, file in files if file.is_file() for key in OmegaConf.load(file)]
    return {f"{group.replace('/', '.')}.{key}" for group, key in keys if key not in ("defaults", "_target_")}


def takes(command: str) -> list[str]:
    """The groups that a command knows: those in the defaults list of its primary file, and what its recipes choose."""
    primary = OmegaConf.load(schema.conf_dir() / f"{command}.yaml")
    entries = [str(key) for entry in primary.defaults if isinstance(entry, DictConfig) for key in entry]
    unread = schema.unread(schema.SCHEMAS[command])
    listed = [entry for entry in entries if not entry.startswith("override ") and entry not in unread]
    return [*listed, "augment"] if "recipe" in listed else listed


def _reason(text: str) -> str:
    """The first line of an error, without the dotted names that only a programmer can read."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it was refused")
    types = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}
    if found := re.search(r"Value '(.*?)' of type '.*?' could not be converted to (\w+)", line):
        return f"'{found[1]}' is not {types.get(found[2], found[2])}"
    if found := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", line):
        return str(unknown("value", found[1], found[2].split(", ")))
    return line[0].lower() + line[1:]
