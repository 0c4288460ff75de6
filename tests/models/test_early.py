"""AlexNet, VGG, Network in Network and DeepFace against their papers."""

import numpy as np
import pytest
import torch
from torch import nn

from cnnbench.analysis.complexity import count_complexity, layer_complexity
from cnnbench.models import build
from cnnbench.models.alexnet import response_norm
from cnnbench.models.layers import LocallyConnected2d
from tests.helpers.model_facts import make, on_meta

# AlexNet, layer by layer: neurons, weights, biases, multiply-adds.
ALEXNET = {
    "conv1": (290_400, 34_848, 96, 105_415_200),
    "conv2": (186_624, 307_200, 256, 223_948_800),
    "conv3": (64_896, 884_736, 384, 149_520_384),
    "conv4": (64_896, 663_552, 384, 112_140_288),
    "conv5": (43_264, 442_368, 256, 74_760_192),
    "fc6": (4_096, 37_748_736, 4_096, 37_748_736),
    "fc7": (4_096, 16_777_216, 4_096, 16_777_216),
    "fc8": (1_000, 4_096_000, 1_000, 4_096_000),
}
# Weights and multiply-adds of Network in Network's layers, in order.
NIN_CIFAR = [14_400, 30_720, 15_360, 460_800, 36_864, 36_864, 331_776, 36_864, 1_920]
NIN_MAPS = [(96, 54, 54)] * 3 + [(256, 27, 27)] * 3 + [(384, 13, 13)] * 3 + [(1024, 6, 6)] * 2 + [(1000, 6, 6)]
# DeepFace, layer by layer: neurons, weights, biases, multiply-adds.
DEEPFACE = {
    "C1": (645_248, 11_616, 32, 234_225_024),
    "C3": (63_504, 41_472, 16, 164_602_368),
    "L4": (48_400, 62_726_400, 48_400, 62_726_400),
    "L5": (10_000, 7_840_000, 10_000, 7_840_000),
    "L6": (7_056, 2_822_400, 7_056, 2_822_400),
    "F7": (4_096, 28_901_376, 4_096, 28_901_376),
    "F8": (4_030, 16_506_880, 4_030, 16_506_880),
}


def test_alexnet_layer_by_layer():
    rows = {row.name: row for row in layer_complexity(on_meta("alexnet"))}
    for name, numbers in ALEXNET.items():
        row = rows[name]
        assert (row.neurons, row.weights, row.biases, row.macs) == numbers
    assert sum(rows[name].neurons for name in ALEXNET) == 659_272
    assert rows["pool5"].output_shape == rows["fit5"].output_shape == (256, 6, 6)  # so fit5 is the identity
    assert sum(row.macs for row in rows.values()) == 724_406_816


def test_response_norm_is_the_printed_formula():
    a = np.random.default_rng(0).normal(scale=30.0, size=(2, 11, 4, 3))
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    expected = np.empty_like(a)
    for i in range(a.shape[1]):
        window = a[:, max(0, i - n // 2) : min(a.shape[1] - 1, i + n // 2) + 1]
        expected[:, i] = a[:, i] / (k + alpha * (window**2).sum(axis=1)) ** beta
    np.testing.assert_allclose(response_norm()(torch.from_numpy(a)).numpy(), expected, rtol=1e-12)


def test_alexnet_switches():
    full = build("alexnet", num_classes=2)
    assert (full.norm1.k, full.norm1.size, full.norm1.beta) == (2, 5, 0.75)
    assert [full.conv1.groups, full.conv2.groups, full.conv3.groups, full.conv4.groups, full.conv5.groups] == [
        1, 2, 1, 2, 2]  # fmt: skip
    assert full.pool1.kernel_size == 3 and full.drop6.p == full.drop7.p == 0.5
    bare = on_meta("alexnet lrn=false overlap_pool=false groups=1 dropout=0")
    assert isinstance(bare.norm1, nn.Identity) and isinstance(bare.norm2, nn.Identity)
    assert bare.pool1.kernel_size == bare.pool5.kernel_size == 2 and bare.conv2.groups == 1 and bare.drop6.p == 0


def test_alexnet_starts_as_the_paper_says():
    torch.manual_seed(0)
    model = build("alexnet", init="paper")
    for name in ALEXNET:
        layer = getattr(model, name)
        assert layer.weight.mean().item() == pytest.approx(0, abs=4e-4)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        bias = 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))


