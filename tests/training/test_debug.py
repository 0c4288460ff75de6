"""`debug=fast` and `debug=overfit`."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnbench.config import compose
from cnnbench.config.sections import Crop
from cnnbench.data.transforms import check_augment
from cnnbench.training import debug
from cnnbench.utils.files import read_json
from tests.helpers.runs import SMALL, Ran


def test_debug_fast_runs_everything_once(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    for _ in range(2):  # such a run is begun anew each time
        ran = cnnbench("train", "debug=fast", "data.image_size=8", "epochs=100", "device=cpu")
        assert ran.code == 0, ran.err
        assert "debug=fast: training, validation, checkpoint and pictures work" in ran.err
        (path,) = (tmp_path / "outputs/train").iterdir()
        result = read_json(path / "result.json")
        assert (result["steps"], result["n"], result["epochs"]) == (1, 128, 1)
        assert all((path / name).exists() for name in ("curves.png", "checkpoints/last.pt", "val_predictions.png"))


@pytest.mark.usefixtures("no_pictures")
def test_debug_overfit_learns_one_batch_by_heart_or_says_that_it_does_not(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    command = ("train", "debug=overfit", "data.image_size=8", "device=cpu", "precision=fp32")
    ran = cnnbench(*command, "run.dir=r")
    assert ran.code == 0, ran.err
    assert "the net has memorised its batch (top-1 error 0.00 %)" in ran.err
    result = read_json(tmp_path / "r/result.json")
    assert (result["n"], result["steps"], result["split"]) == (32, 200, "memorised")
    hopeless = cnnbench(*command, "optim.lr=1e-6")
    assert hopeless.code == 1 and "after 200 steps on one batch the net has top-1 error" in hopeless.err
    assert np.isfinite(result["loss"]) and result["loss"] < 0.5


@pytest.mark.usefixtures("no_pictures")
def test_a_debug_run_clears_no_other_run(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench("train", "epochs=1", "run.dir=r", *SMALL).code == 0
    before = copy.copy((tmp_path / "r/result.json").read_text())
    refused = cnnbench("train", "debug=fast", "run.dir=r", *SMALL)
    assert (refused.code, "another configuration" in refused.err) == (2, True)
    assert (tmp_path / "r/result.json").read_text() == before


def test_a_batch_is_learnt_by_heart_as_it_is_whatever_the_augmentation() -> None:
    cfg = compose.typed_config("train", compose.compose("train", ["augment=alternate_flip", "debug=overfit"]), [])
    augment = debug.small(cfg).augment
    check_augment(augment, 32, 1.0)
    assert (augment.flip, augment.alternate, augment.crop) == (False, False, Crop.none)
