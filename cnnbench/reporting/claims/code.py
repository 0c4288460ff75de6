"""The source files that a run depends on, as digests: a run on other code than today's is marked in the table.

Which files: those that decide what is computed, a short list by hand. A digest has a part for each definition and each
entry of a table, so that what is added to a file changes nothing; comments, docstrings, empty lines and imports do not
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
DRAWN = {"lesions": "visual/lesions.py", "signals": "visual/signals.py"}
PICTURE = "draw"  # the function that draws what was measured: it changes no number
FETCHED = "models/"  # files of this room that a net's own file imports count too


def files(line: str, model: str, data: str, task: str) -> list[str]:
    """Files that what a command line runs depends on, relative to the package; those of other people's nets are not
    known."""
    command, *settings = line.split()[1:]
    own = [_file(models.MODELS[model])] if model in models.MODELS else []
    sets = [_file(SETS[data])] if data in SETS else []
    judged = [name.format(task=task) for name in JUDGED]
    steps = {"train": TRAINED, "finetune": (*TRAINED, *TRANSFERRED)}.get(command, ())
    drawn = [DRAWN[word[5:]] for word in settings if word.startswith("what=")]
    return list(dict.fromkeys([*own, *sets, *READ, *steps, *judged, *drawn]))


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
    """Digests of the parts of a source, in one line."""
    return " ".join(sorted({hashlib.sha256(part.encode()).hexdigest()[:6] for part in parts(text)}))


def parts(text: str) -> list[str]:
    """Definitions and other statements of a source, and the entries of its tables, bare."""
    tree = ast.parse(text)
    lines = _bare_lines(text, tree)
    kept = [node for node in tree.body
            if not isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "name", "") != PICTURE]  # fmt: skip
    found = [_lines_of(piece, lines) for node in kept for piece in _pieces(node)]
    return [part for part in found if part]


def _pieces(node: ast.stmt) -> list[tuple[int, int]]:
    """First and last line of a statement; of a table, those of each entry."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values, strict=True)
        return [((key or one).lineno, one.end_lineno or one.lineno) for key, one in pairs]
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return [(first, node.end_lineno or node.lineno)]


def _lines_of(piece: tuple[int, int], lines: list[str]) -> str:
    first, last = piece
    return "\n".join(line.rstrip() for line in lines[first - 1 : last] if line.strip())


def _bare_lines(text: str, tree: ast.Module) -> list[str]:
    """Lines without comments and docstrings, which are left empty."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                end = first.end_lineno or first.lineno
                lines[first.lineno - 1 : end] = [""] * (end - first.lineno + 1)
    return lines


def changed(kept: dict[str, str]) -> list[str]:
    """Files of which a part is another one today."""
    return [name for name, parts in kept.items() if not set(parts.split()) <= set(digest(today(name) or "").split())]


def _file(builder: Callable[..., object]) -> str:
    while isinstance(builder, partial):
        builder = builder.func
    return builder.__module__.removeprefix("cnnbench.").replace(".", "/") + ".py"


def _imported(text: str) -> list[str]:
    """Files of the nets' room that a file imports."""
    modules = [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module]
    names = [module.removeprefix("cnnbench.").replace(".", "/") + ".py" for module in modules]
    return [name for name in names if name.startswith(FETCHED)]
