"""GoogLeNet, BN-Inception and Inception-v3 against their papers."""

from functools import partial

import pytest
import torch
from torch import nn

from cnnbench.analysis.complexity import layer_complexity
from cnnbench.models import build
from cnnbench.models.googlenet import MODULES, from_imagenet_statistics, out_channels
from tests.helpers.model_facts import on_meta

# Table 1 of the paper: depth of each module's output; its weights and millions of multiply-adds by its own filters.
GOOGLENET = {
    "3a": (256, 163_328, 128.05),
    "3b": (480, 388_096, 304.27),
    "4a": (512, 375_552, 73.61),
    "4b": (512, 448_512, 87.91),
    "4c": (512, 509_440, 99.85),
    "4d": (528, 604_672, 118.52),
    "4e": (832, 867_328, 170.00),
    "5a": (832, 1_042_432, 51.08),
    "5b": (1024, 1_442_816, 70.70),
}
# Figure 5 of the BN paper: what comes out of each module.
BN_INCEPTION = {
    "3a": (256, 28), "3b": (320, 28), "3c": (576, 14), "4a": (576, 14), "4b": (576, 14), "4c": (576, 14),
    "4d": (576, 14), "4e": (1024, 7), "5a": (1024, 7), "5b": (1024, 7),
}  # fmt: skip
INCEPTION_V3 = {
    "5b": (256, 35), "5c": (288, 35), "5d": (288, 35), "6a": (768, 17), "6b": (768, 17), "6c": (768, 17),
    "6d": (768, 17), "6e": (768, 17), "7a": (1280, 8), "7b": (2048, 8), "7c": (2048, 8),
}  # fmt: skip


def note(seen, name, module, inputs, output):
    seen[name] = tuple(output.shape[1:3])


def outputs(model, prefix):
    """Channels and side of what each module of the net gives, by its name without the prefix."""
    seen = {}
    for name, module in model.named_children():
        if name.startswith(prefix):
            module.register_forward_hook(partial(note, seen, name.removeprefix(prefix)))
    model.eval()(torch.empty(1, 3, model.image_size, model.image_size, device="meta"))
    return seen


def test_googlenet_module_by_module():
    rows = layer_complexity(on_meta("googlenet"))
    for name, (depth, weights, millions) in GOOGLENET.items():
        own = [row for row in rows if row.name.startswith(f"inception{name}.")]
        assert (out_channels(name), sum(row.weights for row in own)) == (depth, weights)
        assert sum(row.macs for row in own) / 1e6 == pytest.approx(millions, abs=0.006)
    assert outputs(on_meta("googlenet"), "inception")["5b"] == (1024, 7)


def test_googlenet_without_its_bottlenecks_costs_what_the_lecture_says():
    """The 5x5 of 3a: 120 M multiply-adds from 192 maps directly, 12.4 M through 16 maps, whatever the other filters."""
    costs = {}
    for modules in ("inception", "direct"):
        rows = layer_complexity(on_meta("googlenet", modules=modules))
        costs[modules] = sum(row.macs for row in rows if row.name.startswith("inception3a.branch3."))
        assert sum(row.macs for row in rows if row.name.startswith("inception3a.branch1.")) == 28 * 28 * 192 * 64
    assert costs == {"inception": 12_443_648, "direct": 120_422_400}
    assert outputs(on_meta("googlenet", modules="direct"), "inception") == outputs(on_meta("googlenet"), "inception")


def test_googlenet_of_one_filter_size_costs_the_same():
    """Module by module within the rounding of one filter, and as many maps come out of each."""
    several, one = (on_meta("googlenet", modules=modules) for modules in ("inception", "one_size"))
    assert outputs(one, "inception") == outputs(several, "inception")
    for name, (depth, weights, _) in GOOGLENET.items():
        own = [row for row in layer_complexity(one) if row.name.startswith(f"inception{name}.") and row.weights]
        assert len(own) == 2 and own[-1].output_shape[0] == depth
        one_filter = own[0].weights // own[0].output_shape[0] + 9 * depth
        assert abs(sum(row.weights for row in own) - weights) <= one_filter / 2


def test_googlenet_is_the_papers_and_googlenet_tv_is_torchvisions():
    paper, theirs, bn = on_meta("googlenet"), on_meta("googlenet_tv"), on_meta("googlenet bn=true")
    assert paper.inception3a.branch3[1].conv.kernel_size == bn.inception3a.branch3[1].conv.kernel_size == (5, 5)
    assert theirs.inception3a.branch3[1].conv.kernel_size == (3, 3)
    assert isinstance(paper.norm1, nn.LocalResponseNorm) and isinstance(paper.norm2, nn.LocalResponseNorm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in paper.modules())
    assert isinstance(bn.norm1, nn.Identity) and isinstance(bn.conv1.bn, nn.BatchNorm2d)
    assert (paper.dropout.p, paper.aux1.dropout.p, theirs.dropout.p) == (0.4, 0.7, 0.2)
    assert paper.aux1.pool.kernel_size == 5 and isinstance(theirs.aux1.pool, nn.Identity)
    assert [paper.aux1.conv.conv.in_channels, paper.aux2.conv.conv.in_channels] == [512, 528]


def test_the_1x1_before_a_5x5_saves_nine_tenths_of_its_work():
    five = MODULES["3a"][4]
    assert 28 * 28 * 192 * five * 25 == 120_422_400
    rows = {row.name: row.macs for row in layer_complexity(on_meta("googlenet"))}
    assert rows["inception3a.branch3.0.conv"] == 2_408_448
    assert rows["inception3a.branch3.1.conv"] == 10_035_200


def test_googlenets_signal_keeps_its_size():
    """Without BatchNorm nothing else can: each module's output is about as large as its input."""
    torch.manual_seed(0)
    model = build("googlenet", num_classes=10).eval()
    sizes = []
    for name, module in model.named_children():
        if name.startswith("inception"):
            module.register_forward_hook(lambda m, i, out: sizes.append(out.square().mean().sqrt().item()))
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert len(sizes) == 9 and all(0.2 < size < 5 for size in sizes)


def test_bn_inception_module_by_module():
    assert outputs(on_meta("bn_inception"), "inception") == BN_INCEPTION
    literal = outputs(on_meta("bn_inception pool_proj=128"), "inception")
    assert literal["4c"] == literal["4d"] == (608, 14) and literal["4e"] == (1056, 7)


def test_inception_v3_module_by_module():
    assert outputs(on_meta("inception_v3"), "Mixed_") == INCEPTION_V3


def test_transform_input_undoes_one_normalisation_and_does_another():
    pixels = torch.rand(2, 3, 4, 4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(from_imagenet_statistics((pixels - mean) / std), (pixels - 0.5) / 0.5)
