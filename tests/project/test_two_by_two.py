"""The scripts that measure whether transfer=auto chooses well: what they draw, and their arithmetic."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.helpers.paths import SCRIPTS


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("two_by_two"), importlib.import_module("two_by_two_table")
    for name in ("two_by_two", "two_by_two_table"):
        sys.modules.pop(name)


def test_test_images_are_the_same_for_all_subsets_and_in_none(scripts) -> None:
    two_by_two, _ = scripts
    images = two_by_two.Images(np.zeros((400, 1, 2, 2)), np.arange(400) % 4, None, ())
    first, second = two_by_two.drawn(images, 20, 0), two_by_two.drawn(images, 5, 1)
    assert np.array_equal(first["test"], second["test"]) and len(first["test"]) == 160  # two fifths of each class
    for parts, amount in ((first, 20), (second, 5)):
        assert np.bincount(images.y[parts["train"]]).tolist() == [amount] * 4
        assert len(np.unique(np.concatenate(list(parts.values())))) == sum(map(len, parts.values()))


def test_regret_is_to_the_best_strategy_of_the_same_subset(scripts, tmp_path: Path) -> None:
    _, table = scripts

    def rows(pair: str, advice: str, **errors: float) -> list[dict[str, object]]:
        key = {"pair": pair, "amount": 5, "seed": 0}
        found = [{**key, "strategy": name, "error": error, "n": 100, "commit": "c"} for name, error in errors.items()]
        return [*found, {**key, "strategy": "advice", "advice": {"strategy": advice, "similar": None}}]

    (tmp_path / "rows.json").write_text(json.dumps([
        *rows("a-b", "svm", svm=10, deep_features=4, partial=8, full=7),
        *rows("a-c", "auto", svm=10, deep_features=9, partial=5, full=7),
        *rows("a-d", "svm", svm=10),  # not all strategies ran
    ]))  # fmt: skip
    subsets = table.read([tmp_path / "rows.json"])
    assert [one.regret("auto") for one in subsets] == [6, 2]  # of two that are tried, the worse one
    mean, low, high = table.mean_regret(subsets, "deep_features")
    assert (mean, low, high) == (2, 0, 4)
    assert "| a → b | 5 | 1 | 10.0 | **4.0** | 8.0 | 7.0 | 10.0 | open |" in table.errors_table(subsets)
    assert "| `auto` | 4.00 | 2.00 to 6.00 | 0 of 2 |" in table.regret_table(subsets)
