"""Weights from elsewhere into a net: where they are found, what is refused, what freezing freezes."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnbench import models
from cnnbench.config.sections import OptimConfig, Optimizer
from cnnbench.models.layers import Net, output_layer
from cnnbench.runtime.device import create_runtime
from cnnbench.tasks.classification.metrics import Sums
from cnnbench.tasks.classification.task import Classification
from cnnbench.training import freezing, optim
from cnnbench.training.loop import Trainer, train_step
from cnnbench.utils.errors import UserError
from cnnbench.weights import checkpoint, merge, sources
from cnnbench.weights.sources import Weights

INFERENCE = checkpoint.Inference(model={"name": "resnet8", "shortcut": "A"}, classes=list("abc"), mean=[0.5] * 3,
                                 std=[0.25] * 3, image_size=32, in_channels=3)  # fmt: skip


def net(classes: int = 3, name: str = "resnet8", **arguments: Any) -> Net:
    return models.build(name, num_classes=classes, **arguments)


def given(state: dict[str, torch.Tensor], **known: Any) -> Weights:
    return Weights(source="FILE", state=state, inference=known.get("inference"))


# Where weights come from


def test_a_bare_state_dict_a_wrapped_one_and_safetensors_hold_the_same(tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save(state, tmp_path / "bare.pth")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": wrapped, "best_prec1": 91.7}, tmp_path / "wrapped.th")
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "compiled.pt")
    sources.save_safetensors(tmp_path / "ours.safetensors", state, INFERENCE, seed=3)
    for name in ("bare.pth", "wrapped.th", "compiled.pt", "ours.safetensors"):
        found = sources.load(str(tmp_path / name))
        assert found.state.keys() == state.keys(), name
        assert all(torch.equal(found.state[key], state[key]) for key in state)
        assert (found.inference == INFERENCE) is (name == "ours.safetensors")


def test_safetensors_of_ours_are_all_that_it_takes_to_use_the_net(tmp_path: Path) -> None:
    ours = net()
    sources.save_safetensors(tmp_path / "net.safetensors", ours.state_dict(), INFERENCE)
    again = sources.build(sources.load(str(tmp_path / "net.safetensors")))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), ours.eval()(images))


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evidence"),))


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"conv": Evil()}, "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(UserError, match="damaged"):
            sources.load(name)
    assert not Path("evidence").exists()


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "net.pt")
    sources.save_safetensors(tmp_path / "net.safetensors", net().state_dict(), INFERENCE)
    for name in ("net.pt", "net.safetensors"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match="damaged"):
            sources.load(str(file))


@pytest.mark.parametrize(("name", "instead"), [("alexnet", "alexnet_owt"), ("googlenet", "googlenet_tv"),
                                               ("resnet50_v1", "resnet50"), ("plain34", "resnet34"),
                                               ("vgg16_c", "vgg16")])  # fmt: skip
def test_a_variant_without_published_weights_names_the_one_that_has_them(name: str, instead: str) -> None:
    with pytest.raises(UserError, match=f"model={instead}"):
        sources.load("imagenet", {"name": name})


def test_all_that_have_published_weights_are_nets_of_torchvision() -> None:
    from torchvision.models import get_model_weights

    for ours, theirs in sources.TWINS.items():
        assert ours in models.MODELS
        assert len(get_model_weights(theirs)) > 0
    assert not sources.TWINS.keys() & sources.NEAREST.keys()
    assert set(sources.NEAREST.values()) <= sources.TWINS.keys()


def test_published_weights_come_with_their_own_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in torch's cache stands for the published one: it is not fetched again, and read as data only."""
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    ours = models.build("resnet18")
    torch.save(ours.state_dict(), folder / Path(ResNet18_Weights.IMAGENET1K_V1.url).name)
    found = sources.load("imagenet", {"name": "resnet18", "shortcut": "B"})
    assert found.inference is not None
    assert found.inference.classes[:2] == ["tench", "goldfish"]
    assert found.inference.mean == [0.485, 0.456, 0.406]
    assert (found.inference.image_size, round(224 / found.inference.crop_ratio)) == (224, 256)
    assert torch.equal(sources.build(found).state_dict()["fc.weight"], ours.state_dict()["fc.weight"])
    with pytest.raises(UserError, match="unknown version of the weights of resnet18 'V7'"):
        sources.load("imagenet:V7", {"name": "resnet18"})


def test_without_a_network_the_user_is_told_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError) as error:
        sources.load("imagenet", {"name": "resnet34"})
    text = str(error.value)
    assert "resnet34-" in text
    assert str(tmp_path / "hub" / "checkpoints") in text
    assert "TORCH_HOME" in text
    assert "weights=FILE" in text


def test_a_url_and_an_unknown_zoo_net_are_refused() -> None:
    with pytest.raises(UserError, match="fetch the file yourself"):
        sources.load("https://example.org/net.pt")
    with pytest.raises(UserError, match="unknown weights in the zoo 'resnet21'"):
        sources.load("zoo:resnet21")


# The merge


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
    with pytest.raises(UserError, match=r"(?s)fc.weight \(3, 64\) is missing in the file.*weights_rename"):
        merge.merge(net(), given(state))
    merge.merge(target, given(state), {"linear": "fc"})
    assert torch.equal(target.fc.weight, source.fc.weight)
    with pytest.raises(UserError, match="no name in FILE is or begins with 'liner'"):
        merge.merge(net(), given(state), {"liner": "fc"})


