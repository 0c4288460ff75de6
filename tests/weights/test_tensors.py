"""Which of the dictionaries in a file holds the weights, and what stands before their names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from cnnbench import models
from cnnbench.config.sections import PrepareConfig
from cnnbench.utils.errors import UserError
from cnnbench.weights import load, merge, sources
from cnnbench.weights.sources import Weights

NET = models.build("resnet8", num_classes=3)
STATE = NET.state_dict()
AVERAGE = {name: value + 1 for name, value in STATE.items()}
CLASSES = PrepareConfig(image_size=None, crop_ratio=None, interpolation=None, mean=[0.5] * 3, std=[0.5] * 3,
                        classes=["a", "b", "c"])  # fmt: skip


def loaded(folder: Path, content: Any, key: str | None = None) -> Weights:
    torch.save(content, folder / "x.pth")
    return sources.load(str(folder / "x.pth"), None, key)


def same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize(
    "key", ["model", "net", "network", "state_dict", "model_state_dict", "model_state", "params", "mine"]
)
def test_a_dictionary_of_weights_is_found_under_any_name_and_said(tmp_path: Path, key: str) -> None:
    optimizer = torch.optim.SGD(NET.parameters(), 0.1, momentum=0.9).state_dict()
    found = loaded(tmp_path, {"epoch": 3, "optimizer": optimizer, key: STATE, "loss": torch.zeros(())})
    assert same(found.state, STATE)
    assert f"weights: '{key}' of" in found.notes[0] and "also there" not in found.notes[0]


@pytest.mark.parametrize("key", ["ema", "model_ema", "state_dict_ema", "ema_state_dict", "net.ema", "swa_model"])
def test_a_moving_average_is_taken_and_the_others_can_be_chosen(tmp_path: Path, key: str) -> None:
    found = loaded(tmp_path, {"state_dict": STATE, key: AVERAGE})
    assert same(found.state, AVERAGE)
    assert f"'{key}'" in found.notes[0] and "also there: state_dict (as in weights_key=state_dict)" in found.notes[0]
    assert same(loaded(tmp_path, {"state_dict": STATE, key: AVERAGE}, "state_dict").state, STATE)


def test_no_word_is_taken_for_an_average_that_only_looks_like_one(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"model": STATE, "schema": {"w": torch.ones(2, 2)}, "semantic": {"w": torch.ones(2, 2)}})
    assert same(found.state, STATE)


def test_of_several_dictionaries_without_a_usual_name_one_must_be_chosen(tmp_path: Path) -> None:
    both = {"student": STATE, "teacher": AVERAGE}
    with pytest.raises(UserError, match=r"(?s)weights_key=student.*choices: student, teacher"):
        loaded(tmp_path, both)
    assert same(loaded(tmp_path, both, "teacher").state, AVERAGE)
    with pytest.raises(UserError, match=r"(?s)'teachr'. Did you mean 'teacher'"):
        loaded(tmp_path, both, "teachr")
    deeper = {"model": {"student": STATE, "teacher": AVERAGE}}
    assert same(loaded(tmp_path, deeper, "model.teacher").state, AVERAGE)


def test_weights_key_is_for_files(tmp_path: Path) -> None:
    for where in ("zoo:resnet20-cifar10", "imagenet"):
        with pytest.raises(UserError, match="weights_key=model is for files"):
            sources.load(where, {"name": "resnet18"}, "model")
    with pytest.raises(UserError, match=r"unknown weights_key for .*'model'"):
        loaded(tmp_path, STATE, "model")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"state_dict": {**STATE, "version": 3}})
    assert same(found.state, STATE)
    assert "not used, since they are no tensors: version" in found.notes


def test_wrappers_of_training_are_taken_off_and_said(tmp_path: Path) -> None:
    average = AveragedModel(torch.nn.DataParallel(NET)).state_dict()
    for content in (average, {"model_ema": average}, {f"_orig_mod.module.{name}": STATE[name] for name in STATE}):
        found = loaded(tmp_path, content)
        assert found.state.keys() == STATE.keys()
        assert any("'module.'" in note for note in found.notes)


@pytest.mark.parametrize("prefix", ["net.", "backbone.", "model.", "module.", "_orig_mod.", "a.b.c.", "module.net."])
def test_a_prefix_that_explains_all_names_is_found_and_said(tmp_path: Path, prefix: str) -> None:
    content = {**{f"{prefix}{name}": value for name, value in STATE.items()}, "criterion.weight": torch.ones(3)}
    if prefix in ("module.", "_orig_mod."):
        del content["criterion.weight"]  # these come from wrappers, which hold the net alone
    weights = loaded(tmp_path, content)
    target = models.build("resnet8", num_classes=3)
    report = merge.merge(target, weights)
    assert same(target.state_dict(), STATE)
    assert "taken off" in report.text()
    assert ("criterion.weight" in report.text()) is ("criterion.weight" in content)
    net, _, notes = load.ready(weights, {"name": "resnet8"}, CLASSES)
    assert same(net.state_dict(), STATE)
    assert sum("taken off" in note for note in notes) >= 1
    assert any("not used: criterion.weight" in note for note in notes) is ("criterion.weight" in content)


def test_two_prefixes_that_both_explain_the_names_are_no_guess(tmp_path: Path) -> None:
    both = {f"{prefix}.{name}": value for prefix, state in (("student", STATE), ("teacher", AVERAGE))
            for name, value in state.items()}  # fmt: skip
    with pytest.raises(UserError, match=r"several times, under student, teacher: .*weights_key=student"):
        merge.merge(models.build("resnet8", num_classes=3), loaded(tmp_path, both))
    target = models.build("resnet8", num_classes=3)
    merge.merge(target, loaded(tmp_path, both, "teacher"))
    assert same(target.state_dict(), AVERAGE)


@pytest.mark.parametrize("rename", [{"net": "", "head": ""}, {"net.": "", "head.": ""}, {"head.fc": "fc", "net": ""},
                                    {"head": ""}])  # fmt: skip
def test_prefixes_are_taken_off_by_weights_rename_with_or_without_a_dot(tmp_path: Path, rename: dict[str, str]) -> None:
    content = {f"{'head' if name.startswith('fc') else 'net'}.{name}": value for name, value in STATE.items()}
    target = models.build("resnet8", num_classes=3)
    merge.merge(target, loaded(tmp_path, content), rename)
    assert same(target.state_dict(), STATE)


def test_names_are_renamed_after_a_prefix_was_found_too(tmp_path: Path) -> None:
    content = {f"net.{name.replace('fc.', 'linear.')}": value for name, value in STATE.items()}
    for rename in ({"linear": "fc"}, {"net.linear": "net.fc"}):
        target = models.build("resnet8", num_classes=3)
        merge.merge(target, loaded(tmp_path, content), rename)
        assert same(target.state_dict(), STATE)


def test_no_two_tensors_get_one_name(tmp_path: Path) -> None:
    content = {f"{prefix}.{name}": value for prefix in ("a", "b") for name, value in STATE.items()}
    with pytest.raises(UserError, match=r"gives several tensors the name conv1.weight"):
        merge.merge(models.build("resnet8", num_classes=3), loaded(tmp_path, content), {"a": "", "b": ""})


def test_missing_names_are_shown_beside_the_files_own(tmp_path: Path) -> None:
    content = {name.replace("fc.", "linear."): value for name, value in STATE.items()}
    with pytest.raises(UserError) as error:
        merge.merge(models.build("resnet8", num_classes=3), loaded(tmp_path, content))
    lines = str(error.value).splitlines()
    assert "missing in the file: fc.weight (3, 64), fc.bias (3,)" in lines[0]
    assert lines[1] == "only in the file: linear.weight (3, 64), linear.bias (3,)"
    assert len(lines) == 3
