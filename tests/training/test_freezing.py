"""Frozen and thawed parts of a net, and the learning rate of each stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnbench import models
from cnnbench.config.sections import OptimConfig, Optimizer
from cnnbench.models.layers import Net
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification.task import Classification
from cnnbench.training import freezing, optim
from cnnbench.training.loop import train_step
from cnnbench.training.state import TrainState
from cnnbench.utils.errors import UserError
from cnnbench.weights import checkpoint
from tests.helpers.tiny import Tiny

pytestmark = pytest.mark.usefixtures("no_pictures")


def net() -> Net:
    return models.build("resnet8", num_classes=3)


def train_state(model: Net, lr_decay: float = 1.0) -> TrainState:
    device = create_runtime("cpu", "fp32", 0)
    cfg = OptimConfig(name=Optimizer.sgd, lr=0.1, lr_batch=None, momentum=0.9, nesterov=False, weight_decay=0.01,
                      decay_all=False, clip=None, lr_decay=lr_decay, head_lr=1.0)  # fmt: skip
    return TrainState(model=model, net=model, task=Classification(), optimizer=optim.build_optimizer(model, cfg, 8),
                      schedule=lambda step: 1.0, runtime=device, normalize=torch.Tensor.float)  # fmt: skip


def steps(one: TrainState, count: int = 3) -> None:
    freezing.train_mode(one.model)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randint(256, (8, 3, 32, 32), generator=generator).float() / 255
        train_step(one, images, torch.arange(8) % 3)


@pytest.mark.parametrize("what", ["backbone", "until:layer3", ["layer1", "layer2"], "re:layer[12]|bn1"])
def test_frozen_means_frozen_to_the_last_bit_batchnorm_too(what: Any) -> None:
    model = net()
    freezing.freeze(model, what)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    still = frozen | {f"{norm}.{buffer}" for norm in norms if f"{norm}.weight" in frozen
                      for buffer in ("running_mean", "running_var", "num_batches_tracked")}  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = train_state(model)
    held = {id(parameter) for group in one.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    steps(one)
    after = model.state_dict()
    assert still
    assert all(torch.equal(before[name], after[name]) for name in still)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == before.keys() - still
    assert not model.layer1.training or what == ["head"]


def test_nothing_below_the_lowest_trainable_layer_is_differentiated() -> None:
    model = net()
    freezing.freeze(model, "until:layer3")
    freezing.train_mode(model)
    reached: list[str] = []
    for name, stage in (("layer2", model.layer2), ("layer3", model.layer3)):

        def look(module: nn.Module, inputs: Any, output: torch.Tensor, name: str = name) -> None:
            if output.requires_grad:
                reached.append(name)

        stage.register_forward_hook(look)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    assert reached == ["layer3"]
    assert all(parameter.grad is None for parameter in model.layer2.parameters())


def test_dropout_in_a_frozen_stage_is_off() -> None:
    model = models.build("alexnet_owt", num_classes=2)
    freezing.freeze(model, "backbone")
    freezing.train_mode(model)
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(model(images), model(images))


def test_thawing_is_checked_and_adds_to_the_optimizer_what_begins_to_train() -> None:
    model = net()
    plan = freezing.thaw_plan(model, {2: "layer3", 4: "all"})
    assert plan == {2: ["layer3"], 4: list(model.stages)}
    freezing.freeze(model, "backbone")
    assert "frozen, trains after epoch 2" in freezing.table(model, plan)
    begun = freezing.thaw(model, plan[2])
    assert {id(p) for p in begun} == {id(p) for p in model.layer3.parameters()}
    assert freezing.thaw(model, plan[2]) == []
    with pytest.raises(UserError, match="unknown stage 'layer9'"):
        freezing.thaw_plan(model, {2: "layer9"})
    with pytest.raises(UserError, match="give epochs and stages"):
        freezing.thaw_plan(model, ["layer3"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("re:(", "no regular expression"),
        ("re:nothing", "matches no parameter"),
        ("stern", "unknown stage 'stern'"),
        (5, "give none, backbone"),
    ],
)
def test_what_cannot_be_frozen_is_one_sentence(what: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        freezing.freeze(net(), what)


def test_the_lr_falls_with_the_distance_from_the_head() -> None:
    one = train_state(net(), lr_decay=0.5)
    lr_of = {id(p): group["lr"] for group in one.optimizer.param_groups for p in group["params"]}
    model = one.model
    assert lr_of[id(model.fc.weight)] == pytest.approx(0.1)
    assert lr_of[id(model.layer3[0].conv1.weight)] == pytest.approx(0.05)
    assert lr_of[id(model.layer3[0].bn1.weight)] == pytest.approx(0.05)
    assert lr_of[id(model.conv1.weight)] == pytest.approx(0.1 * 0.5**4)
    assert one.lr == pytest.approx(0.1)


def test_unfreeze_at_thaws_and_a_cut_run_goes_on_to_the_same_weights(
    cnnbench: Callable[..., Any], tmp_path: Path
) -> None:
    common = ("epochs=3", "data.image_size=8", "data.fraction=0.1", "batch_size=48", "precision=fp32", "device=cpu",
              "freeze=backbone", "unfreeze_at={1: layer3, 2: all}")  # fmt: skip
    assert cnnbench("train", *common, "run.dir=whole").code == 0
    ran = cnnbench("train", *common, "run.dir=cut", "max_steps=5", "schedule=constant")
    assert ran.code == 0, ran.err
    whole = checkpoint.load(tmp_path / "whole/checkpoints/last.pt")
    assert len(whole["optimizer"]["param_groups"]) > 2
    first = cnnbench("train", *common, "run.dir=a", "schedule=constant")
    assert "layer3 begin to train" in first.out
    again = cnnbench("train", *common, "run.dir=cut", "schedule=constant", "resume=force")
    assert again.code == 0, again.err
    ours, theirs = (checkpoint.load(tmp_path / f"{name}/checkpoints/last.pt")["model"] for name in ("a", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("what", "frozen"),
    [
        ("none", []),
        ("backbone", ["stem", "layer1"]),
        (["layer1"], ["layer1"]),
        ("stem", ["stem"]),
        ("until:head", ["stem", "layer1"]),
    ],
)
def test_freeze_speaks_the_stages_vocabulary(what: Any, frozen: list[str]) -> None:
    assert freezing.freeze(Tiny(), what) == frozen


@pytest.mark.parametrize("what", ["layr1", "until:layr1", ["stem", "layr1"]])
def test_an_unknown_stage_is_refused_with_the_near_one(what: Any) -> None:
    with pytest.raises(UserError, match="Did you mean 'layer1'"):
        freezing.freeze(Tiny(), what)


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        freezing.freeze(Tiny(), ["stem", "layer1", "head"])


def test_what_was_loaded_can_be_kept_as_it_is() -> None:
    assert freezing.freeze(net(), "loaded", ["from:layer2"]) == ["stem", "layer1"]
    assert freezing.freeze(net(), "loaded", ["layer1"]) == ["stem", "layer2", "layer3"]
    assert freezing.freeze(net(), "loaded") == ["stem", "layer1", "layer2", "layer3"]
