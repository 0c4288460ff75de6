"""A report by the metrics of its runs' tasks: here one where higher is better."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnbench.reporting.charts import draw_costs, draw_learning_curves
from cnnbench.reporting.gather import gather_runs
from cnnbench.reporting.group import group_labels, group_runs
from cnnbench.transfer.comparison import curves, draw_comparison
from tests.helpers.runs import Ran
from tests.helpers.segmentation import MIOU, write_run

CIFAR = {"top1_error": 9.0, "top5_error": 0.5, "train_top1_error": 4.0, "model": "resnet20", "data": "cifar10",
         "seed": 0, "n": 10_000, "split": "test", "crop": "ten", "weights": "r/best.pt"}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of one net, a worse net, and a run that failed."""
    folder = tmp_path / "runs"
    write_run(folder / "a", 55.0, model="fcn")
    write_run(folder / "b", 70.0, seed=0)
    write_run(folder / "c", 72.0, seed=1)
    write_run(folder / "d", None, model="segnet")
    return folder


@pytest.fixture
def both(runs: Path) -> Path:
    """With an evaluation of before, which names no metrics."""
    (runs / "e").mkdir()
    (runs / "e" / "result.json").write_text(json.dumps(CIFAR))
    return runs


def test_the_table_has_the_metrics_of_its_runs_the_best_first(runs: Path, cnnbench: Callable[..., Ran]) -> None:
    table = cnnbench("report", str(runs)).out
    assert [line.split()[0] for line in table.splitlines()[:3]] == ["model", "unet", "fcn"]
    assert re.search(r"^not finished +data +state\nsegnet ", table, re.M)  # no row of 0 runs
    head, best = table.splitlines()[:2]
    assert "mean IoU" in head and "pixel error" in head and "train mean IoU" in head and "top-1" not in head
    assert "71.0 ± 1.4" in best and "76.0" in best
    assert "epoch 2/9, mean IoU 40.0 %" in table  # of the run that is not done
    assert "model" in cnnbench("report", str(runs), "sort=miou").out.splitlines()[0]
    assert [one["model"] for one in groups(cnnbench, runs, "sort=miou")] == ["fcn", "unet", "segnet"]


def groups(cnnbench: Callable[..., Ran], runs: Path, *args: str) -> Any:
    ran = cnnbench("report", str(runs), "format=json", *args)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)["groups"]


def test_rows_have_a_column_for_each_metric_of_any_task(both: Path, cnnbench: Callable[..., Ran]) -> None:
    rows = {row["model"]: row for row in groups(cnnbench, both)}
    assert len({tuple(row) for row in rows.values()}) == 1
    unet, resnet = rows["unet"], rows["resnet20"]
    assert (unet["miou"], unet["train_miou"], unet["top1_error"], unet["train_top1_error"]) == (71.0, 76.0, None, None)
    assert (resnet["top1_error"], resnet["top5_error"], resnet["miou"]) == (9.0, 0.5, None)
    assert (resnet["published_top1_error"], resnet["top1_difference"]) == (8.75, 0.25)
    assert unet["published_miou"] is None and unet["miou_difference"] is None
    assert "train_pixel_error" not in unet  # of primary metrics alone
    assert [*rows] == ["unet", "fcn", "resnet20", "segnet"]  # by task, the best first, without a value last
    page = both / "page.html"
    assert cnnbench("report", str(both), f"out={page}").code == 0
    text = page.read_text()
    assert "mean IoU in %, pixel error in %, top-1 error in %, top-5 error in %; ±:" in text
    assert 'alt="mean IoU on shapes against cost"' in text and "Errors in percent" not in text


def test_pictures_are_labelled_with_the_metric(runs: Path) -> None:
    found = group_runs(gather_runs([runs]).runs)
    names = group_labels(found)
    figure = draw_learning_curves(found, names, "")
    assert figure and [ax.get_ylabel() for ax in figure.axes] == ["mean IoU, %", "pixel error, %"]
    assert figure.axes[0].get_ylim()[1] > 76  # not cut off: what is high is good
    figure = draw_costs(found, names, MIOU, "")
    assert figure and figure.axes[0].get_ylabel() == "mean IoU, %"
    results = [{**one.first.result, "strategy": "head", "train_n": number} for number, one in enumerate(found[:2], 1)]
    drawn = draw_comparison(results)
    assert drawn.axes[0].get_ylabel() == "mean IoU, %" and curves(results)["head"][0][2] == [55.0]
    assert drawn.axes[0].get_ylim()[0] > 0  # errors begin at 0, this does not


def test_a_result_without_its_own_primary_metric_is_damaged(runs: Path, cnnbench: Callable[..., Ran]) -> None:
    file = runs / "a" / "result.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({**whole, "miou": None}))
    assert "result.json has no miou" in cnnbench("report", str(runs)).err
    file.write_text(json.dumps({**whole, "metrics": [{"name": ["miou"], "label": "mean IoU"}]}))
    assert "result.json has no top1_error" in cnnbench("report", str(runs)).err
