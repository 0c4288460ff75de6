"""What a command line stands for: the jobs of a sweep and their configurations, found without running any of them."""

import re
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cnnbench.config import commands
from cnnbench.config.arguments import FLAGS_WITH_VALUE, SHOWS, config_dirs, hydra_arguments, is_sweep
from cnnbench.config.compose import compose, explain, replay_config, search_path, typed_config
from cnnbench.config.sections import conf_dir
from cnnbench.utils.errors import UserError

READ = ("train", "finetune")  # what `doctor config` reads; the first where none is named


def sweep_jobs(args: list[str]) -> tuple[list[list[str]], list[str]] | None:
    """The overrides of each job of a sweep, and the keys that it runs over; None where a sweeper chooses as it goes,
    and where nothing is run. A mistake is left to be found by `compose.launch()`."""
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    flags = [arg.partition("=")[0] for arg in args]
    if any(flag in SHOWS for flag in flags) or any(arg.startswith("hydra/sweeper=") for arg in given):
        return None
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(given)
            combined = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except Exception:  # as in compose.launch(), which says it
        return None
    swept = [arg.partition("=")[2] for arg in given if arg.startswith("sweep.keys=")][-1]
    return combined, swept.strip("[]").split(",")


def swept_by_experiment(args: list[str]) -> list[str]:
    """What the file of `experiment=` sweeps over (its `hydra.sweeper.params`), apart from what args set themselves.

    Hydra would find it too; but whoever names and counts the jobs has to know it beforehand.
    """
    settings = dict(arg.partition("=")[::2] for arg in args if "=" in arg and not arg.startswith("-"))
    names = settings.get("experiment", "").split(",")
    files = [file for name in names for root in (*config_dirs(args), conf_dir())
             if (file := root / "experiment" / f"{name}.yaml").is_file()]  # fmt: skip
    params = [OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or {} for file in files]
    if len(names) > 1 and any(params):
        raise UserError("one experiment at a time: each has a sweep of its own")
    return [f"{key}={value}" for found in params[:1] for key, value in found.items() if key not in settings]


def combinations(command: str, args: list[str]) -> list[Any]:
    """The typed configuration of each job of a sweep, in order: nothing runs and no file is written.

    Empty where there is nothing to combine, and where Hydra is only asked to show something (`--cfg`).
    """
    given = [arg for arg in args if not arg.startswith("-") and "=" in arg]
    if any(flag.partition("=")[0] in SHOWS for flag in args):
        return []
    commands.register_schemas()
    made_by: list[str] = given
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
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
    """For `doctor config [train|finetune] …`, the command's name being anywhere among the arguments: each configuration
    that they stand for, with its recipe, which is what the same choice of net and data has when nothing else is set."""
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
    """The overrides that say what is trained on what; all others are to be compared with what goes with these."""
    return [text for text in overrides if re.match(r"\+?(model|data|recipe|experiment|transfer)\b", text)]


def _one(command: str, overrides: list[str], args: list[str]) -> Any:
    folders = [part for folder in config_dirs(args) for part in ("--config-dir", str(folder))]
    try:
        return typed_config(command, compose(command, [*folders, *overrides]), overrides)
    except UserError:
        raise
    except Exception as error:  # as in compose.launch()
        raise UserError(explain(error, command, [*overrides, *folders])) from None