def test_what_is_skipped_keeps_its_initialisation() -> None:
    source, target = net(), net()
    fresh = target.layer3[0].conv1.weight.clone()
    report = merge.merge(target, given(source.state_dict() | {"ema.x": torch.ones(1)}), skip=["layer3", "ema"])
    assert torch.equal(target.layer3[0].conv1.weight, fresh)
    assert torch.equal(target.layer2[0].conv1.weight, source.layer2[0].conv1.weight)
    assert "layer3.0.conv1.weight" in report.fresh
    with pytest.raises(UserError, match="nothing is called 'layer9'"):
        merge.merge(net(), given(source.state_dict()), skip=["layer9"])


def test_a_mismatch_that_nobody_named_loads_nothing() -> None:
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = net().state_dict() | {"conv1.weight": torch.zeros(16, 1, 3, 3)}
    with pytest.raises(UserError, match=r"conv1.weight is \(16, 1, 3, 3\) in the file, \(16, 3, 3, 3\) in the net"):
        merge.merge(target, given(state))
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_weights_of_another_function_are_refused_though_their_names_fit() -> None:
    """torchvision's and the paper's bottleneck nets have the same names and shapes, and compute something else."""
    other = checkpoint.Inference(model={"name": "resnet50"}, classes=["a"], mean=[0.5], std=[0.5], image_size=224,
                                 in_channels=3)  # fmt: skip
    with pytest.raises(UserError, match="is of resnet50, not of resnet50_v1"):
        merge.check_variant({"name": "resnet50_v1"}, given({}, inference=other))
    merge.check_variant({"name": "resnet50", "source": "torchvision"}, given({}, inference=other))
    padded = given({}, inference=checkpoint.Inference(model={"name": "resnet20", "shortcut_pad": "both"}, classes=["a"],
                                                      mean=[0.5], std=[0.5], image_size=32, in_channels=3))  # fmt: skip
    with pytest.raises(UserError, match="shortcut_pad=both"):
        merge.check_variant({"name": "resnet20", "shortcut_pad": "end"}, padded)


# Freezing


def trainer(model: Net, lr_decay: float = 1.0) -> Trainer:
    device = create_runtime("cpu", "fp32", 0)
    cfg = OptimConfig(name=Optimizer.sgd, lr=0.1, lr_batch=None, momentum=0.9, nesterov=False, weight_decay=0.01,
                      decay_all=False, clip=None, lr_decay=lr_decay, head_lr=1.0)  # fmt: skip
    return Trainer(model=model, net=model, task=Classification(), optimizer=optim.build_optimizer(model, cfg, 8),
                   schedule=lambda step: 1.0, runtime=device, normalize=torch.Tensor.float)  # fmt: skip


def steps(one: Trainer, count: int = 3) -> None:
    freezing.train_mode(one.model)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randint(256, (8, 3, 32, 32), generator=generator).float() / 255
        train_step(one, images, torch.arange(8) % 3, Sums(one.runtime.device))


@pytest.mark.parametrize("what", ["backbone", "until:layer3", ["layer1", "layer2"], "re:layer[12]|bn1"])
def test_frozen_means_frozen_to_the_last_bit_batchnorm_too(what: Any) -> None:
    model = net()
    freezing.freeze(model, what)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    still = frozen | {f"{norm}.{buffer}" for norm in norms if f"{norm}.weight" in frozen
                      for buffer in ("running_mean", "running_var", "num_batches_tracked")}  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = trainer(model)
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
    one = trainer(net(), lr_decay=0.5)
    lr_of = {id(p): group["lr"] for group in one.optimizer.param_groups for p in group["params"]}
    model = one.model
    assert lr_of[id(model.fc.weight)] == pytest.approx(0.1)
    assert lr_of[id(model.layer3[0].conv1.weight)] == pytest.approx(0.05)
    assert lr_of[id(model.layer3[0].bn1.weight)] == pytest.approx(0.05)
    assert lr_of[id(model.conv1.weight)] == pytest.approx(0.1 * 0.5**4)
    assert one.lr == pytest.approx(0.1)


# The commands


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


def test_train_takes_weights_under_other_names(cnnbench: Callable[..., Any], tmp_path: Path) -> None:
    state = models.build("resnet8", num_classes=10, in_channels=1).state_dict()
    torch.save(
        {"state_dict": {f"module.{n.replace('fc.', 'linear.')}": v for n, v in state.items()}}, tmp_path / "x.th"
    )
    small = ("data.image_size=8", "data.fraction=0.05", "max_steps=1", "precision=fp32", "device=cpu", "weights=x.th")
    ran = cnnbench("train", *small)
    assert ran.code == 2
    assert "fc.weight (10, 64) is missing in the file" in ran.err
    assert not (tmp_path / "outputs").exists()
    assert cnnbench("train", *small, "weights_rename={linear: fc}").code == 0


def test_output_layers_give_the_logits() -> None:
    for name, arguments in (("resnet8", {}), ("nin_cifar", {"final_relu": False}), ("vgg11", {}), ("googlenet", {})):
        with torch.device("meta"):
            layer = output_layer(models.build(name, num_classes=7, **arguments))
        assert layer.weight.shape[0] == 7
