"""The headline of a run says how much was trained."""

from typing import Any

import pytest

from cnnbench.config.sections import Format
from cnnbench.runs.result import show


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
