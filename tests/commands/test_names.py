"""Names that no text should hold: they cost no command its result, and no file or terminal gets them raw."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench.output import plots
from cnnbench.tasks.classification import plots as class_plots
from cnnbench.utils.files import read_json
from tests.helpers.runs import SMALL, Ran

CLASSES = (b"caf\xe9", b"\x1b[2J\xe2\x80\xae=dog", b"$\\frac{", b"=1+1")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202e\ud800-\udfff]")


def make_images(root: bytes) -> str:
    rng = np.random.default_rng(0)
    for split, count in ((b"train", 4), (b"val", 2)):
        for number, name in enumerate(CLASSES):
            folder = b"/".join([root, split, name])
            os.makedirs(folder)  # noqa: PTH103  # pathlib takes no bytes
            for index in range(count):
                pixels = rng.integers(60 * number, 60 * number + 60, (16, 16, 3), dtype=np.uint8)
                with open(folder + b"/%d.png" % index, "wb") as file:  # noqa: PTH123
                    Image.fromarray(pixels).save(file, "png")
    return os.fsdecode(root)


def test_no_name_costs_a_result_or_commands_a_terminal(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    root = make_images(os.fsencode(tmp_path) + b"/im\xe9ges")
    common = ("device=cpu", "precision=fp32")
    commands = {
        "train": ("model=resnet8", "data=folder", f"data.root={root}", "epochs=1", "batch_size=8", "run.dir=run",
                  "data.workers=0", "tracking.images=true", "resume=never", *common),
        "finetune": ("weights=run", "data=folder", f"data.root={root}", "transfer=head", "epochs=1", "batch_size=8",
                     "data.workers=0", "run.dir=tuned", *common),
        "evaluate": ("weights=run", "run.dir=judged", *common),
        "predict": (f"{root}/val", "weights=run", "sheet=sheet.png", "out=answers.csv", *common),
        "visualize": ("weights=run", "run.dir=seen", "what=[filters,embedding,mistakes]", *common),
        "export": ("weights=run", "format=safetensors", "out=net.safetensors"),
        "report": (".", "out=report.html"),
    }  # fmt: skip
    for command, args in commands.items():
        ran = cnnbench(command, *args)
        assert ran.code == 0, (command, ran.err)
        assert not RAW.search(ran.out + ran.err), command
        assert "damaged" not in ran.err
    for name in ("run/confusion_matrix.png", "run/mistakes.png", "judged/calibration.png", "sheet.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert not [text for text in read_json(tmp_path / "run/result.json")["warnings"] if "cannot" in text]
    for file in [*tmp_path.rglob("*.csv"), *tmp_path.rglob("*.html"), tmp_path / "run/log.txt"]:
        assert not RAW.search(file.read_text(encoding="utf-8")), file
    assert "'=1+1" in (tmp_path / "answers.csv").read_text()
    assert "caf�" in (tmp_path / "report.html").read_text() or "im�ges" in (tmp_path / "report.html").read_text()


def test_json_holds_all_names(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    root = make_images(os.fsencode(tmp_path) + b"/images")
    ran = cnnbench("predict", f"{root}/val", "weights=zoo:resnet20-cifar10", "format=json", "device=cpu")
    assert {Path(one["file"]).parent.name for one in json.loads(ran.out)} == {
        "caf\udce9", "\x1b[2J\u202e=dog", "$\\frac{", "=1+1"}  # fmt: skip


def test_pictures_that_cannot_be_drawn_are_warnings_in_the_result(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise TypeError("set_text(): incompatible function arguments\nmore of it")

    for module, name in ((plots, "plot_curves"), (class_plots, "plot_confusion_matrix"),
                         (class_plots, "plot_train_batch")):  # fmt: skip
        monkeypatch.setattr(module, name, fail)
    ran = cnnbench("train", "epochs=1", "run.dir=run", *SMALL)
    assert ran.code == 0
    result = read_json(tmp_path / "run/result.json")
    why = "TypeError: set_text(): incompatible function arguments; the result is complete without it"
    drawn = ("train_batch.png", "the pictures of the validation", "curves.png")
    of_pictures = [text for text in result["warnings"] if text.startswith("cannot")]
    assert of_pictures == [f"cannot write {name}: {why}" for name in drawn]
    assert all(ran.err.count(f"warning: {text}\n") == 1 for text in of_pictures)
    assert read_json(tmp_path / "run/status.json")["status"] == "done"
    ran = cnnbench("evaluate", "weights=run", "run.dir=judged", "device=cpu")
    assert ran.code == 0
    assert read_json(tmp_path / "judged/result.json")["warnings"] == [f"cannot write confusion_matrix.png: {why}"]
    assert (tmp_path / "judged/calibration.png").exists()
