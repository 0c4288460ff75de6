"""`lr_find=true`: its suggestion trains, it is the same each time, stops at a divergence and leaves no training."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.training import lr_finder
from tests.helpers.runs import Ran

SMALL = ("data.image_size=8", "data.fraction=0.5", "batch_size=64", "precision=fp32", "device=cpu")


def descent(rates: list[float], curvature: float = 1.0) -> list[float]:
    """The losses of gradient descent on a parabola, one step at each lr: it diverges from lr = 2 / curvature on."""
    x = torch.tensor(1.0, requires_grad=True)
    losses = []
    for rate in rates:
        loss = 0.5 * curvature * x**2
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= rate * gradient
    return losses


@pytest.mark.parametrize("curvature", [0.1, 1.0, 50.0])
def test_on_a_parabola_the_suggestion_converges_and_follows_the_curvature(curvature: float) -> None:
    rates = np.geomspace(1e-4 / curvature, 1e3 / curvature, 100).tolist()
    watch, losses = lr_finder.Divergence(), []
    for loss in descent(rates, curvature):
        losses.append(loss)
        if watch.sees(loss):
            break
    found = lr_finder.read(rates[: len(losses)], losses, watch.reason)
    assert len(losses) < 100
    assert "times its lowest" in found.stopped or "finite" in found.stopped
    assert found.lr is not None
    assert 0.01 < found.lr * curvature < 2  # lower would take forever, from 2 on it diverges
    assert descent([found.lr] * 400, curvature)[-1] < 1e-3 * curvature


def test_a_loss_that_does_not_fall_gives_no_suggestion() -> None:
    rates = np.geomspace(1e-4, 10, 50).tolist()
    assert lr_finder.read(rates, [2.3] * 50).lr is None
    assert lr_finder.read(rates, [2.3 + 0.1 * step for step in range(50)]).lr is None
    assert lr_finder.read(rates[:1], [math.nan]).lr is None


def test_the_suggestion_is_the_steepest_descent_within_bounds_of_the_lowest_loss() -> None:
    def suggested(steepest: float) -> tuple[str, float | None]:
        found = lr_finder.Range([], [], [], steepest, 0.3, "")
        return found.rule.split()[0] + " " + found.rule.split()[1], found.lr

    assert suggested(0.05) == ("steepest descent", 0.05)
    assert suggested(0.001) == ("a decade", pytest.approx(0.03))
    assert suggested(0.2) == ("a third", pytest.approx(0.1))


def test_smoothing_keeps_a_constant_and_lags_behind_nothing() -> None:
    assert np.allclose(lr_finder.smooth([2.0] * 30), 2.0)
    line = lr_finder.smooth(list(range(60)))
    assert np.allclose(line[15:45], range(15, 45))
    assert lr_finder.smooth([]).tolist() == []


def found(ran: Ran) -> dict:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_it_says_what_to_type_stops_and_is_the_same_each_time(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    first = found(cnnbench("train", "lr_find=true", "format=json", *SMALL))
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    left = {path.name for path in folder.iterdir()}
    assert left == {".lock", "log.txt", "lr_find.json", "lr_find.png"}  # no training, no checkpoint
    assert json.loads((folder / "lr_find.json").read_text()) == first
    again = found(cnnbench("train", "lr_find=true", "format=json", *SMALL))
    assert again == first
    other = found(cnnbench("train", "lr_find=true", "format=json", "seed=1", *SMALL))
    assert other["losses"] != first["losses"]
    assert first["lr"] == pytest.approx(first["optim.lr"] * 64 / 128, rel=0.06)  # lr scales from a batch of 128


def test_the_suggestion_trains_and_the_text_names_the_rule(cnnbench: Callable[..., Ran], no_pictures: None) -> None:
    ran = cnnbench("train", "lr_find=true", *SMALL)
    assert ran.code == 0, ran.err
    line = next(line for line in ran.out.splitlines() if line.startswith("try optim.lr="))
    assert "at batch 64" in line
    assert any(rule in line for rule in ("a decade below", "a third of", "steepest descent"))
    typed = line.split()[1].rstrip(",")
    done = cnnbench("train", typed, "epochs=8", "format=json", "run.dir=trained", *SMALL)
    assert json.loads(done.out)["top1_error"] < 40  # of 90 by guessing


def test_a_net_that_goes_to_pieces_is_noticed(cnnbench: Callable[..., Ran]) -> None:
    cnnbench("train", "lr_find=true", "optim.lr=1000", "run.dir=x", *SMALL)
    written = json.loads(Path("x/lr_find.json").read_text())
    assert written["steps"] < lr_finder.STEPS
    assert "finite" in written["stopped"] or "times its lowest" in written["stopped"]
    assert Path("x/lr_find.png").stat().st_size > 5000


def test_where_nothing_can_be_learned_it_fails_with_a_sentence(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("train", "lr_find=true", "optim.lr=1e-9", "run.dir=x", *SMALL)
    assert ran.code == 1
    assert "the loss falls at no lr" in ran.err
    assert "Traceback" not in ran.err
    assert not Path("x/status.json").exists()
    assert json.loads(Path("x/lr_find.json").read_text())["lr"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "lr_find=true", "debug=fast"], "give one of them"),
        (["finetune", "lr_find=true", "transfer=svm", "data.fraction=0.05"], "without lr"),
    ],
)
def test_mistakes_are_said_in_a_sentence(cnnbench: Callable[..., Ran], args: list[str], said: str) -> None:
    ran = cnnbench(*args)
    assert ran.code == 2
    assert said in ran.err
    assert not list(Path("outputs").glob("train/*"))


def test_a_training_is_left_as_it_is(cnnbench: Callable[..., Ran], no_pictures: None) -> None:
    assert cnnbench("train", "max_steps=1", "run.dir=x", *SMALL).code == 0
    before = {path.name: path.read_bytes() for path in Path("x").iterdir() if path.is_file()}
    ran = cnnbench("train", "max_steps=1", "lr_find=true", "run.dir=x", *SMALL)
    assert ran.code == 2
    assert "holds a training" in ran.err
    assert {path.name: path.read_bytes() for path in Path("x").iterdir() if path.is_file()} == before


def test_a_run_from_before_the_setting_existed_goes_on(cnnbench: Callable[..., Ran], no_pictures: None) -> None:
    assert cnnbench("train", "max_steps=1", "run.dir=x", *SMALL).code == 0
    config = Path("x/config.yaml")
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "lr_find" not in line))
    assert "already done" in cnnbench("train", "max_steps=1", "run.dir=x", *SMALL).out
    assert cnnbench("train", "--config", "x/config.yaml", "run.dir=y").code == 0


def test_ctrl_c_leaves_no_run_behind(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lr_finder, "train_epoch", interrupted)
    assert cnnbench("train", "lr_find=true", "run.dir=x", *SMALL).code == 130
    assert {path.name for path in Path("x").iterdir()} == {".lock", "log.txt"}


def test_finetune_searches_for_the_lr_of_its_strategy(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("finetune", "lr_find=true", "transfer=head", "transfer.probe=false", "data.fraction=0.2",
                   "format=json", "transfer.cache=false", "precision=fp32", "device=cpu")  # fmt: skip
    assert found(ran)["lr"] > 0
    assert not list(Path("outputs").glob("finetune/*/result.json"))


def test_no_lr_is_searched_for_by_default(compose: Callable[..., object]) -> None:
    assert compose().lr_find is False  # type: ignore[attr-defined]
