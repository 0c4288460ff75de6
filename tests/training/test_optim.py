"""Optimizers, scaling of the lr, and which parameters decay."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from cnnbench.config.sections import OptimConfig, Optimizer, RestConfig
from cnnbench.models import build
from cnnbench.training import optim
from cnnbench.training.muon import Muon
from cnnbench.training.rmsprop import RMSProp


def optim_config(**changes: object) -> OptimConfig:
    values: dict = {
        "name": Optimizer.sgd, "lr": 0.1, "lr_batch": 128, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4,
        "decay_all": False, "clip": None, "lr_decay": 1.0, "head_lr": 1.0, "bias_lr": 1.0,
    }  # fmt: skip
    return OptimConfig(**{**values, **changes})


def test_lr_scales_from_the_batch_it_was_tuned_for() -> None:
    assert optim.scaled_lr(optim_config(), 128) == pytest.approx(0.1)
    assert optim.scaled_lr(optim_config(), 512) == pytest.approx(0.4)
    assert optim.scaled_lr(optim_config(lr_batch=None), 512) == pytest.approx(0.1)


class Named(nn.Module):
    """Names chosen to mislead anyone who looks for 'bn' or 'bias' in them."""

    def __init__(self) -> None:
        super().__init__()
        self.subnet = nn.Conv2d(3, 4, 3)
        self.scale = nn.BatchNorm2d(4)
        self.bias_net = nn.Linear(4, 2)


def test_decay_goes_by_kind_of_module_not_by_name() -> None:
    net = Named()
    decayed, others = optim.parameter_groups(net, optim_config(weight_decay=0.01), 0.1)
    assert {id(p) for p in decayed["params"]} == {id(net.subnet.weight), id(net.bias_net.weight)}
    assert decayed["weight_decay"] == 0.01
    assert others["weight_decay"] == 0
    assert len(others["params"]) == 4
    (everything,) = optim.parameter_groups(net, optim_config(weight_decay=0.01, decay_all=True), 0.1)
    assert len(everything["params"]) == 6


def test_frozen_parameters_are_not_in_the_optimizer() -> None:
    net = Named()
    net.subnet.requires_grad_(False)
    optimizer = optim.build_optimizer(net, optim_config(), 128)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters() if p.requires_grad}


def test_sgd_follows_the_update_rule_of_the_paper() -> None:
    """v = 0.9 v + g + wd w; w = w - lr v, by hand for two steps."""
    net = nn.Linear(1, 1, bias=False)
    optimizer = optim.build_optimizer(net, optim_config(weight_decay=0.01), 128)
    weight, velocity = net.weight.item(), 0.0
    for gradient in (0.5, -0.2):
        net.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.01 * weight
        weight -= 0.1 * velocity
    assert net.weight.item() == pytest.approx(weight)


def test_adamw_is_there() -> None:
    assert isinstance(optim.build_optimizer(Named(), optim_config(name=Optimizer.adamw), 128), torch.optim.AdamW)


def test_lr_is_always_set_from_its_base() -> None:
    optimizer = optim.build_optimizer(Named(), optim_config(), 128)
    for factor in (0.5, 0.5, 0.1):
        optim.set_lr(optimizer, [0.1, 0.1], factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor] * 2)


def test_biases_may_be_faster_without_decaying_faster() -> None:
    net = Named()
    weights, biases = optim.parameter_groups(net, optim_config(weight_decay=0.01, decay_all=True, bias_lr=64.0), 0.1)
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.01)
    assert biases["lr"] == pytest.approx(6.4)
    assert biases["lr"] * biases["weight_decay"] == pytest.approx(0.1 * 0.01)  # type: ignore[operator]
    (one, other) = optim.parameter_groups(net, optim_config(weight_decay=0.01, bias_lr=64.0), 0.1)
    assert {one["weight_decay"], other["weight_decay"]} == {0.01, 0.0}


def muon(net: nn.Module, **changes: Any) -> Muon:
    cfg = optim_config(
        name=Optimizer.muon, lr_batch=None, rest=RestConfig(lr=0.5, momentum=0.8, weight_decay=0.01), **changes
    )
    optimizer = optim.build_optimizer(net, cfg, 128)
    assert isinstance(optimizer, Muon)
    return optimizer


def one_step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    net(torch.randn(8, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_along_the_orthogonal_matrix_and_sgd_trains_the_rest(layout: torch.memory_format) -> None:
    """A layer's step is lr times a matrix whose singular values are about 1, however it lies in memory."""
    torch.manual_seed(0)
    net = build("airbench").to(memory_format=layout)
    optimizer = muon(net, weight_decay=0.0, lr=0.1)
    before = {name: value.clone() for name, value in net.named_parameters()}
    torch.manual_seed(1)
    net(torch.randn(8, 3, 32, 32)).square().mean().backward()
    gradients = {name: value.grad.clone() for name, value in net.named_parameters()}  # type: ignore[union-attr]
    optimizer.step()
    for name, value in net.named_parameters():
        step = before[name] - value.detach()
        if value.ndim == 4:
            left, sizes, right = torch.linalg.svd(gradients[name].flatten(1), full_matrices=False)
            along = (left.T @ step.flatten(1) @ right.T).diagonal() / 0.1
            clear = sizes > 0.05 * sizes[0]  # torch's iteration needs more than its five steps for the smallest
            assert along[clear].min() > 0.6 and along.max() < 1.3, name
        else:
            lr, decay = 0.5, 0.01 if name == "fc.weight" else 0.0
            torch.testing.assert_close(step, lr * (gradients[name] + decay * before[name]), atol=1e-6, rtol=1e-4)


