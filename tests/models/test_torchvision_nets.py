"""Our nets against torchvision's of the same function, and torchvision's own nets under `source: torchvision`."""

import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from cnnbench.models import build, check_image_size, create_model, size_notes
from cnnbench.models.torchvision_nets import classifiers
from cnnbench.utils.errors import UserError
from tests.helpers.model_facts import TORCHVISION, image, on_meta, slowly

SIZES = {"alexnet_owt": 63, "googlenet_tv": 64, "inception_v3": 299, "vgg11": 32, "vgg11_bn": 32, "resnet18": 64,
         "resnet34": 64, "resnet50": 64}  # fmt: skip
ONE_OF_EACH = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b1", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "squeezenet1_0", "swin_v2_t", "vgg11_bn", "vit_b_32",
)  # fmt: skip
NATIVE = {"inception_v3": 299, "efficientnet_b1": 240, "swin_v2_t": 256, "vit_h_14": 224, "squeezenet1_0": 224}


def theirs(name, **arguments):
    if name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **arguments)


@pytest.mark.parametrize("name", TORCHVISION)
def test_keys_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        expected = theirs(TORCHVISION[name]).state_dict()
    ours = on_meta(name).state_dict()
    assert [(key, tensor.shape) for key, tensor in ours.items()] == [(k, t.shape) for k, t in expected.items()]


@pytest.mark.parametrize("name", SIZES)
def test_logits_and_statistics_are_torchvisions(name):
    """In eval and in training, auxiliary logits too, with dropout switched off."""
    torch.manual_seed(0)
    ours = build(name, num_classes=7)
    with torch.device("meta"):
        reference = theirs(TORCHVISION[name], num_classes=7)
    weights = {key: tensor if "running" not in key else tensor.clone() for key, tensor in ours.state_dict().items()}
    reference.load_state_dict(weights, strict=True, assign=True)
    for module in (*ours.modules(), *reference.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.randn(2, 3, SIZES[name], SIZES[name])
    close = {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        mine, expected = ours.train()(images), reference.train()(images)
        if isinstance(expected, tuple):  # torchvision has the auxiliary logits in reverse
            assert type(mine) is tuple
            expected = (expected[0], *reversed(expected[1:]))
        torch.testing.assert_close(mine, tuple(expected) if isinstance(expected, tuple) else expected, **close)
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images), **close)
    for key, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, **close)


@pytest.mark.parametrize("name", ["googlenet_tv", "inception_v3"])
def test_pretrained_weights_see_the_images_that_they_expect(name):
    torch.manual_seed(0)
    ours = build(name, num_classes=7, aux=False, transform_input=True).eval()
    reference = theirs(TORCHVISION[name], num_classes=7, aux_logits=False, transform_input=True).eval()
    reference.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", slowly(classifiers(), set(classifiers()) - set(ONE_OF_EACH)))
def test_any_classifier_of_torchvision_is_a_net(name):
    with torch.device("meta"):
        model = build(name, source="torchvision", num_classes=7, in_channels=1)
        expected = theirs(name, num_classes=7) if "regnet" not in name else None
    if expected is not None:
        assert list(model.state_dict()) == list(expected.state_dict())
    stages = model.stages
    first, *_, last = stages
    assert (first, last) == ("stem", "head")
    held = [id(parameter) for parts in stages.values() for part in parts for parameter in part.parameters()]
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in model.parameters()}
    assert [parameter for part in stages["head"] for parameter in part.parameters()][-1].shape[0] == 7
    assert model.image_size == NATIVE.get(name, model.image_size)
    assert model.eval()(image(model, 2, 1)).shape == (2, 7)
    outputs = model.train()(image(model, 2, 1))
    assert all(logits.shape == (2, 7) for logits in (outputs if isinstance(outputs, tuple) else (outputs,)))


def test_a_torchvision_net_is_torchvisions_own():
    torch.manual_seed(0)
    reference = theirs("squeezenet1_0", num_classes=7)
    model = create_model("squeezenet1_0", num_classes=7, source="torchvision")
    model.load_state_dict(reference.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference.eval()(images)
        assert torch.equal(model.eval()(images), expected)
        assert torch.equal(copy.deepcopy(model)(images), expected)
    assert isinstance(model, torchvision.models.SqueezeNet) and model.name == "squeezenet1_0"


def test_our_names_win_unless_the_source_is_torchvision():
    ours, other = on_meta("googlenet"), on_meta("googlenet source=torchvision")
    assert isinstance(ours.inception3a.branch3[1].conv, nn.Conv2d) and ours.conv1.conv.bias is not None
    assert isinstance(other, torchvision.models.GoogLeNet)
    assert (other.aux_weight, on_meta("inception_v3 source=torchvision").aux_weight) == (0.3, 0.4)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_auxiliary_heads_keep_the_contract(name):
    model = on_meta(name, source="torchvision", num_classes=7).train()
    outputs = model(torch.empty(2, 3, 299, 299, device="meta"))
    assert type(outputs) is tuple and len(outputs) == 1 + len(model.auxiliary)
    if name == "inception_v3":
        assert model(torch.empty(2, 3, 128, 128, device="meta")).shape == (2, 7)
        assert "no auxiliary loss (AuxLogits) below 299 x 299 pixels" in size_notes(model, 128)[0]


def test_a_net_of_one_size_says_so():
    with pytest.raises(UserError, match="vit_b_32 needs images of 224 x 224 pixels, not 256 x 256"):
        check_image_size(on_meta("vit_b_32 source=torchvision"), 256)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "model=torchvision needs a name, as in model.name=squeezenet1_0\nchoices: alexnet, "),
        ("squeezenet", "unknown torchvision model 'squeezenet'. Did you mean 'squeezenet1_1'?\nchoices: "),
        ("raft_small", "model.name=raft_small: torchvision has it, but"),
        ("raft", "unknown torchvision model 'raft'."),
    ],
)
def test_unknown_names_are_explained(name, message):
    with pytest.raises(UserError) as error:
        build(name, source="torchvision")
    assert message in str(error.value)


def test_its_arguments_are_checked_too():
    with pytest.raises(UserError, match="model squeezenet1_0 has no argument 'dropout'"):
        build("squeezenet1_0", source="torchvision", dropout=0.1)


def test_torchvision_is_imported_without_the_compiler_and_works_as_ever() -> None:
    program = """
import sys, torch
from cnnbench.utils.fast_start import import_torchvision
import_torchvision()
import torchvision
assert not {"torch._dynamo", "sympy", "torch._dynamo.utils"} & set(sys.modules)
box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [box], 2).tolist())
from torch._dynamo.utils import is_compile_supported
print(is_compile_supported("cpu"), torchvision.ops.roi_align.__module__)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[[[[1.0, 1.0], [1.0, 1.0]]]]\nTrue torchvision.ops.roi_align\n"
