"""Gradients by depth before the first step, as numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench.models import build
from cnnbench.models.layers import Net
from cnnbench.visual.signals import Signal, arrives, norm, rms, signals, small, without_norms
from tests.helpers.runs import Ran


def of(name: str, change: Callable[[Net], Net] = lambda net: net) -> list[Signal]:
    torch.manual_seed(0)
    return signals(change(build(name)), torch.randn(8, 3, 16, 16), torch.arange(8) % 4)


def test_the_numbers_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    net, images, targets = build("plain8", num_classes=4), torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    found = {one.layer: one for one in signals(net, images, targets)}
    assert [*found][:2] == ["conv1", "layer1.0.conv1"] and len(found) == 8
    features: list[torch.Tensor] = []
    net.zero_grad()
    net.fc.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0]))
    logits = net.train()(images.double())
    gradient = (logits.softmax(1) - nn.functional.one_hot(targets, 4)) / 8
    assert found["fc"].gradient_of_output == pytest.approx(norm(gradient), rel=1e-4)
    assert found["fc"].gradient_of_weights == pytest.approx(norm(gradient.T @ features[0]), rel=1e-4)
    assert found["fc"].output == pytest.approx(rms(logits), rel=1e-4)
    assert not any(module._forward_hooks for module in net.modules())


def test_gradients_vanish_in_a_plain_net_without_norms_that_begins_small_and_not_with_hes_weights() -> None:
    begun_small = of("plain20", lambda net: small(without_norms(net)))
    assert arrives(begun_small) < 1e-12 < 1e-2 < arrives(of("plain20", without_norms))
    assert arrives(of("resnet20", lambda net: small(without_norms(net)))) > 1e6 * arrives(begun_small)
    assert of("plain20", lambda net: small(without_norms(net), 1)) != begun_small, "by the seed"
    assert not any("bn" in name for name in without_norms(build("resnet20")).state_dict())


def test_the_command_writes_numbers_beside_the_picture(cnnbench: Callable[..., Ran]) -> None:
    ran = cnnbench("visualize", "what=signals", "model=plain8", "data.image_size=8", "run.dir=s")
    assert ran.code == 0, ran.err
    found = json.loads(Path("s/signals.json").read_text())
    assert (found["data"], found["seed"], {len(layers) for layers in found["layers"].values()}) == ("digits", 0, {8})
    assert found["command"] == "cnnbench visualize what=signals model=plain8 data.image_size=8 run.dir=s"
    assert found["date"] and "commit" in found
    kinds = ["as it begins", "without BatchNorm", "without BatchNorm, N(0, 0.01^2)"]
    assert list(found["arrives"]) == kinds and found["arrives"][kinds[2]] < found["arrives"][kinds[1]]
    refused = cnnbench("visualize", "what=signals", "run.dir=t")
    assert refused.code == 2 and "name it, as in model=plain56" in refused.err
