"""Residual nets, plain nets and pre-activation nets: blocks, shortcuts, variants."""

import pytest
import torch
from torch import nn

from cnnbench.analysis.complexity import count_complexity
from cnnbench.models import build
from cnnbench.models.preact_resnet import Unit
from cnnbench.models.resnet import BasicBlock, Bottleneck, PadShortcut
from tests.helpers.model_facts import image, on_meta


def test_v1_and_v15_share_keys_but_not_their_function():
    torch.manual_seed(0)
    new, old = build("resnet50", num_classes=5).eval(), build("resnet50_v1", num_classes=5).eval()
    old.load_state_dict(new.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(new(images), old(images), rtol=1e-2)
    assert old.layer2[0].conv1.stride == (2, 2) and old.layer2[0].conv2.stride == (1, 1)
    assert new.layer2[0].conv1.stride == (1, 1) and new.layer2[0].conv2.stride == (2, 2)


def test_a_block_with_zero_weights_is_the_identity_on_a_relu_output():
    activations = torch.randn(2, 64, 8, 8).relu()
    for block in (BasicBlock(64, 64, 1, "A", "end"), Bottleneck(64, 16, 1, "B", "end")):
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(block(activations), activations)
    plain = BasicBlock(64, 64, 1, None, "end")
    for parameter in plain.parameters():
        nn.init.zeros_(parameter)
    assert not plain(activations).any()


def test_zero_init_residual_starts_every_block_as_its_shortcut():
    model = build("resnet20", zero_init_residual=True).eval()
    activations = torch.randn(2, 16, 32, 32).relu()
    assert torch.equal(model.layer1(activations), activations)
    assert not any(block.bn3.weight.any() for block in build("resnet50", zero_init_residual=True).layer1)
    assert all(block.bn2.weight.all() for block in build("resnet20").layer1)


def test_option_a_pads_where_it_is_told():
    images = torch.randn(2, 4, 6, 6)
    zeros = torch.zeros(2, 4, 3, 3)
    small = images[:, :, ::2, ::2]
    assert torch.equal(PadShortcut(4, 2, "end")(images), torch.cat([small, zeros], dim=1))
    assert torch.equal(PadShortcut(4, 2, "both")(images), torch.cat([zeros[:, :2], small, zeros[:, :2]], dim=1))
    end, both = build("resnet8").eval(), build("resnet8", shortcut_pad="both").eval()
    both.load_state_dict(end.state_dict(), strict=True)
    image = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(end(image), both(image))


def test_resnet_starts_as_the_paper_says():
    torch.manual_seed(0)
    model = build("resnet34", shortcut="C")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all() and layer.bias.eq(0).all()
    assert model.fc.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.01)
    assert not model.fc.bias.any()


@pytest.mark.parametrize(
    ("plain", "residual"), [("plain18", "resnet18"), ("plain34", "resnet34"), ("plain56", "resnet56")]
)
def test_plain_and_residual_nets_cost_the_same(plain, residual):
    assert count_complexity(on_meta(plain)) == count_complexity(on_meta(f"{residual} shortcut=A"))


def test_a_pre_activation_unit_adds_to_its_input():
    """With zero weights it is the identity on any input, not only on what a ReLU let through."""
    unit = Unit([(8, 4, 1, 1), (4, 4, 3, 1), (4, 8, 1, 1)], nn.Identity(), shared=False)
    for parameter in unit.residual.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(unit(x), x)
    shared = Unit([(8, 8, 3, 1), (8, 8, 3, 1)], nn.Identity(), shared=True).eval()
    for parameter in shared.residual.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(shared(x), x.relu(), rtol=1e-4, atol=1e-4)


def test_where_pre_activation_nets_activate():
    model = build("preact_resnet20").eval()
    assert [block.shared for block in model.layer1] == [True, False, False]
    assert [block.shared for block in model.layer2] == [True, False, False]
    bottleneck = on_meta("preact_resnet164")
    assert [block.shared for block in bottleneck.layer1] == [True] + [False] * 17
    imagenet, own = on_meta("preact_resnet18"), on_meta("preact_resnet18 first_unit=own")
    assert isinstance(imagenet.layer1[0].activate, nn.Identity) and not imagenet.layer1[0].shared
    assert isinstance(own.layer1[0].activate[0], nn.BatchNorm2d)
    with torch.no_grad():
        assert model(image(model, 2)).shape == (2, 10)


def test_stride_of_pre_activation_bottlenecks():
    def strides(spec):
        unit = on_meta(spec).layer2[0]
        return [layer.stride[0] for layer in unit.residual if isinstance(layer, nn.Conv2d)]

    assert strides("preact_resnet50") == [2, 1, 1]
    assert strides("preact_resnet50 stride_in=3x3") == [1, 2, 1]
