"""Weights into a net: names that differ, heads for other classes, mismatches that load nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import models
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError
from cnnbench.weights import merge
from cnnbench.weights.sources import Weights


def net(classes: int = 3) -> Net:
    return models.build("resnet8", num_classes=classes)


def given(state: dict[str, torch.Tensor], **known: Any) -> Weights:
    return Weights(source="FILE", state=state, spec=known.get("spec"))


def test_a_head_for_other_classes_is_left_as_initialised_and_said() -> None:
    source, target = net(10), net(3)
    fresh = target.fc.weight.clone()
    report = merge.merge(target, given(source.state_dict()))
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    assert torch.equal(target.fc.weight, fresh)
    assert set(report.fresh) == {"fc.weight", "fc.bias"}
    assert "10 classes there, 3 here" in report.text()


def test_as_many_but_other_classes_need_a_new_head_too() -> None:
    source, target = net(3), net(3)
    merge.merge(target, given(source.state_dict()), new_head=True)
    assert not torch.equal(target.fc.weight, source.fc.weight)


def test_other_names_load_once_they_are_named() -> None:
    source, target = net(), net()
    state = {name.replace("fc.", "linear."): value for name, value in source.state_dict().items()}
    with pytest.raises(UserError, match=r"(?s)missing in the file: fc.weight \(3, 64\).*linear.weight.*weights_rename"):
        merge.merge(net(), given(state))
    merge.merge(target, given(state), {"linear": "fc"})
    assert torch.equal(target.fc.weight, source.fc.weight)
    with pytest.raises(UserError, match="no name in FILE is or begins with 'liner'"):
        merge.merge(net(), given(state), {"liner": "fc"})


def test_a_layer_beside_the_prefix_of_all_others_is_shown_beside_the_missing_one() -> None:
    state = {f"backbone.{name}": value for name, value in net().state_dict().items() if not name.startswith("fc")}
    state |= {"head.weight": torch.ones(3, 64), "head.bias": torch.ones(3)}
    with pytest.raises(UserError, match=r"(?s)missing in the file: fc.weight.*\n.*head.weight \(3, 64\)"):
        merge.merge(net(), given(state))
    target = net()
    merge.merge(target, given(state), {"head": "fc"})
    assert target.fc.bias.tolist() == [1.0, 1.0, 1.0]


def test_long_names_are_cut_in_a_message() -> None:
    with pytest.raises(UserError) as error:
        merge.merge(net(), given({**net().state_dict(), **{f"{number}{'x' * 5000}": torch.ones(1) for number in "12"}}))
    assert 100 < len(str(error.value)) < 600


def test_what_is_skipped_keeps_its_initialisation() -> None:
    source, target = net(), net()
    fresh = target.layer3[0].conv1.weight.clone()
    report = merge.merge(target, given(source.state_dict() | {"ema.x": torch.ones(1)}), skip=["layer3", "ema"])
    assert torch.equal(target.layer3[0].conv1.weight, fresh)
    assert torch.equal(target.layer2[0].conv1.weight, source.layer2[0].conv1.weight)
    assert "layer3.0.conv1.weight" in report.fresh
    with pytest.raises(UserError, match="nothing is called 'layer9'"):
        merge.merge(net(), given(source.state_dict()), skip=["layer9"])


def test_a_stage_and_all_after_it_keep_their_initialisation() -> None:
    source, target = net(), net()
    report = merge.merge(target, given(source.state_dict()), skip=["from:layer2"])
    assert torch.equal(target.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert {name.split(".")[0] for name in report.fresh} == {"layer2", "layer3", "fc"}
    with pytest.raises(UserError, match="unknown stage 'layer9'"):
        merge.merge(net(), given(source.state_dict()), skip=["from:layer9"])


def test_a_mismatch_that_nobody_named_loads_nothing() -> None:
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = net().state_dict() | {"conv1.weight": torch.zeros(16, 1, 3, 3)}
    with pytest.raises(UserError, match=r"conv1.weight is \(16, 1, 3, 3\) in the file, \(16, 3, 3, 3\) in the net"):
        merge.merge(target, given(state))
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_weights_of_another_function_are_refused_though_their_names_fit() -> None:
    """torchvision's and the paper's bottleneck nets have the same names and shapes, and compute something else."""
    images = InputSpec(image_size=224, in_channels=3, mean=[0.5], std=[0.5])
    other = ModelSpec(model={"name": "resnet50"}, labels=["a"], input=images)
    with pytest.raises(UserError, match="is of resnet50, not of resnet50_v1"):
        merge.check_variant({"name": "resnet50_v1"}, given({}, spec=other))
    merge.check_variant({"name": "resnet50", "source": "torchvision"}, given({}, spec=other))
    padded = ModelSpec(model={"name": "resnet20", "shortcut_pad": "both"}, labels=["a"], input=images)
    with pytest.raises(UserError, match="shortcut_pad=both"):
        merge.check_variant({"name": "resnet20", "shortcut_pad": "end"}, given({}, spec=padded))


def test_train_takes_weights_under_other_names(cnnbench: Callable[..., Any], tmp_path: Path) -> None:
    state = models.build("resnet8", num_classes=10, in_channels=1).state_dict()
    torch.save(
        {"state_dict": {f"module.{n.replace('fc.', 'linear.')}": v for n, v in state.items()}}, tmp_path / "x.th"
    )
    small = ("data.image_size=8", "data.fraction=0.05", "max_steps=1", "precision=fp32", "device=cpu", "weights=x.th")
    ran = cnnbench("train", *small)
    assert ran.code == 2
    assert "missing in the file: fc.weight (10, 64), fc.bias (10,)" in ran.err
    assert not (tmp_path / "outputs").exists()
    assert cnnbench("train", *small, "weights_rename={linear: fc}").code == 0
