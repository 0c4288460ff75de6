"""The nets against what is true of them: their papers' numbers, torchvision's functions and printed formulas."""

import inspect

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from cnnbench.complexity import count, layers
from cnnbench.config import conf_dir
from cnnbench.errors import UserError
from cnnbench.models import MODELS, build, check_image_size, smallest_image
from cnnbench.models.alexnet import response_norm
from cnnbench.models.layers import evaluating
from cnnbench.models.resnet import BasicBlock, Bottleneck, PadShortcut

# Parameters and multiply-adds at the native size, for the paper's number of classes.
COUNTS = {
    "alexnet": (60_965_224, 724_406_816),
    "alexnet groups=1": (62_378_344, 1_135_256_096),
    "alexnet lrn=false overlap_pool=false dropout=0": (60_965_224, 724_406_816),
    "plain18": (11_515_688, 1_794_805_760),
    "resnet18 shortcut=A": (11_515_688, 1_794_805_760),
    "resnet18": (11_689_512, 1_814_073_344),
    "plain34": (21_623_848, 3_644_493_824),
    "resnet34 shortcut=A": (21_623_848, 3_644_493_824),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet34 shortcut=C": (22_716_840, 3_830_747_136),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet50_v1": (25_557_032, 3_857_973_248),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet101_v1": (44_549_160, 7_570_194_432),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet152_v1": (60_192_808, 11_282_415_616),
    "resnet20": (269_722, 40_551_040),
    "resnet20 shortcut=B": (272_474, 40_813_184),
    "resnet32": (464_154, 68_862_592),
    "resnet32 shortcut=B": (466_906, 69_124_736),
    "resnet44": (658_586, 97_174_144),
    "resnet44 shortcut=B": (661_338, 97_436_288),
    "resnet56": (853_018, 125_485_696),
    "resnet56 shortcut=B": (855_770, 125_747_840),
    "resnet110": (1_727_962, 252_887_680),
    "resnet110 shortcut=B": (1_730_714, 253_149_824),
    "resnet1202": (19_421_274, 2_829_238_912),
    "plain20": (269_722, 40_551_040),
    "plain32": (464_154, 68_862_592),
    "plain44": (658_586, 97_174_144),
    "plain56": (853_018, 125_485_696),
    "plain110": (1_727_962, 252_887_680),
    # Not in a paper: 6n + 2 layers as the rest of the family, so 97,216 parameters less for each n.
    "resnet14": (172_506, 26_395_264),
    "resnet8": (75_290, 12_239_488),
}
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


def make(spec: str, **arguments):
    """The net of a line such as "resnet18 shortcut=A"."""
    name, *pairs = spec.split()
    return build(name, **OmegaConf.to_container(OmegaConf.from_dotlist(pairs)), **arguments)


def on_meta(spec: str):
    with torch.device("meta"):
        return make(spec)


@pytest.mark.parametrize("spec", COUNTS)
def test_parameters_and_multiply_adds_are_the_published_ones(spec):
    model = on_meta(spec)
    complexity = count(model)
    assert (complexity.params, complexity.macs) == COUNTS[spec]
    assert complexity.params == sum(parameter.numel() for parameter in model.parameters())


def test_every_model_has_its_counts_checked():
    assert set(MODELS) == {spec.split()[0] for spec in COUNTS}


def test_alexnet_layer_by_layer():
    rows = {row.name: row for row in layers(on_meta("alexnet"))}
    for name, numbers in ALEXNET.items():
        row = rows[name]
        assert (row.neurons, row.weights, row.biases, row.macs) == numbers
    assert sum(rows[name].neurons for name in ALEXNET) == 659_272
    assert rows["pool5"].output_shape == rows["fit5"].output_shape == (256, 6, 6)  # so fit5 is the identity
    assert sum(row.macs for row in rows.values()) == 724_406_816


