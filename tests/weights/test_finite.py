"""Weights and answers that are no numbers: refused in one sentence, by every command, and never written down."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnbench.utils.files import json_text
from cnnbench.weights import sources
from tests.helpers.runs import Ran
from tests.helpers.trained import digits_run

COMMANDS = {
    "evaluate": ("data=digits",),
    "predict": ("photo.png",),
    "export": ("format=safetensors",),
    "visualize": ("what=mistakes", "data=digits"),
    "finetune": ("data=digits", "data.fraction=0.1", "transfer=svm", "precision=fp32"),
}


def spoilt(name: str, value: float, path: Path) -> Path:
    """The net of the digits with one number of the tensor `name` replaced."""
    loaded = sources.load(str(digits_run()))
    assert loaded.spec is not None
    loaded.state[name].view(-1)[1] = value
    sources.save_safetensors(path, loaded.state, loaded.spec)
    return path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_the_name_of_their_tensor(
    cnnbench: Callable[..., Ran], tmp_path: Path, command: str, value: float
) -> None:
    Image.new("L", (20, 20), 100).save("photo.png")
    file = spoilt("layer2.0.conv1.weight", value, tmp_path / "bad.safetensors")
    ran = cnnbench(command, *COMMANDS[command], f"weights={file}")
    assert (ran.code, ran.out) == (2, "")
    assert "1 of the 4,608 numbers in layer2.0.conv1.weight are not finite" in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_answers_that_are_not_finite_are_no_result(cnnbench: Callable[..., Ran], tmp_path: Path, command: str) -> None:
    Image.new("L", (20, 20), 100).save("photo.png")
    file = spoilt("bn1.weight", 3e38, tmp_path / "huge.safetensors")
    ran = cnnbench(command, *COMMANDS[command], f"weights={file}")
    assert ran.code == 1 and "not finite (NaN or infinity)" in ran.err.splitlines()[-1]
    assert not list(tmp_path.rglob("result.json"))


def test_the_head_that_is_spoilt_can_be_left_out(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    state = {**sources.load(str(digits_run())).state}
    torch.save({**state, "fc.bias": torch.full((10,), math.nan)}, "bad.th")
    small = ("train", "model=resnet8", "epochs=1", "data.fraction=0.1", "data.image_size=8", "weights=bad.th")
    assert cnnbench(*small).code == 2
    assert cnnbench(*small, "weights_skip=[fc]").code == 0


def test_json_is_valid_whatever_the_numbers_are() -> None:
    text = json_text({"loss": math.nan, "rows": [(math.inf, 1.5)], "name": "é"}, indent=None)
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "loss": None, "rows": [[None, 1.5]], "name": "é",
    }  # fmt: skip
