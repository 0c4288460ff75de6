"""A fine-tuning that makes its net worse than the fitted head it began with keeps that head, and says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.weights import checkpoint
from tests.helpers.runs import Ran, rows

SMALL = ("device=cpu", "precision=fp32", "data.fraction=0.1", "data.image_size=16", "transfer.c=[0.001]")


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(name, "result.json").read_text())
    return found


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("augment", ["none", "shift"])  # on features, and on images
def test_the_fitted_head_is_kept_where_training_makes_it_worse(cnnbench: Callable[..., Ran], augment: str) -> None:
    assert cnnbench("finetune", "transfer=svm", *SMALL, "run.dir=svm").code == 0
    spoil = ("optim.lr=500", "optim.clip=null", "epochs=2", f"augment={augment}")
    ran = cnnbench("finetune", "transfer=head", *SMALL, *spoil, "run.dir=head")
    assert ran.code == 0, ran.err
    fitted, trained = result("svm"), result("head")
    assert trained["top1_error"] == fitted["top1_error"]
    assert trained["best_top1_error"] <= fitted["top1_error"]
    (said,) = [text for text in trained["warnings"] if "fitted head" in text]
    assert said.startswith(
        f"training made the net worse than its fitted head was, top-1 err {fitted['top1_error']:.2f} %"
    )
    assert said in ran.err and rows(Path("head"))[-1]["top1_error/val"] == fitted["top1_error"]
    ours, theirs = (checkpoint.load(Path(name, "checkpoints/last.pt"))["model"] for name in ("head", "svm"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.usefixtures("no_pictures")
def test_a_head_that_training_makes_better_stays_and_nothing_is_said(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("finetune", "transfer=full", *SMALL, "epochs=6", "run.dir=full")
    assert ran.code == 0, ran.err
    assert "fitted head was" not in ran.err
    assert cnnbench("finetune", "transfer=svm", *SMALL, "run.dir=svm").code == 0
    assert result("full")["top1_error"] <= result("svm")["top1_error"]
