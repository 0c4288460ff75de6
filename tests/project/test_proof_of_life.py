"""scripts/proof_of_life: the nets in its table exist, and its verdict is that of the training."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT, UNDRAWN


@pytest.fixture
def proof(script: Callable[[str], Any]) -> Any:
    return script("proof_of_life")


def test_every_net_is_trained_as_a_user_would(proof: Any, compose: Callable[..., Any]) -> None:
    """The command line sets the images' side, the seed, for the deepest the epochs and where a CPU gets bf16 wrong the
    precision: nothing of the recipe."""
    free = {"model", "data.image_size", "epochs", "seed", "precision"}
    for name in proof.NETS:
        arguments = proof.arguments(name, seed=0)
        assert {argument.partition("=")[0] for argument in arguments} <= free
        assert compose(*arguments).model["name"] == arguments[0].partition("=")[2]


@pytest.mark.parametrize(("threshold", "code", "verdict"), [(101, 0, "learned"), (0, 1, "MISSED")])
def test_a_net_that_misses_its_threshold_is_an_error(
    threshold: float, code: int, verdict: str, proof: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{UNDRAWN}:{ROOT}")
    monkeypatch.setitem(proof.NETS, "resnet8", proof.Net(8, threshold, epochs=1))
    monkeypatch.setattr(sys, "argv", ["proof_of_life", "resnet8", "--format", "json"])
    assert proof.main() == code
    captured = capfd.readouterr()
    (row,) = json.loads(captured.out)
    assert (row["verdict"], row["steps"], row["below"]) == (verdict, 12, threshold)
    assert 0 <= row["top-1 error"] <= 100
    assert "[1/1] cnnbench train model=resnet8 data.image_size=8 epochs=1 seed=0" in captured.err
    assert ("resnet8 (seed 0)" in captured.err) == bool(code)


def test_an_unknown_net_is_refused(proof: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["proof_of_life", "alexnt"])
    with pytest.raises(SystemExit, match="2"):
        proof.main()
    assert "Did you mean 'alexnet'?" in capfd.readouterr().err