def test_muon_takes_what_begins_to_train_later() -> None:
    net = build("resnet8")
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    cfg = optim_config(name=Optimizer.muon)
    optimizer = optim.build_optimizer(net, cfg, 128)
    assert isinstance(optimizer, Muon) and optimizer.muon is None
    net.layer3.requires_grad_(True)
    for group in optim.parameter_groups(net, cfg, 0.1, net.layer3.parameters()):
        optimizer.add_param_group(group)
    before = net.layer3[0].conv1.weight.clone()
    one_step(net, optimizer, 0)
    assert not torch.equal(before, net.layer3[0].conv1.weight)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon", "rmsprop"])
def test_an_lr_that_lies_on_the_device_is_the_same_lr(kind: str) -> None:
    """As on a GPU, where a recorded step reads it anew: fused, and a step that is not finite changes nothing."""
    torch.manual_seed(0)
    nets = [build("airbench") for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    cfg = optim_config(name=Optimizer(kind), lr=0.01, rest=RestConfig(lr=0.5, momentum=0.8, weight_decay=0.01))
    plain, fused = (optim.build_optimizer(net, cfg, 128, fused) for net, fused in zip(nets, (False, True), strict=True))
    rates = [group["lr"] for group in plain.param_groups]
    for group in fused.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    for step in range(3):
        for net, optimizer in zip(nets, (plain, fused), strict=True):
            optim.set_lr(optimizer, rates, 1 / (1 + step))
            fused.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
            one_step(net, optimizer, step)
    for value, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4)
    assert optim.plain_state(fused)["param_groups"][0]["lr"] == pytest.approx(rates[0] / 3)
    before = deepcopy((nets[1].state_dict(), optim.plain_state(fused)["state"]))
    nets[1](torch.full((8, 3, 32, 32), float("nan"))).square().mean().backward()
    fused.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    fused.step()
    after = dict(nets[1].named_parameters())
    assert all(torch.equal(before[0][name], value) for name, value in after.items())


def test_muon_has_the_bits_of_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(24, 8, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}
    one = Muon([{"params": [ours.weight], "muon": True, **settings}], **settings)
    other = torch.optim.Muon([theirs.weight], **settings)
    for step in range(4):
        for layer, optimizer in ((ours, one), (theirs, other)):
            one_step_of(layer, optimizer, step)
    assert torch.equal(ours.weight, theirs.weight)


def one_step_of(layer: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    layer(torch.randn(16, 24)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def rmsprop(net: nn.Module, **changes: Any) -> RMSProp:
    cfg = optim_config(name=Optimizer.rmsprop, lr=0.045, lr_batch=None, weight_decay=0.01, **changes)
    optimizer = optim.build_optimizer(net, cfg, 128)
    assert isinstance(optimizer, RMSProp)
    return optimizer


def test_rmsprop_follows_the_rule_of_the_papers_code() -> None:
    """ms = 0.9 ms + 0.1 g^2 from 1 on; v = 0.9 v + lr g / sqrt(ms + 1); w = w - v, by hand for three steps."""
    net = nn.Linear(1, 1, bias=False)
    optimizer = rmsprop(net)
    weight, velocity, square = net.weight.item(), 0.0, 1.0
    for gradient, lr in ((0.5, 0.045), (-2.0, 0.045), (1.0, 0.02)):
        net.weight.grad = torch.tensor([[gradient]])
        optim.set_lr(optimizer, [lr], 1.0)
        optimizer.step()
        gradient += 0.01 * weight
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.9 * velocity + lr * gradient / (square + 1) ** 0.5
        weight -= velocity
    assert net.weight.item() == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize(("name", "optimizer_of"), [("airbench", muon), ("resnet8", rmsprop)])
def test_an_optimizer_goes_on_from_its_state_as_if_nothing_had_happened(
    name: str, optimizer_of: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    torch.manual_seed(0)
    net = build(name)
    optimizer = optimizer_of(net)
    one_step(net, optimizer, 1)
    kept = deepcopy((net.state_dict(), optimizer.state_dict()))
    one_step(net, optimizer, 2)
    other = build(name)
    resumed = optimizer_of(other)
    other.load_state_dict(kept[0])
    resumed.load_state_dict(kept[1])
    one_step(other, resumed, 2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())
