"""What holds for every net: published counts, stages, configuration, one training step, saving, export."""

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnbench
from cnnbench import models
from cnnbench.analysis.complexity import count_complexity
from cnnbench.config.sections import Optimizer, conf_dir
from cnnbench.models import MODELS, build, check_image_size, own_nets, size_notes, smallest_image
from cnnbench.models.layers import BOXES, evaluating, output_layer
from cnnbench.utils.errors import UserError
from tests.helpers.model_facts import AUXILIARY, COUNTS, SLOW_KINDS, SLOW_NETS, SMALL, image, make, on_meta, slowly


@pytest.mark.parametrize("spec", slowly(COUNTS, SLOW_NETS))
def test_parameters_and_multiply_adds_are_the_published_ones(spec):
    model = on_meta(spec)
    complexity = count_complexity(model)
    assert (complexity.params, complexity.macs) == COUNTS[spec]
    auxiliary = sum(parameter.numel() for head in model.auxiliary.values() for parameter in head.parameters())
    assert complexity.params + auxiliary == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("spec", AUXILIARY)
def test_auxiliary_heads_are_apart_and_have_their_own_counts(spec):
    model = on_meta(spec)
    params = sum(parameter.numel() for head in model.auxiliary.values() for parameter in head.parameters())
    macs = []
    for training in (True, False):
        with FlopCounterMode(display=False) as counter:
            model.train(training)(image(model, batch=2))
        macs.append(counter.get_total_flops() // 2)
    assert (params, (macs[0] - macs[1]) // 2) == AUXILIARY[spec]
    without = on_meta(f"{spec} aux=false")
    assert not without.auxiliary and count_complexity(without) == count_complexity(model)


def test_every_model_has_its_counts_checked():
    assert set(MODELS) == {spec.split()[0] for spec in COUNTS}


def test_counting_leaves_the_model_alone():
    model = build("resnet8").train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_complexity(model, image_size=64).macs == pytest.approx(4 * count_complexity(model).macs, rel=1e-3)
    assert count_complexity(model, in_channels=3) == count_complexity(model)
    assert model.training and model.layer2.training and not model.layer1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_failing_count_restores_the_modes():
    model = on_meta("alexnet").train()
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.empty(1, 3, 8, 8, device="meta"))
    with pytest.raises(RuntimeError):
        count_complexity(model, image_size=8)
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build("resnet8").state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("name", slowly(MODELS, SLOW_NETS))
def test_stages_hold_every_parameter_once_in_forward_order(name):
    model = on_meta(name)
    stages = model.stages
    first, *_, last = stages
    assert (first, last) == ("stem", "head")
    held = [id(parameter) for parts in stages.values() for part in parts for parameter in part.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    auxiliary = {id(parameter) for head in model.auxiliary.values() for parameter in head.parameters()}
    in_order = [id(parameter) for parameter in model.parameters() if id(parameter) not in auxiliary]
    detects = model.answers == BOXES  # it has the names and the order of torchvision's, which begins with a scale
    assert detects or [parameter for parameter in held if parameter not in auxiliary] == in_order
    classifier = [parameter for part in stages["head"] for parameter in part.parameters()]
    assert auxiliary < {id(parameter) for parameter in classifier}
    learns = next(output_layer(model).parameters(), None) is not None  # LeNet-5's codes for the classes are fixed
    if models.has_classes(name) and not detects and learns:
        assert classifier[-1].shape[0] == model.eval()(image(model)).shape[1]


def test_the_stages_in_turn_are_the_net():
    model = build("resnet8").eval()
    x = image(model)
    *body, (_, (avgpool, fc)) = model.stages.items()
    out = x
    for _, parts in body:
        for part in parts:
            out = part(out)
    assert torch.equal(fc(avgpool(out).flatten(1)), model(x))


@pytest.mark.parametrize(
    ("name", "least"),
    [("alexnet", 63), ("vgg16", 32), ("nin", 39), ("nin_cifar", 4), ("googlenet", 31), ("googlenet_tv", 15),
     ("bn_inception", 7), ("inception_v3", 75), ("resnet20", 1), ("preact_resnet18", 1), ("deepface", 152)],
)  # fmt: skip
def test_smallest_image(name, least):
    model = on_meta(name).train()
    assert smallest_image(model) == least
    assert all(module.training for module in model.modules())
    check_image_size(model, least)
    if least > 1:
        with pytest.raises(UserError, match=f"{name} needs images of at least {least} x {least} pixels, not"):
            check_image_size(model, least - 1)
    outputs = model(torch.empty(2, 3, least, least, device="meta"))
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    assert logits.shape == model.eval()(torch.empty(2, 3, least, least, device="meta")).shape


@pytest.mark.parametrize("name", ["googlenet", "bn_inception", "inception_v3", "nin", "preact_resnet50"])
def test_every_size_from_the_smallest_on_works(name):
    model = on_meta(name)
    for size in range(smallest_image(model), 240, 43):
        check_image_size(model, size)


@pytest.mark.parametrize("spec", AUXILIARY)
def test_auxiliary_heads_take_part_where_their_maps_are_large_enough(spec):
    model = on_meta(spec, num_classes=7).train()
    assert model.aux_weight == (0.4 if spec == "inception_v3" else 0.3)
    outputs = model(torch.empty(2, 3, model.image_size, model.image_size, device="meta"))
    assert type(outputs) is tuple and len(outputs) == 1 + len(model.auxiliary)
    assert all(logits.shape == (2, 7) for logits in outputs)
    assert model.eval()(image(model)).shape == (1, 7)
    least = model.aux_image_size
    assert not size_notes(model, model.image_size)
    if least:
        assert isinstance(model.train()(torch.empty(2, 3, least, least, device="meta")), tuple)
        assert model(torch.empty(2, 3, least - 1, least - 1, device="meta")).shape == (2, 7)
        assert f"below {least} x {least} pixels" in size_notes(model, least - 1)[0]
        model.aux_image_size = 0  # there is no room indeed
        with pytest.raises(RuntimeError):
            model(torch.empty(2, 3, least - 1, least - 1, device="meta"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "alexnt"}, "unknown model 'alexnt'. Did you mean 'alexnet'?\nchoices: airbench, alexnet, "),
        ({"name": "squeezenet1_0"}, "\ntorchvision has it: model=torchvision model.name=squeezenet1_0"),
        (
            {"name": "resnet18", "source": "hub"},
            "unknown model source 'hub'.\nchoices: cnnbench, python, timm, torchvision",
        ),
        ({"name": "alexnet", "lnr": True}, "model alexnet has no argument 'lnr'. Did you mean 'lrn'?\nits arguments: "),
        ({"name": "plain20", "shortcut": "A"}, "no argument 'shortcut'.\nits arguments: num_classes, in_channels"),
        ({"name": "resnet18", "shortcut": "D"}, "model resnet18: shortcut must be A or B or C, not 'D'"),
        ({"name": "alexnet", "lrn": "maybe"}, "lrn must be true or false, not 'maybe'"),
        ({"name": "vgg11", "init": "xavier"}, "init must be he or paper, not 'xavier'"),
        ({"name": "alexnet", "groups": 5}, "model alexnet: in_channels must be divisible by groups"),
        ({"name": "alexnet", "groups": 0}, "groups must be at least 1, not 0"),
        ({"name": "alexnet", "dropout": 1.5}, "dropout probability has to be between 0 and 1"),
        ({"name": "bn_inception", "pool_proj": 100}, "pool_proj must be 96 or 128, not 100"),
        ({"name": "deepface", "image_size": 64}, "model deepface: image_size must be at least 72, not 64"),
        ({"name": "inception_v3", "in_channels": 1, "transform_input": True}, "is for images of 3 channels, not 1"),
        ({"name": "resnet8", "num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"name": "resnet8", "in_channels": "two"}, "in_channels must be a whole number, not 'two'"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError) as error, torch.device("meta"):
        build(**arguments)
    assert message in str(error.value)


def training_loss(model, images, targets, dtype):
    """As a training computes it, auxiliary losses included."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        outputs = model(images)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = nn.functional.cross_entropy(logits.float(), targets)
    for aux in auxiliary:
        loss = loss + model.aux_weight * nn.functional.cross_entropy(aux.float(), targets)
    return loss


def step_lowers_loss(model, images, targets, lr, dtype):
    """One step of SGD along the signs of the gradient, as is Adam's first: each layer moves as far as any other. Along
    the gradient itself only the first ones would: in a fresh net of a hundred layers its norm is 1e4 to 1e8."""
    before = training_loss(model, images, targets, dtype)
    before.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.sign_()
    torch.optim.SGD(model.parameters(), lr=lr).step()
    with torch.no_grad():
        return training_loss(model, images, targets, dtype).item() < 0.99 * before.item()


def make_seeded(spec, channels):
    """A net in training. Whatever it forgot to initialise is NaN, not what happened to lie in memory."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    try:
        return make(spec, num_classes=4, in_channels=channels).train()
    finally:
        torch.use_deterministic_algorithms(False)


def check_one_step(model, channels, size, batch=8):
    """Two of four classes occur. The last layer alone can learn that, even where the layers before it answer every step
    with other features: in the deepest nets rounding to bf16 is enough to change the loss by a tenth."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, targets = torch.randn(batch, channels, size, size), torch.arange(batch) % 2
    skipped = {id(p) for head in model.auxiliary.values() for p in head.parameters() if size < model.aux_image_size}
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for dtype in (torch.float32, torch.bfloat16):
        assert any(restarted_step(model, start, images, targets, lr, dtype) for lr in (1e-4, 1e-3, 1e-2, 1e-5)), dtype
        for name, parameter in model.named_parameters():
            if id(parameter) not in skipped:
                assert parameter.grad is not None and parameter.grad.norm(1) > 0, name  # which NaN is not


def restarted_step(model, start, images, targets, lr, dtype):
    model.load_state_dict(start)
    model.zero_grad()
    return step_lowers_loss(model, images, targets, lr, dtype)


@pytest.mark.parametrize("kind", SMALL)
def test_one_step_lowers_the_loss(kind):
    spec, channels, size = SMALL[kind]
    check_one_step(make_seeded(spec, channels), channels, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - {spec.split()[0] for spec, *_ in SMALL.values()}))
def test_one_step_lowers_the_loss_of_every_other_net_too(name):
    size = {32: 16, 224: 32 if name.startswith("vgg") else 64}[on_meta(name).image_size]
    check_one_step(make_seeded(name, 3), 3, size)


@pytest.mark.parametrize("kind", slowly(SMALL, SLOW_KINDS))
def test_a_saved_net_is_the_same_net(kind, tmp_path):
    spec, channels, size = SMALL[kind]
    torch.manual_seed(0)
    model = make(spec, num_classes=3, in_channels=channels).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with torch.device("meta"):
        again = make(spec, num_classes=3, in_channels=channels).eval()
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True, assign=True)
    x = image(model, 1, channels, size)
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(again(x), logits)
        assert torch.equal(copy.deepcopy(model)(x), logits)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), logits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_compiled_nets_are_the_same_nets(kind):
    spec, channels, size = SMALL[kind]
    torch.manual_seed(0)
    model = make(spec, num_classes=3, in_channels=channels).eval()
    x = image(model, 2, channels, size)
    # Generating code for one Inception net takes minutes: the others of their kind are traced and run without it.
    compiled = torch.compile(model, backend="aot_eager" if kind in ("googlenet_tv", "bn_inception") else "inductor")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_yaml_lists_exactly_the_builders_arguments_with_its_defaults(name, compose):
    """Composed as a user would, so that the recipe in the file is checked against the schema too."""
    model = compose(f"model={name}").model
    parameters = inspect.signature(MODELS[name]).parameters
    assert model.pop("name") == name
    assert model.pop("in_channels") is None
    assert model == {key: p.default for key, p in parameters.items() if key not in ("num_classes", "in_channels")}


def test_yaml_of_own_nets_lists_their_arguments(compose):
    model = compose("model=python").model
    assert model.pop("source") == "python"
    assert {*model, "num_classes"} == {*inspect.signature(own_nets.own_net).parameters}
    assert set(model.values()) == {None}


def test_recipes(compose):
    """A net without normalisation never gets lr 0.1 from its own file; the command line has the last word."""
    for name in MODELS:
        if name.startswith(("alexnet", "vgg", "nin", "deepface")) or name == "googlenet":
            optim = compose(f"model={name}").optim
            assert optim.lr * 128 / optim.lr_batch <= 0.05, name
    assert compose("model=googlenet", "optim=adamw").optim.name is Optimizer.adamw
    assert compose("model=vgg16", "optim.lr=0.5").optim.lr == 0.5


def test_every_model_file_is_a_model_and_cites_its_source():
    files = sorted((conf_dir() / "model").glob("*.yaml"))
    assert {file.stem for file in files} == {*MODELS, "torchvision", "python", "timm"}
    for file in files:
        first, second, third, *_ = file.read_text().splitlines()
        assert first == "# @package _global_"
        assert second.startswith("# ") and third.startswith(("# ", "defaults:"))


def test_create_model_is_there_without_importing_torch():
    code = "import sys, cnnbench; assert 'torch' not in sys.modules; print(cnnbench.create_model('resnet20').fc)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "out_features=1000" in done.stdout
    assert cnnbench.create_model("resnet8", 10, in_channels=1, shortcut="B").conv1.in_channels == 1
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        _ = cnnbench.creat_model


def test_output_layers_give_the_logits() -> None:
    for name, arguments in (("resnet8", {}), ("nin_cifar", {"final_relu": False}), ("vgg11", {}), ("googlenet", {})):
        with torch.device("meta"):
            layer = output_layer(models.build(name, num_classes=7, **arguments))
        assert layer.weight.shape[0] == 7
