"""Python files of the user's own, whose code runs here: which are trusted, and what is taken from them.

A file that is named on the command line, or in a call, is trusted. A checkpoint or a run's configuration names a file
too, with the SHA-256 of its content; by itself that runs only where the file still stands where it stood, with the same
content, and not among Python's own or installed packages, whose content strangers know.
"""

import hashlib
import importlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from cnnbench.utils.console import warn
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.named_files import typed_path

GIVEN: dict[str, Path] = {}  # files that the user named since this process began, by the SHA-256 of their content
_modules: dict[str, ModuleType] = {}


def identified(file: str | None, name: str, section: str = "model") -> dict[str, str]:
    """Path of the file that the user names, with its SHA-256. It is trusted from now on. UserError where there is none.

    file: None for a name like package.module:Net. section: of the configuration, `model` or `data`, for messages.
    """
    path = typed_path(file).absolute() if file else place_of(name, section)
    content = _read(path, section)
    found = hashlib.sha256(content).hexdigest()
    GIVEN[found] = path
    return {"file": str(path), "sha256": found}


def trusted(file: str | None, sha256: str, name: str, section: str = "model") -> Path:
    """The file of a checkpoint or of a run's configuration: that which the user gave, else where it stood.

    UserError where it is not there, where its content is another, and where strangers may know it.
    """
    if sha256 in GIVEN:
        return GIVEN[sha256]
    wanted = place_of(name, section) if ":" in name else Path(file or "")
    if others := [path for path in GIVEN.values() if path.name == wanted.name]:
        warn(f"{others[-1]} is not as it was when {name} was trained with it: its content is another")
        GIVEN[sha256] = others[-1]
        return others[-1]
    give = f"give the file again: {section}=python {section}.file={wanted.name} {section}.name={name}"
    if ":" in name:
        give = f"name it again: {section}=python {section}.name={name}"
    if not wanted.is_file():
        raise UserError(f"{name} is made by {wanted}, which is not there: {give}")
    if any(wanted.resolve().is_relative_to(folder) for folder in _installed()):
        raise UserError(f"{name} is made by {wanted}, an installed file, which no checkpoint may run by itself: {give}")
    if hashlib.sha256(_read(wanted, section)).hexdigest() != sha256:
        raise UserError(f"{wanted} has changed since {name} was trained with it: put it back as it was, or {give}")
    return wanted


def place_of(name: str, section: str = "model") -> Path:
    """File of the module in `package.module:Net`, found without running any of its code. UserError where there is
    none."""
    dotted, folders, spec = name.partition(":")[0], [*sys.path, str(Path.cwd())], None
    parts = dotted.split(".")
    for number in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:number]), folders)
        folders = list(spec.submodule_search_locations or []) if spec else []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UserError(
            f"{section}.name={name}: Python finds no module {dotted}, neither installed nor in {Path.cwd()}"
        )
    return Path(spec.origin)


def taken(path: Path, name: str) -> Any:
    """What is called `name` in the file: a class of nets, or a function of the file's own that builds one.

    name: also `package.module:Net`, whose module is this file. UserError where the file does not run, or has no such
    class or function.
    """
    from torch import nn  # only here: what a file is can be known without

    dotted, colon, inside = name.rpartition(":")
    module = _run(path, dotted if colon else None)
    found = vars(module).get(inside)
    nets = [key for key, value in vars(module).items() if _makes_nets(value, module, nn.Module)]
    if inside in nets:
        return found
    if found is None:
        raise unknown(f"net in {path.name}", inside, nets or ["none: it defines no torch.nn.Module"])
    raise UserError(f"{inside} in {path.name} is neither a torch.nn.Module class nor a function of this file")


def function_in(path: Path, name: str) -> Callable[..., Any]:
    """The function `name` of the file's own, or of the module in `package.module:name`, which is this file. UserError
    where the file does not run, or has no such function."""
    dotted, colon, inside = name.rpartition(":")
    module = _run(path, dotted if colon else None)
    own = {key: value for key, value in vars(module).items()
           if inspect.isfunction(value) and value.__module__ == module.__name__}  # fmt: skip
    if inside not in own:
        raise unknown(f"function in {path.name}", inside, own or ["none: it defines no function"])
    return own[inside]


def _makes_nets(value: Any, module: ModuleType, kind: type) -> bool:
    """Functions that a file only imports are not taken: a checkpoint could name any of Python's."""
    if inspect.isclass(value):
        return issubclass(value, kind)
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _run(path: Path, dotted: str | None) -> ModuleType:
    """The module of a file, whose code runs once for each content. UserError where it raises."""
    source = path.read_bytes()
    key = dotted or f"own_{hashlib.sha256(source).hexdigest()[:16]}"
    if key in _modules:
        return _modules[key]
    folder = str(Path.cwd() if dotted else path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # behind all others: a file beside it cannot stand in for a package
    try:
        _modules[key] = importlib.import_module(dotted) if dotted else _executed(key, path, source)
    except (Exception, SystemExit) as error:
        sys.modules.pop(key, None)
        from cnnbench.models.adapted import told

        raise UserError(f"{path} does not run: {told(error)}") from None
    return _modules[key]


def _executed(name: str, path: Path, source: bytes) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def _read(path: Path, section: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{section}.file={path}: cannot read it: {error.strerror}") from None


def _installed() -> set[Path]:
    """Folders of Python's own files and of installed packages."""
    known: Mapping[str, str] = sysconfig.get_paths()
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [*(known[key] for key in keys), *site.getsitepackages(), site.getusersitepackages()]
    return {Path(folder).resolve() for folder in folders}
