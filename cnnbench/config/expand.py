"""Jobs of a sweep and their configurations, composed without running any of them."""

import re
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from yaml import YAMLError

from cnnbench.config import commands
from cnnbench.config.arguments import FLAGS_WITH_VALUE, SHOWS, config_dirs, hydra_arguments, is_sweep
from cnnbench.config.compose import compose, composing, explain, replay_config, search_path, typed_config
from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError

READ = ("train", "finetune")  # commands that `doctor config` reviews; the first is the default


def sweep_jobs(args: list[str]) -> tuple[list[list[str]], list[str]] | None:
    """Overrides of each job of a sweep, and the keys that it runs over.

    None where a sweeper chooses the jobs one after another, where nothing is run, and for a wrong command line: the
    error is raised by `compose.launch()`.
    """
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    flags = [arg.partition("=")[0] for arg in args]
    if any(flag in SHOWS for flag in flags) or any(arg.startswith("hydra/sweeper=") for arg in given):
        return None
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(given)
            combined = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except Exception:  # compose.launch() will raise it again, and explain it
        return None
    swept = [arg.partition("=")[2] for arg in given if arg.startswith("sweep.keys=")][-1]
    return combined, swept.strip("[]").split(",")


def swept_by_experiment(args: list[str]) -> list[str]:
    """Overrides that the file of `experiment=` sweeps over (its `hydra.sweeper.params`), without keys that args set.

    Hydra finds them too, but the jobs are named and counted before Hydra runs.
    """
    settings = dict(arg.partition("=")[::2] for arg in args if "=" in arg and not arg.startswith("-"))
    names = settings.get("experiment", "").split(",")
    files = [file for name in names for root in (*config_dirs(args), conf_dir())
             if (file := root / "experiment" / f"{name}.yaml").is_file()]  # fmt: skip
    try:
        params = [OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or {} for file in files]
    except YAMLError:  # compose.launch() will raise it again, and explain it
        return []
    if len(names) > 1 and any(params):
        raise UserError("give one experiment at a time: each has a sweep of its own")
    return [f"{key}={value}" for found in params[:1] for key, value in found.items() if key not in settings]


def warn_of_one_job(args: list[str]) -> None:
    """Warn where the file of `experiment=` describes a sweep, and the command line asks for one job."""
    if any(arg.partition("=")[0] in SHOWS for arg in args):
        return
    if swept := [override.partition("=")[0] for override in swept_by_experiment(args)]:
        from cnnbench.utils.console import warn

        warn(f"the experiment is a sweep over {', '.join(swept)}: without -m this is one job of it")


def combinations(command: str, args: list[str]) -> list[Any]:
    """Typed configuration of each job of a sweep, in order. Nothing runs and no file is written.

    Empty where there is no sweep, and where Hydra is only asked to show something (`--cfg`).
    """
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    if any(flag.partition("=")[0] in SHOWS for flag in args):
        return []
    commands.register_schema(command)
    made_by: list[str] = given
    try:
        with composing():
            search = search_path(args)
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(given)
            if not is_sweep(args) and not any(override.is_sweep_override() for override in parsed):
                return []
            configs = []
            for made_by in BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]:
                configs.append(typed_config(command, hydra.compose(command, [*made_by, *search]), made_by))
            return configs
    except UserError:
        raise
    except Exception as error:  # as in compose.launch()
        raise UserError(explain(error, command, [*made_by, *(a for a in args if a not in given)])) from None


def configs_with_recipes(args: list[str]) -> list[tuple[Any, Any]]:
    """Pairs of a configuration and its recipe, for `doctor config [train|finetune] …`.

    The recipe is the configuration of the same net and data with nothing else set. The command's name may stand
    anywhere among the arguments.
    """
    named = [at for at, arg in enumerate(args) if arg in READ and args[max(0, at - 1)] not in FLAGS_WITH_VALUE]
    command = args[named[0]] if named else READ[0]
    args = hydra_arguments(command, [arg for at, arg in enumerate(args) if at not in named[:1]])
    if "--config" in args:
        at = args.index("--config")
        configs = [replay_config(command, args[at + 1 :][:1], args[:at] + args[at + 2 :])]
    else:
        args += swept_by_experiment(args) if is_sweep(args) else []
        configs = combinations(command, args) or [_one(command, [arg for arg in args if "=" in arg], args)]
    return [(config, _one(command, _chosen(config.run.overrides), args)) for config in configs]


def _chosen(overrides: list[str]) -> list[str]:
    """Overrides that choose the net and the data; all others are compared with the recipe."""
    return [text for text in overrides if re.match(r"\+?(task|model|data|recipe|experiment|transfer)\b", text)]


def _one(command: str, overrides: list[str], args: list[str]) -> Any:
    folders = [part for folder in config_dirs(args) for part in ("--config-dir", str(folder))]
    try:
        return typed_config(command, compose(command, [*folders, *overrides]), overrides)
    except UserError:
        raise
    except Exception as error:  # as in compose.launch()
        raise UserError(explain(error, command, [*overrides, *folders])) from None
