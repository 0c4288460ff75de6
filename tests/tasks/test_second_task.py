"""The seam: a task that the package does not know is trained, resumed, evaluated, predicted with and reported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench import tasks
from cnnbench.data import datasets
from cnnbench.models import MODELS
from cnnbench.utils.exit_codes import INTERRUPTED
from cnnbench.utils.files import read_json
from tests.helpers import planted
from tests.helpers.paths import ROOT
from tests.helpers.runs import Ran, assert_same_run, interrupt_after, rows, weights
from tests.helpers.tiny_fcn import TinyFcn

pytestmark = pytest.mark.usefixtures("no_pictures")

CONF = {
    "data/planted": "defaults: [digits, _self_]\nname: planted",
    "recipe/planted": "# @package _global_\ndefaults: [{/augment: pad_flip}]\nepochs: 3",
    "model/tiny_fcn": "# @package _global_\nmodel: {name: tiny_fcn, in_channels: null}",
}
TRAIN = ("train", "--config-dir", "conf", "data=planted", "model=tiny_fcn", "batch_size=16", "augment.padding=2",
         "device=cpu", "precision=fp32")  # fmt: skip


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "planted", planted.__name__)
    monkeypatch.setitem(datasets.SETS, "planted", planted.planted)
    monkeypatch.setitem(MODELS, "tiny_fcn", TinyFcn)
    for name, text in CONF.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


def test_a_second_task_is_trained_evaluated_predicted_with_and_reported(
    cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench(*TRAIN, "run.dir=r", "epochs=30", "optim.lr=0.5")
    assert ran.code == 0, ran.err
    result, lines = read_json(tmp_path / "r/result.json"), rows(tmp_path / "r")
    assert (result["task"], result["primary"], result["n"]) == ("planted", "miou", 16)
    assert result["miou"] == lines[-1]["miou/val"] and result["best_miou"] == max(row["miou/val"] for row in lines)
    assert result["miou"] > 80 and f"mean IoU {result['miou']:.2f} % on 16 val images" in ran.out
    assert not [key for key in [*result, *lines[-1]] if "top1" in key]

    judged = cnnbench("evaluate", "weights=r", "device=cpu", "precision=fp32", "format=json")
    assert json.loads(judged.out)["miou"] == result["miou"], judged.err
    image = np.full((16, 16), 128, np.uint8)
    image[4:8, 4:8] = 230
    Image.fromarray(image).save(tmp_path / "square.png")
    said = json.loads(cnnbench("predict", "square.png", "weights=r", "device=cpu", "format=json").out)
    assert sum(said[0][name] for name in planted.NAMES) == 256 and said[0]["square"] > said[0]["bar"], said
    for more in ("crop=ten", "calibrate=true"):
        assert "crop, shift and calibrate are for classification" in cnnbench("evaluate", "weights=r", more).err
    for more in ("crop=six", "min_probability=0.5", "weights=[r,r]"):
        asked = cnnbench("predict", "square.png", "weights=r", more, "device=cpu")
        assert asked.code == 2 and "min_probability are for classification: planted takes none" in asked.err

    report = cnnbench("report", "r")
    assert "mean IoU" in report.out and f"{result['miou']:.2f}" in report.out and "top-1" not in report.out, report.out


def test_it_goes_on_in_mid_epoch(cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, step=6)
        assert cnnbench(*TRAIN, "run.dir=cut").code == INTERRUPTED
    assert cnnbench(*TRAIN, "run.dir=cut").code == 0
    assert cnnbench(*TRAIN, "run.dir=whole").code == 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_two_processes_train_it_as_one_does(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench(*TRAIN, "run.dir=one", "epochs=2").code == 0
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.helpers import planted; planted.register(); "
    script += "from cnnbench.cli import main; sys.exit(main.main(sys.argv[1:]))"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, *TRAIN, "run.dir=two", "epochs=2"], cwd=tmp_path, text=True,
                         stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                         env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                              "CNNBENCH_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"})
        for rank in range(2)
    ]  # fmt: skip
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0, 0]
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert all(np.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in theirs)
    assert [row["miou/val"] for row in rows(tmp_path / "two")] == pytest.approx(
        [row["miou/val"] for row in rows(tmp_path / "one")], abs=0.5
    )


def test_it_is_fine_tuned(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    assert cnnbench(*TRAIN, "run.dir=r", "epochs=1").code == 0
    tune = ("finetune", *TRAIN[1:4], "weights=r/checkpoints/last.pt", "batch_size=16", "device=cpu", "precision=fp32")
    refused = cnnbench(*tune, "transfer=svm")
    assert refused.code == 2 and "transfer=svm fits a classifier: for planted use transfer=full" in refused.err
    ran = cnnbench(*tune, "transfer=full", "epochs=1", "run.dir=tuned")
    assert ran.code == 0 and "mean IoU" in ran.out, ran.err


def test_a_net_that_answers_otherwise_is_refused_with_those_that_fit(cnnbench: Callable[..., Ran]) -> None:
    for command in ("train", "finetune"):
        more = ["transfer=scratch"] if command == "finetune" else []
        refused = cnnbench(command, "--config-dir", "conf", "data=planted", "model=resnet8", *more)
        assert refused.code == 2 and len(refused.err.splitlines()) == 1, refused.err
        assert (
            "resnet8 answers with a class for each image, but task=planted needs a class for each pixel" in refused.err
        )
        assert "tiny_fcn" in refused.err
    refused = cnnbench("train", "--config-dir", "conf", "data=digits", "model=tiny_fcn")
    assert refused.code == 2 and "tiny_fcn answers with a class for each pixel" in refused.err, refused.err
    assert "alexnet" in refused.err and refused.err.strip().endswith("more"), refused.err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("loss.class_weights=balanced", "loss.class_weights is for images of one class each, which planted has not"),
        ("data.sampler=balanced", "data.sampler=balanced needs images of one class each, which planted has not"),
    ],
)
def test_what_needs_one_class_for_each_image_is_refused(
    cnnbench: Callable[..., Ran], setting: str, says: str, tmp_path: Path
) -> None:
    refused = cnnbench(*TRAIN, setting, "run.dir=r")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and says in refused.err
    assert not (tmp_path / "r").exists()
