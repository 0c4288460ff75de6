"""Write docs/api.md: the public names of the package with their signatures and docstrings, from the code itself.

`--check` writes nothing and exits with 1 where the file is not what the code says.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import cnnbench
from cnnbench.cli.calls import Result
from cnnbench.tasks.classification.predictor import ClassPrediction, ClassProbability
from cnnbench.tasks.predictor import Predictor

FILE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """\
# Python: the public names

Written by `scripts/api_reference.py` from the docstrings; do not edit by hand. [From Python](from-python.md) says how
they are used. All but the last section's are taken from the package itself: `import cnnbench`.
"""
GROUPS = {
    "The commands": [cnnbench.train, cnnbench.finetune, cnnbench.evaluate, cnnbench.predict, cnnbench.visualize,
                     cnnbench.sweep, cnnbench.report],
    "Nets": [cnnbench.create_model, cnnbench.load],
    "Errors": [cnnbench.UserError, cnnbench.RunError],
    "What is returned": [Result, Predictor, ClassPrediction, ClassProbability],
}  # fmt: skip
MEMBERS = {Predictor: ("classes", "predict", "predictions", "embed")}  # the others are for tasks


def page() -> str:
    """The whole file."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [entry(one) for one in names]
    return "\n".join(parts)


def entry(one: Any) -> str:
    """A name with its signature, what it says of itself, and its public members."""
    title = f"### {one.__name__}\n"
    if isinstance(one, type) and issubclass(one, Exception):
        return f"{title}\n{text(one)}"
    where = "cnnbench." if one.__name__ in cnnbench.__all__ else ""
    shown = [title, code(f"{where}{one.__name__}", one) if where else "", text(one), *map(member, members(one))]
    return "\n".join(part for part in shown if part)


def members(one: Any) -> list[tuple[str, Any]]:
    """Public methods and properties that have something to say, in the order of the code."""
    names = MEMBERS.get(one, [name for name in vars(one) if not name.startswith("_")]) if isinstance(one, type) else []
    found = [(name, vars(one)[name]) for name in names]
    return [
        (name, one) for name, one in found if one.__doc__ and (isinstance(one, property) or inspect.isfunction(one))
    ]


def member(named: tuple[str, Any]) -> str:
    name, one = named
    return f"**`.{name}{'' if isinstance(one, property) else arguments(one)}`**\n\n{text(one)}"


def code(name: str, one: Any) -> str:
    return f"```python\n{name}{arguments(one)}\n```\n"


def arguments(one: Any) -> str:
    """The signature as in the code: without self, quotes around types, and the modules that they are of."""
    signature = inspect.signature(one)
    kept = [value for key, value in signature.parameters.items() if key != "self"]
    written = re.sub(
        r"\b(?:cnnbench|collections|typing)(?:\.\w+)*\.(\w+)", r"\1", str(signature.replace(parameters=kept))
    )
    return re.sub(r"""(?<=[:>] )(['"])(.*?)\1""", r"\2", written)


def text(one: Any) -> str:
    return f"{inspect.getdoc(one)}\n"


def main() -> int:
    written = page()
    if "--check" in sys.argv[1:]:
        return int(not FILE.exists() or FILE.read_text() != written)
    FILE.write_text(written)
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
