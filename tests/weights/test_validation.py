"""Checkpoints that are whole but wrong: each is refused in words where it is read, whatever it is read for."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from cnnbench.config.sections import CheckpointConfig, OnError, conf_dir
from cnnbench.training import resume
from cnnbench.utils.errors import UserError
from cnnbench.weights import checkpoint, sources, validation
from cnnbench.weights.checkpoint_manager import CheckpointManager
from tests.helpers.checkpoints import NEEDED, NEEDED_BEFORE
from tests.helpers.runs import Ran

NEST: dict[str, Any] = {}
NEST["a"] = {"b": [NEST]}
DEEP: Any = 1
for _ in range(100):
    DEEP = {"a": DEEP}

Edit = Callable[[dict[str, Any]], Any]


def put(*path_and_value: Any) -> Edit:
    *path, last, value = path_and_value

    def edit(content: dict[str, Any]) -> None:
        for key in path:
            content = content[key]
        content[last] = value

    return edit


def drop(*path: str) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return edit


WEIGHT = ("model", "fc.weight")
WRONG: list[tuple[Edit, str]] = [
    (drop("spec"), "has no spec"),
    (drop("config"), "has no config"),
    (drop("config", "precision"), "has no config.precision"),
    (put("config", "precision", "bf17"), "config.precision is 'bf17', not auto or fp32 or bf16 or fp16"),
    (drop("progress"), "has no progress"),
    (drop("model"), "has no model"),
    (put("spec", [1]), r"spec is of type list, not a dictionary"),
    (put("spec", "labels", ["a"]), "names 1 classes, but its weights are for 2"),
    (put("spec", "labels", ["a", "b", "c"]), "names 3 classes, but its weights are for 2"),
    (put("spec", "labels", []), "num_classes must be at least 1|names 0 classes"),
    (put("spec", "labels", "ab"), "spec.labels is 'ab', not a list of names"),
    (put("spec", "labels", [1, 2]), "spec.labels .*not a list of names"),
    (put("spec", "extra", {"outputs": 10**9}), r"spec.extra.outputs is 1000000000, not a whole number from 1 to"),
    (put("spec", "extra", {"outputs": 5}), "has 5 outputs, but its weights are for 2"),
    (put("spec", "task", 3), "spec.task is 3, not text"),
    (put("spec", "colour", 3), "it has spec.colour, which this version does not know"),
    (put("spec", "model", {"name": "resnet9000"}), "unknown model 'resnet9000'"),
    (put("spec", "model", {"name": "resnet20"}), "do not fit its own net, resnet20"),
    (put("spec", "model", {"name": ["resnet8"]}), "spec.model .*not the name of a net"),
    (put("spec", "model", {}), "spec.model .*not the name of a net"),
    (put("spec", "model", "filters", [[3]]), "spec.model .*not the name of a net"),
    (put("spec", "model", "filters", [1, -3]), "spec.model .*not the name of a net"),
    (put("spec", "model", "depth", 3), "has no argument 'depth'"),
    (put("spec", "model", "num_classes", 3), "num_classes"),
    (put("spec", "model", "shortcut", torch.zeros(3)), "spec.model"),
    (put("spec", "input", 7), "spec.input is 7, not a dictionary"),
    (drop("spec", "input", "mean"), "has no spec.input.mean"),
    (put("spec", "input", "mean", [0.5, 0.5]), "spec.input.mean has 2 values for 3 channels"),
    (put("spec", "input", "mean", 0.5), "spec.input.mean is 0.5, not a list"),
    (put("spec", "input", "mean", [float("nan")] * 3), "spec.input.mean"),
    (put("spec", "input", "mean", [10**400] * 3), "spec.input.mean"),
    (put("spec", "input", "std", [0.5, -0.5, 0.5]), "spec.input.std .*above 0"),
    (put("spec", "input", "std", [0.0] * 3), "spec.input.std .*above 0"),
    (put("spec", "input", "std", torch.ones(3)), r"spec.input.std is a tensor \(3,\), not a list"),
    (put("spec", "input", "image_size", 10**6), "spec.input.image_size is 1000000, not a whole number from 1 to 8,192"),
    (put("spec", "input", "image_size", 10**400), "image_size is a number far too large"),
    (put("spec", "input", "image_size", "32"), "image_size is '32', not a whole number"),
    (put("spec", "input", "image_size", True), "image_size is True"),
    (put("spec", "input", "in_channels", 1), "mean has 3 values for 1 channels"),
    (put("spec", "input", "in_channels", 10**9), "in_channels"),
    (put("spec", "input", "crop_ratio", -1.0), "crop_ratio is -1.0, not a finite number above 0 and at most 1"),
    (put("spec", "input", "interpolation", "cubic"), "interpolation is 'cubic', not nearest or bilinear or bicubic"),
    (put("config", "data", None), "config.data is None, not a dictionary"),
    (drop("config", "optim"), "has no config.optim"),
    (put("config", "run", 3), "config.run is no dictionary"),
    (put("config", "data", "root", "${oc.env:HOME}"), "config refers to other values"),
    (put("config", "data", NEST), "config is nested too deep"),
    (put("config", "data", DEEP), "config is nested too deep"),
    (put("progress", "epoch", "3"), "progress.epoch is '3', not a whole number"),
    (put("progress", "epoch", -1), "progress.epoch is -1"),
    (put("progress", "left", 3), "progress.left, which"),
    (drop("progress", "batch"), "has no progress.batch"),
    (put(*WEIGHT, torch.zeros(2, 64, dtype=torch.int8)), r"fc.weight is \(2, 64\) of int8 in the file"),
    (put(*WEIGHT, torch.zeros(2, 64, dtype=torch.complex64)), "complex64"),
    (put(*WEIGHT, torch.zeros(2, 65)), r"fc.weight is \(2, 65\) in the file, \(2, 64\) in the net"),
    (put(*WEIGHT, torch.zeros(())), "fc.weight"),
    (put(*WEIGHT, torch.zeros(2, 64).to_sparse()), "holds what is no weights"),
    (put(*WEIGHT, [[0.0] * 64] * 2), "fc.weight|model"),
    (drop(*WEIGHT), "fc.weight is missing"),
    (put("model", "more", torch.zeros(3)), "more is not in the net"),
]


@pytest.mark.parametrize(("edit", "said"), WRONG)
def test_a_checkpoint_that_is_whole_but_wrong_is_refused_in_words(tmp_path: Path, edit: Edit, said: str) -> None:
    content = copy.deepcopy(NEEDED)
    edit(content)
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 3, **content})
    with pytest.raises(UserError, match=rf"last\.pt.*({said})") as use:
        sources.load(str(file))
    every = CheckpointConfig(every="10m", keep=2, on_error=OnError.warn)
    with pytest.raises(UserError, match=r"last\.pt") as going_on:
        CheckpointManager(tmp_path, every).load()
    for error in (use, going_on):
        assert 1 <= len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("net", [file.stem for file in sorted((conf_dir() / "model").glob("*.yaml"))])
def test_the_arguments_of_every_net_are_welcome(net: str) -> None:
    """Those of conf/model, as a checkpoint keeps them: lists too."""
    arguments = {"name": net, **yaml.safe_load((conf_dir() / "model" / f"{net}.yaml").read_text()).get("model", {})}
    accepts, words = validation.SPEC["model"]
    assert accepts({**arguments, "name": net}), words


@pytest.mark.usefixtures("no_pictures")
def test_a_net_with_a_list_among_its_arguments_is_resumed_and_evaluated(cnnbench: Callable[..., Ran]) -> None:
    run = ("train", "model=cuda_convnet", "model.filters=[4,4]", "data.image_size=8", "model.image_size=8",
           "model.upper=shared", "run.dir=r")  # fmt: skip
    assert cnnbench(*run, "epochs=1").code == 0
    again = cnnbench(*run, "epochs=2", "resume=force")
    assert (again.code, "epoch 2/2" in again.out) == (0, True), again.err
    assert cnnbench("evaluate", "weights=r", "run.dir=e").code == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_no_use(tmp_path: Path, value: float) -> None:
    content = copy.deepcopy(NEEDED)
    content["model"]["fc.weight"][0, 0] = value
    checkpoint.save(tmp_path / "last.pt", {"step": 3, **content})
    with pytest.raises(UserError, match=r"last\.pt is of no use: 1 of the 128 numbers in fc.weight are not finite"):
        sources.build(sources.load(str(tmp_path / "last.pt")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_welcome(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: value.to(dtype) for name, value in NEEDED["model"].items()}, tmp_path / "x.pt")
    assert sources.load(str(tmp_path / "x.pt")).state["fc.weight"].dtype is dtype


def test_a_spec_in_safetensors_is_checked_like_one_in_a_checkpoint(tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in NEEDED["model"].items()}
    for spec, said in (({**NEEDED["spec"], "labels": ["a"]}, "names 1 classes"), ({}, "says of itself"), (3, "spec"),
                       ({**NEEDED["spec"], "input": {}}, "has no spec.input.image_size")):  # fmt: skip
        safetensors.torch.save_file(
            state, tmp_path / "x.safetensors", metadata={"cnnbench": json.dumps({"spec": spec})}
        )
        with pytest.raises(UserError, match=rf"x\.safetensors.*{said}"):
            sources.load(str(tmp_path / "x.safetensors"))
    before = json.dumps({"inference": NEEDED_BEFORE["inference"]})
    safetensors.torch.save_file(state, tmp_path / "x.safetensors", metadata={"cnnbench": before})
    assert sources.load(str(tmp_path / "x.safetensors")).spec is not None


GOING_ON: dict[str, Any] = {"step": 1, "batch_size": 5, "images": [3, 3], "rows": [{"epoch": 1, "step": 1}],
                            "meter": {}, "optimizer": {}, "scaler": {}}  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), [
    (drop("optimizer"), "has no optimizer"), (put("step", "1"), "step is '1'"), (put("rows", {}), "rows is"),
    (put("rows", [3]), "rows.0 is 3, not a dictionary"), (put("rows", [{"epoch": 1}]), "has no rows.0.step"),
    (put("meter", 3), "meter is 3, not a dictionary"),
    (put("batch_size", 0), "batch_size"),
])  # fmt: skip
def test_what_a_training_goes_on_from_is_checked_too(edit: Edit, said: str) -> None:
    content = copy.deepcopy(GOING_ON)
    validation.check_training(content, "last.pt")
    edit(content)
    with pytest.raises(UserError, match=f"last.pt is not as cnnbench writes it: .*{said}"):
        validation.check_training(content, "last.pt")
    assert resume.check_training is validation.check_training
