"""What is changed of Hydra while it composes and launches: faster, with errors that can be worded, on newer Pythons."""

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore

from cnnbench.config.arguments import config_dirs


@contextmanager
def changed_hydra(args: list[str]) -> Iterator[None]:
    """All changes, for one command line."""
    with _hydra_raises(), _composed_by_launcher(args), _mode_by_arguments(args), _help_unchecked():
        yield


@contextmanager
def _composed_by_launcher(args: list[str]) -> Iterator[None]:
    """Skip Hydra's trial composition of every job before a sweep starts: our own launchers compose them."""
    before = BasicSweeper.validate_batch_is_legal
    if any(arg.startswith("hydra/launcher=") for arg in args):
        BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        BasicSweeper.validate_batch_is_legal = before  # type: ignore[method-assign]


@contextmanager
def _mode_by_arguments(args: list[str]) -> Iterator[None]:
    """Skip the composition in which Hydra only looks for `hydra.mode`, where the user cannot have set it."""
    before = Hydra.get_mode
    if not (config_dirs(args) or any(arg.startswith(("hydra.mode", "hydra.searchpath", "--config-")) for arg in args)):
        Hydra.get_mode = lambda self, config_name, overrides: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = before  # type: ignore[method-assign]


@contextmanager
def _help_unchecked() -> Iterator[None]:
    """Let Hydra give an option a help that is no string yet, which argparse refuses from Python 3.14 on."""
    before = getattr(ArgumentParser, "_check_help", None)
    ArgumentParser._check_help = lambda self, action: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if before is None:
            del ArgumentParser._check_help  # type: ignore[attr-defined]
        else:
            ArgumentParser._check_help = before  # type: ignore[attr-defined]


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Let Hydra raise its errors, which `explain()` then words. By default it prints several lines and exits."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@cache
def compose_faster() -> None:
    """Skip, from now on, what Hydra does in vain: a copy of all it knows, since `load` copies what it gives, and a map
    of the choices so far after each file of conf/, which only a choice that names another, as in `${model}`, needs."""
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    create_map = defaults_list._create_interpolation_map

    def where_needed(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        needed = any(default.is_interpolation() for default in defaults)
        return create_map(overrides, defaults, self_added) if needed else None

    defaults_list._create_interpolation_map = where_needed  # type: ignore[assignment]