def test_why_alexnet_does_not_start_as_the_paper_says():
    """With the paper's weights and biases the logits hardly depend on the image; with He's they do."""
    images = torch.randn(16, 1, 8, 8)
    images = nn.functional.interpolate(images, size=64, mode="bilinear")

    def spread(init):
        torch.manual_seed(0)
        model = build("alexnet", num_classes=10, in_channels=1, init=init).eval()
        with torch.no_grad():
            return model(images).std(dim=0).mean().item()

    assert spread("paper") < 1e-3 < 0.01 < spread("he")


@pytest.mark.parametrize(
    ("name", "init", "std", "bias"),
    [("vgg11", "paper", 0.1, 0.0), ("nin", "paper", 0.05, 0.0), ("deepface image_size=72", "paper", 0.01, 0.5)],
)
def test_initialisation_of_the_paper(name, init, std, bias):
    torch.manual_seed(0)
    model = make(f"{name} init={init}", num_classes=10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | LocallyConnected2d):
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
            assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))


@pytest.mark.parametrize("name", ["nin_cifar", "deepface image_size=72"])
def test_he_initialisation(name):
    torch.manual_seed(0)
    model = make(name)
    *_, last = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear | LocallyConnected2d)]
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | LocallyConnected2d) and layer is not last:
            fan_in = layer.fan_in if isinstance(layer, LocallyConnected2d) else layer.weight[0].numel()
            std = 0.01 if isinstance(layer, nn.Linear) else (2 / fan_in) ** 0.5
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
            assert not layer.bias.any()


def test_the_last_relu_of_network_in_network_starts_alive():
    torch.manual_seed(0)
    model = build("nin_cifar").eval()
    assert model.head[0].weight.std().item() == pytest.approx(0.05, rel=0.1) and model.head[0].bias.eq(10).all()
    assert model.mlpconv2[0].weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6
    with torch.no_grad():
        assert (model(torch.randn(4, 3, 16, 16)) > 0).all()


def kinds(model):
    letters = {"Conv2d": "c", "ReLU": "r", "MaxPool2d": "M", "LocalResponseNorm": "n", "BatchNorm2d": "b"}
    return "".join(letters[type(layer).__name__] for layer in model.features)


def test_vgg_columns():
    assert kinds(on_meta("vgg11_lrn")) == "crnMcrMcrcrMcrcrMcrcrM"
    assert kinds(on_meta("vgg13_bn")) == "cbrcbrM" * 5
    kernels = [layer.kernel_size[0] for layer in on_meta("vgg16_c").features if isinstance(layer, nn.Conv2d)]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    assert [len(on_meta("vgg16").stages[stage]) for stage in ("stem", "conv2", "conv3", "fc6", "head")] == [
        5,
        5,
        7,
        4,
        1,
    ]


def test_network_in_network_layer_by_layer():
    rows = [row for row in layer_complexity(on_meta("nin_cifar")) if row.kind == "Conv2d"]
    assert [row.weights for row in rows] == NIN_CIFAR
    rows = [row for row in layer_complexity(on_meta("nin")) if row.kind == "Conv2d"]
    assert [row.output_shape for row in rows] == NIN_MAPS
    assert count_complexity(on_meta("nin"), image_size=227).macs == 1_105_996_320
    assert [layer.p for layer in on_meta("nin_cifar").modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert [layer.p for layer in on_meta("nin dropout=0.3").modules() if isinstance(layer, nn.Dropout)] == [0.3]


def test_deepface_layer_by_layer():
    rows = {row.name: row for row in layer_complexity(on_meta("deepface"))}
    assert {name: (r.neurons, r.weights, r.biases, r.macs) for name, r in rows.items() if r.weights} == DEEPFACE


def test_a_locally_connected_layer_with_equal_filters_is_a_convolution():
    torch.manual_seed(0)
    local, conv = LocallyConnected2d(3, 4, size=11, kernel=5, stride=2), nn.Conv2d(3, 4, 5, stride=2)
    with torch.no_grad():
        local.weight.copy_(conv.weight.flatten(1).t().expand_as(local.weight))
        local.bias.copy_(conv.bias.view(-1, 1, 1).expand_as(local.bias))
        images = torch.randn(2, 3, 11, 11)
        torch.testing.assert_close(local(images), conv(images))
        local.weight[0] = 0.0  # the filters of the first place, and of no other
        local.bias[:, 0, 0] = 0.0
        out = local(images)
        assert not out[:, :, 0, 0].any()
        torch.testing.assert_close(out[:, :, 1:], conv(images)[:, :, 1:])
    with pytest.raises(ValueError, match="need maps of 11 x 11"):
        local(torch.randn(1, 3, 12, 12))
