"""The headline of a run says how much was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnbench.config.sections import Format
from cnnbench.runs.result import select_on, selected_by, show
from cnnbench.utils.files import write_json


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"epochs": 1, "steps": 12, "stopped": "its one epoch"}, "on 1 val image (fp32) after 1 epoch in 0:03 ->"),
        ({"epochs": 3, "steps": 36, "stopped": "all 3 epochs"}, "after 3 epochs in"),
        ({"epochs": 0, "steps": 1, "stopped": "max_steps=1"}, "after 1 step in"),
        ({"epochs": 1, "steps": 20, "stopped": "max_time=1m"}, "after 20 steps in"),
        ({"epochs": 0, "steps": 0, "stopped": "its head is fitted, not trained by steps"}, "on 1 val image (fp32) in"),
    ],
)
def test_the_headline_counts_epochs_or_the_steps_of_a_cut_one(
    capsys: pytest.CaptureFixture[str], more: dict[str, Any], said: str
) -> None:
    result = {"top1_error": 5.0, "top5_error": 0.0, "n": 1, "split": "val", "precision": "fp32",
              "wall_seconds": 3.0, "run_dir": "r", **more}  # fmt: skip
    show(result, Format.table, in_sweep=False)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "head", "said"),
    [
        ([], False, "last epoch"),
        (["patience=3"], False, "last epoch, chosen by test images (patience)"),
        (["patience=3", "sweep.trial=2"], False, "last epoch, chosen by test images (patience, search)"),
        ([], True, "last epoch or fitted head, chosen by test images"),
    ],
)
def test_a_result_says_what_its_images_chose(
    compose: Callable[..., Any], overrides: list[str], head: bool, said: str
) -> None:
    assert select_on(compose(*overrides), "test", fitted_head=head) == said


def test_the_best_checkpoint_was_chosen_and_the_last_one_is_the_runs_own(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"split": "held-out", "select_on": "last epoch"})
    at = {name: selected_by(tmp_path / "checkpoints" / f"{name}.pt") for name in ("best", "last")}
    assert at == {"best": "best epoch, chosen by held-out images", "last": "last epoch"}
    assert selected_by(tmp_path / "elsewhere.pt") is None
    (tmp_path / "result.json").write_text('{"n": 1}')
    assert selected_by(tmp_path / "checkpoints" / "last.pt") is None
