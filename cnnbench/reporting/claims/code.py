"""The source files that a run depends on, as digests: a run on other code than today's is marked in the table.

Which files: those that decide what is computed, a short list by hand. Comments, docstrings and empty lines do not
count.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from cnnbench import models
from cnnbench.data.datasets import SETS

PACKAGE = Path(__file__).parents[2]
READ = ("data/augment.py", "data/order.py", "data/parts.py", "data/transforms.py")
TRAINED = ("training/augmentation.py", "training/loop.py", "training/optim.py", "training/schedules.py",
           "training/trainer.py")  # fmt: skip
JUDGED = ("tasks/{task}/task.py", "tasks/{task}/metrics.py")
TRANSFERRED = ("transfer/features.py", "transfer/linear_svm.py")
FETCHED = "models/"  # files of this room that a net's own file imports count too


def files(command: str, model: str, data: str, task: str) -> list[str]:
    """Files that a run of a command depends on, relative to the package; those of other people's nets are not known."""
    own = [_file(models.MODELS[model])] if model in models.MODELS else []
    sets = [_file(SETS[data])] if data in SETS else []
    judged = [name.format(task=task) for name in JUDGED]
    moved = TRANSFERRED if command == "finetune" else ()
    return list(dict.fromkeys([*own, *sets, *READ, *TRAINED, *judged, *moved]))


def digests(names: list[str], read: Callable[[str], str | None] | None = None) -> dict[str, str]:
    """Digest of each of the files, and of those of their room that the net's file imports. read: text of a file of the
    package, None where there is none; by default today's."""
    read = read or today
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        text = read(name)
        if name in found or text is None:
            continue
        found[name] = digest(text)
        waiting += _imported(text) if name.startswith(FETCHED) else []
    return found


@cache
def today(name: str) -> str | None:
    file = PACKAGE / name
    return file.read_text() if file.is_file() else None


@cache
def digest(text: str) -> str:
    return hashlib.sha256(bare(text).encode()).hexdigest()[:12]


def bare(text: str) -> str:
    """Source without comments, docstrings and empty lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                assert first.end_lineno is not None
                lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def changed(kept: dict[str, str]) -> list[str]:
    """Files that are other ones today."""
    return [name for name, value in kept.items() if (text := today(name)) is None or digest(text) != value]


def _file(builder: Callable[..., object]) -> str:
    while isinstance(builder, partial):
        builder = builder.func
    return builder.__module__.removeprefix("cnnbench.").replace(".", "/") + ".py"


def _imported(text: str) -> list[str]:
    """Files of the nets' room that a file imports."""
    modules = [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module]
    names = [module.removeprefix("cnnbench.").replace(".", "/") + ".py" for module in modules]
    return [name for name in names if name.startswith(FETCHED)]
