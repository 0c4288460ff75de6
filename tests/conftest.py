"""What the tests share: the command line in this process, and small configurations."""

import atexit
import gc
import importlib.util
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra._internal.config_repository import ConfigRepository

from cnnbench.cli import main
from cnnbench.config import commands, parsing
from cnnbench.config import compose as hydra_app
from tests.helpers.configs import load_once
from tests.helpers.paths import SCRIPTS, UNDRAWN
from tests.helpers.runs import Ran, coarse_pictures, without_evaluations_pictures, without_pictures

LONG = (
    "corpus/test_corpus",
    "sweeps/test_slurm",
    "project/test_fuzz",
    "training/test_resume",
    "runtime/test_distributed",
)


def pytest_configure() -> None:
    ConfigRepository.load_config = load_once  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Set the modules aside and look for garbage less often: a tenth of the time went there, as Hydra leaves much."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # some libraries warn, at the very end, of objects that were never freed
    gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: at the end both workers have short ones, and none waits for the other."""
    items.sort(key=lambda item: not any(name in str(item.path) for name in LONG))  # stable


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """A test that draws numbers draws the same ones each time, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture
def cnnbench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Callable[..., Ran]:
    """Run one command line in an empty folder; runs land in its `outputs`. Its pictures are coarse, unless the test
    asks for `pictures`."""
    if "pictures" not in request.fixturenames:
        coarse_pictures(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)

    def run(*args: str) -> Ran:
        capsys.readouterr()
        code = main.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def pictures() -> None:
    """For a test that looks at pictures, in a module that draws none."""


@pytest.fixture
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For short runs that are about something else, here and in processes of their own: the pictures take longer than
    all the rest."""
    if "pictures" in request.fixturenames:
        return
    monkeypatch.setenv("PYTHONPATH", str(UNDRAWN), prepend=os.pathsep)
    without_pictures(monkeypatch.setattr)
    without_evaluations_pictures(monkeypatch.setattr)


@pytest.fixture
def compose() -> Callable[..., Any]:
    """The typed configuration of `cnnbench train` with overrides."""

    def compose(*overrides: str, command: str = "train") -> Any:
        return parsing.parse(commands.SCHEMAS[command], hydra_app.compose(command, list(overrides)))

    return compose


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """`script("reproduce")` is scripts/reproduce.py as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
