"""docs/first-steps.ipynb: its cells run, in order, and answer what stands below them but for the numbers."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.runs import coarse_pictures

BOOK = Path(__file__).parents[2] / "docs/first-steps.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Value of the cell's last expression, or None."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)


def test_every_cell_runs_and_answers_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    coarse_pictures(monkeypatch.setattr)  # nobody looks at them, and they take longer than the trainings
    names: dict[str, Any] = {}
    for cell in json.loads(BOOK.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        value = run_cell("".join(cell["source"]), names)
        printed = capsys.readouterr().out
        stored = ["".join(out.get("text") or out["data"]["text/plain"]) for out in cell["outputs"]]
        shown = [printed] * bool(printed) + [repr(value)] * (value is not None)
        assert [without_numbers(text) for text in shown] == [without_numbers(text) for text in stored]