def test_counting_leaves_the_model_alone():
    model = build("resnet8").train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count(model, image_size=64).macs == pytest.approx(4 * count(model).macs, rel=1e-3)
    assert count(model, in_channels=3) == count(model)
    assert model.training and model.layer2.training and not model.layer1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_failing_count_restores_the_modes():
    model = on_meta("alexnet").train()
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.empty(1, 3, 8, 8, device="meta"))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_keys_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    ours = on_meta(name).state_dict()
    assert [(key, tensor.shape) for key, tensor in ours.items()] == [(k, tensor.shape) for k, tensor in theirs.items()]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_logits_and_statistics_are_torchvisions(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7)
    ours = build(name, num_classes=7)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.train()(images), theirs.train()(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)
    for key, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=1e-5, atol=1e-5)


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
    model = build("alexnet")
    for name in ALEXNET:
        layer = getattr(model, name)
        assert layer.weight.mean().item() == pytest.approx(0, abs=4e-4)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        bias = 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))


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


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build("resnet8").state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", MODELS)
def test_stages_hold_every_parameter_once_in_forward_order(name):
    model = on_meta(name)
    stages = model.stages
    first, *_, last = stages
    assert (first, last) == ("stem", "head")
    held = [parameter for parts in stages.values() for part in parts for parameter in part.parameters()]
    assert [id(parameter) for parameter in held] == [id(parameter) for parameter in model.parameters()]
    assert stages["head"][-1].weight.shape[0] == model(image(model)).shape[1]


def image(model, batch=1, channels=3):
    like = next(model.parameters())
    return torch.randn(batch, channels, model.image_size, model.image_size, device=like.device)


def test_the_stages_in_turn_are_the_net():
    model = build("resnet8").eval()
    x = image(model)
    *body, (_, (avgpool, fc)) = model.stages.items()
    out = x
    for _, parts in body:
        for part in parts:
            out = part(out)
    assert torch.equal(fc(avgpool(out).flatten(1)), model(x))


def test_smallest_image():
    alexnet = on_meta("alexnet").train()
    assert smallest_image(alexnet) == 63
    assert alexnet.training
    check_image_size(alexnet, 63)
    check_image_size(alexnet, 227)
    with pytest.raises(UserError, match="alexnet needs images of at least 63 x 63 pixels, not 16 x 16"):
        check_image_size(alexnet, 16)
    assert alexnet(torch.empty(2, 3, 63, 63, device="meta")).shape == (2, 1000)
    with pytest.raises(RuntimeError):
        alexnet(torch.empty(2, 3, 62, 62, device="meta"))
    assert smallest_image(on_meta("resnet20")) == 1
    check_image_size(build("resnet8", in_channels=1), 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "alexnt"}, "unknown model 'alexnt'. Did you mean 'alexnet'?\nchoices: alexnet, "),
        ({"name": "alexnet", "lnr": True}, "model alexnet has no argument 'lnr'. Did you mean 'lrn'?\nits own: "),
        ({"name": "plain20", "shortcut": "A"}, "no argument 'shortcut'.\nits own: num_classes, in_channels"),
        ({"name": "resnet18", "shortcut": "D"}, "model resnet18: shortcut must be A or B or C, not 'D'"),
        ({"name": "alexnet", "lrn": "maybe"}, "lrn must be true or false, not 'maybe'"),
        ({"name": "alexnet", "groups": 5}, "model alexnet: in_channels must be divisible by groups"),
        ({"name": "alexnet", "groups": 0}, "groups must be at least 1, not 0"),
        ({"name": "alexnet", "dropout": 1.5}, "dropout probability has to be between 0 and 1"),
        ({"name": "resnet8", "num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"name": "resnet8", "in_channels": None}, "in_channels must be a whole number, not None"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError) as error, torch.device("meta"):
        build(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "in_channels", "size", "lr"),  # small maps and batches make steep gradients, hence the small rates
    [
        ("alexnet dropout=0.0", 1, 63, 1e-4),
        ("resnet18", 1, 32, 1e-2),
        ("plain18", 3, 32, 1e-2),
        ("resnet50_v1", 3, 64, 1e-4),
        ("resnet20", 1, 32, 1e-2),
        ("plain20", 3, 32, 1e-2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_one_step_lowers_the_loss(spec, in_channels, size, lr, dtype):
    torch.manual_seed(0)
    model = make(spec, num_classes=4, in_channels=in_channels)
    images, targets = torch.randn(8, in_channels, size, size), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images).float(), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_yaml_lists_exactly_the_builders_arguments_with_its_defaults(name, compose):
    """Composed as a user would, so that the recipe in the file is checked against the schema too."""
    model = compose(f"model={name}").model
    parameters = inspect.signature(MODELS[name]).parameters
    assert model.pop("name") == name
    assert model.pop("in_channels") is None
    assert model == {key: p.default for key, p in parameters.items() if key not in ("num_classes", "in_channels")}


def test_every_model_file_is_a_model_and_cites_its_source():
    files = sorted((conf_dir() / "model").glob("*.yaml"))
    assert {file.stem for file in files} == set(MODELS)
    for file in files:
        first, second, *_ = file.read_text().splitlines()
        assert first == "# @package _global_"
        assert second.startswith("# ")
