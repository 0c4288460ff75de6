"""`cnnbench summary`: the lecture's slides, the papers' numbers, receptive fields against brute force, the formats."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench.analysis import published
from cnnbench.analysis.complexity import layer_complexity
from cnnbench.analysis.summary import difference_from_print, summarize
from cnnbench.commands import summary as command
from cnnbench.config.sections import Format, Layers
from cnnbench.models import MODELS
from cnnbench.tasks.classification.published import ERRORS
from tests.helpers.model_facts import AUXILIARY, COUNTS, make
from tests.helpers.runs import Ran
from tests.helpers.steps import count_steps

# The lecture's table of AlexNet: weights, and neurons.
SLIDE = {
    "conv1": (34_848, 290_400),
    "conv2": (307_200, 186_624),
    "conv3": (884_736, 64_896),
    "conv4": (663_552, 64_896),
    "conv5": (442_368, 43_264),
    "fc6": (37_748_736, 4096),
    "fc7": (16_777_216, 4096),
    "fc8": (4_096_000, 1000),
}


def summary(cnnbench: Callable[..., Ran], *args: str) -> list[dict]:
    ran = cnnbench("summary", *args, "format=json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_alexnet_is_the_lectures_table(cnnbench: Callable[..., Ran]) -> None:
    (net,) = summary(cnnbench, "model=alexnet")
    rows = {row["name"]: (row["weights"], row["neurons"]) for row in net["layers"] if row["kind"] in ("conv", "fc")}
    assert rows == SLIDE
    assert list(rows) == list(SLIDE)
    assert net["neurons"] == 659_272
    convolutions = [row for row in net["layers"] if row["kind"] == "conv"]
    assert sum(row["macs"] for row in convolutions) / net["macs"] == pytest.approx(0.9191, abs=5e-5)
    weights = sum(row["weights"] for row in net["layers"])
    assert sum(row["weights"] for row in convolutions) / weights == pytest.approx(0.0383, abs=5e-5)
    text = cnnbench("summary").out  # the default net
    assert "convolutions: 91.9% of the multiply-adds, with 3.8% of the weights" in text
    for weights, neurons in SLIDE.values():
        assert f"{weights:,}" in text
        assert f"{neurons:,}" in text


def test_the_slides_bottleneck_vgg19_and_plain34(cnnbench: Callable[..., Ran]) -> None:
    text = cnnbench("summary", "model=googlenet").out
    assert "would take 120.4 M multiply-adds" in text
    assert "2.4 M + 10.0 M = 12.4 M, 9.7 times fewer" in " ".join(text.split())
    nets = summary(cnnbench, "model=vgg19,plain34,resnet34", "num_classes=1000")
    assert [round(net["macs"] / 1e9, 1) for net in nets] == [19.6, 3.6, 3.7]
    (residual,) = summary(cnnbench, "model=resnet34", "model.shortcut=A")
    assert (residual["params"], residual["macs"]) == (nets[1]["params"], nets[1]["macs"]) == (21_623_848, 3_644_493_824)
    assert residual["published"]["top1_error"] == 25.03
    assert nets[2]["published"]["top1_error"] == 24.52


@pytest.mark.parametrize(
    "spec",
    ["alexnet groups=1", "vgg16", "googlenet", "googlenet_tv", "inception_v3", "bn_inception", "resnet50",
     "resnet50_v1", "nin", "deepface", "preact_resnet164", "resnet110", "resnet8"],
)  # fmt: skip
def test_totals_are_the_papers_and_the_rows_add_up_to_them(spec: str, cnnbench: Callable[..., Ran]) -> None:
    name, *arguments = spec.split()
    (net,) = summary(cnnbench, f"model={name}", *(f"model.{argument}" for argument in arguments))
    assert (net["params"], net["macs"]) == COUNTS[spec]
    assert sum(row["weights"] + row["biases"] for row in net["layers"]) == net["params"]
    assert sum(row["macs"] for row in net["layers"]) == net["macs"]
    assert sum(row["neurons"] for row in net["layers"]) == net["neurons"]
    assert sum(row["params_share"] for row in net["layers"]) == pytest.approx(1)
    assert sum(row["macs_share"] for row in net["layers"]) == pytest.approx(1)
    assert net["aux_params"] == AUXILIARY.get(spec, (0, 0))[0]
    assert net["layers"][-1]["output_shape"] == [net["num_classes"]] or name.startswith("nin")


DEPTHS = {"alexnet": 8, "vgg16_c": 16, "googlenet": 22, "bn_inception": 34, "resnet18": 18, "resnet152": 152, "nin": 12,
          "resnet1202": 1202, "preact_resnet1001": 1001, "deepface": 7, "plain20": 20}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_the_longest_way_through_layers_with_weights(name: str, cnnbench: Callable[..., Ran]) -> None:
    (net,) = summary(cnnbench, f"model={name}")
    assert net["depth"] == DEPTHS[name]


def test_what_the_net_is_asked_to_be(cnnbench: Callable[..., Ran]) -> None:
    args = ("num_classes=10", "image_size=96", "in_channels=1")
    (net,) = summary(cnnbench, "model=resnet18", *args)
    assert (net["num_classes"], net["image_size"], net["in_channels"]) == (10, 96, 1)
    assert net["layers"][0]["weights"] == 64 * 49
    assert net["layers"][0]["output_shape"] == [64, 48, 48]
    assert net["settings"] == list(args)
    assert "Not the paper's settings: num_classes=10" in cnnbench("summary", "model=resnet18", *args).out
    (other,) = summary(cnnbench, "model=torchvision", "model.name=squeezenet1_0")
    assert (other["model"], other["params"], other["published"]) == ("squeezenet1_0", 1_248_424, None)
    (face,) = summary(cnnbench, "model=deepface", "image_size=120")
    assert face["image_size"] == 120


def test_auxiliary_heads_that_the_image_has_no_room_for_are_named(cnnbench: Callable[..., Ran]) -> None:
    whole, small, native = (cnnbench("summary", "model=googlenet", f"image_size={size}").out for size in (79, 78, 224))
    heads = "Auxiliary heads, in training only: 6,379,728 parameters more."
    assert all(heads in text for text in (whole, small, native))
    assert "Skipped here: they need images of at least 79 x 79 pixels." in small
    assert "Skipped" not in whole + native
    assert "Auxiliary" not in cnnbench("summary", "model=googlenet", "model.aux=false").out


def test_all_layers_or_those_that_matter(cnnbench: Callable[..., Ran]) -> None:
    (main,), (full,) = summary(cnnbench), summary(cnnbench, "layers=all")
    kinds = {row["kind"] for row in main["layers"]}
    assert kinds == {"conv", "fc", "max pool"}  # the adaptive pool leaves the maps as they are
    assert {row["kind"] for row in full["layers"]} == {*kinds, "relu", "dropout", "response norm", "average pool"}
    assert main["params"] == full["params"]


def test_several_nets_are_one_table(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """With and without -m, and nothing is left behind."""
    ran = cnnbench("summary", "model=alexnet,vgg16,googlenet,resnet20")
    assert ran.code == 0
    assert cnnbench("summary", "-m", "model=alexnet,vgg16,googlenet,resnet20").out == ran.out
    head, *rows = ran.out.splitlines()
    assert len(rows) == 4
    assert "params / alexnet" in head
    assert [row.split()[0] for row in rows] == ["alexnet", "vgg16", "googlenet", "resnet20"]
    assert rows[1].split()[1:7] == ["138,357,544", "15,470,264,320", "16", "27.00", "8.80", "2.27"]
    assert rows[2].split()[6] == "0.115"
    assert list(tmp_path.iterdir()) == []
    labels = cnnbench("summary", "model=resnet34", "model.shortcut=A,B,C").out
    names = [line.split("  ")[0] for line in labels.splitlines()[1:]]
    assert names == ["resnet34 shortcut=A", "resnet34", "resnet34 shortcut=C"]
    assert all(error in labels for error in ("25.03", "24.52", "24.19"))
    assert "40.70" not in cnnbench("summary", "-m", "model=alexnet", "model.groups=1").out  # another net's error
    assert len(cnnbench("summary", "-m", "model=alexnet").out.splitlines()) == 2
    assert len(cnnbench("summary", "model=glob(vgg*)").out.splitlines()) == 1 + sum(
        name[:3] == "vgg" for name in MODELS
    )


def test_formats_and_the_file(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cnnbench("summary", "format=csv").out)))
    assert rows[0]["layer"] == "conv1"
    assert int(rows[0]["weights"]) == 34_848
    assert float(rows[0]["% macs"]) == pytest.approx(14.55, abs=0.01)
    assert "| conv1 | conv |" in cnnbench("summary", "format=markdown").out
    assert "| vgg11 |" in cnnbench("summary", "model=alexnet,vgg11", "format=markdown").out
    printed = cnnbench("summary", "out=alexnet.json").out
    assert printed.startswith("alexnet: 3 x 224 x 224")
    assert json.loads((tmp_path / "alexnet.json").read_text())[0]["params"] == 60_965_224
    assert cnnbench("summary", "out=alexnet.txt", "format=json").out.startswith("[")
    assert (tmp_path / "alexnet.txt").read_text() == printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alexnet.json", "alexnet.txt"]


@pytest.mark.parametrize("format", ["svg", "html"])
def test_a_drawing_that_goes_to_a_file_is_not_printed_too(
    format: str, cnnbench: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = cnnbench("summary", f"format={format}", "out=drawn")
    assert (ran.out, ran.err) == ("", "drawing -> drawn\n")
    assert (tmp_path / "drawn").read_text() == cnnbench("summary", f"format={format}").out


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_a_narrow_terminal_gets_fewer_columns(width: int, compose: Callable) -> None:
    measured = summarize(compose("model=alexnet", command="summary"))
    text = command.single(measured, Layers.main, Format.table, width)
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= width
    assert all(str(weights)[:2] in text for weights, _ in SLIDE.values())
    assert ("kernel" in table[0]) == (width > 110)
    assert max(len(line) for line in text.splitlines() if line.startswith(("- ", "  "))) <= max(width, 60)


def test_nets_side_by_side_fit_a_terminal(compose: Callable) -> None:
    nets = [summarize(compose(f"model={name}", command="summary")) for name in ("alexnet", "resnet50")]
    text = command.side_by_side(nets, Format.table, 80)
    assert max(map(len, text.splitlines())) <= 80 and "top-5 error" in text and "errors measured on" in text
    assert "params / alexnet" in command.side_by_side(nets, Format.table, 100)


def test_what_the_papers_say_is_compared_in_their_own_digits() -> None:
    assert difference_from_print(138_357_544, "138 M") == "as printed"
    assert difference_from_print(60_965_224, "60 M") == "+1.6%"
    assert difference_from_print(23_834_568, "<25 M") == "as printed"
    assert difference_from_print(118_923_774, ">120 M") == "-0.9%"
    assert difference_from_print(48, "42") == "+6"
    assert {name.split()[0] for name in published.FACTS} <= set(MODELS)
    assert set(ERRORS) <= set(published.FACTS)


# Receptive fields of single units, where they are known by hand or from the literature.
FIELDS = {
    "alexnet": {"conv1": 11, "pool1": 19, "conv2": 51, "conv5": 163, "pool5": 195, "fc6": 355},
    "vgg16": {"features.28": 196, "features.30": 212, "classifier.0": 404},
    "resnet50_v1": {"layer4.2.conv3": 483},
    "deepface": {"L6": 73},
}


@pytest.mark.parametrize("name", FIELDS)
def test_known_receptive_fields(name: str, cnnbench: Callable[..., Ran]) -> None:
    (net,) = summary(cnnbench, f"model={name}")
    found = {row["name"]: row["receptive_field"] for row in net["layers"]}
    assert {layer: found[layer] for layer in FIELDS[name]} == FIELDS[name]


class ReachedError(Exception):
    pass


def brute_force(spec: str, layer: str, size: int) -> int:
    """The side of what changes one unit in the middle of a map: where its gradient is not zero.

    All weights are positive and maxima are averages, so no gradient is cut off.
    """
    net = make(spec, num_classes=2).double().eval()
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, average)
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())

    def stop(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
        raise ReachedError

    net.get_submodule(layer).register_forward_hook(stop)
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ReachedError):
        net(image)
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0) > 0
    sides = []
    for axis in (0, 1):
        places = seen.any(axis).nonzero().flatten()
        assert 0 < places[0] <= places[-1] < size - 1  # the image is large enough not to cut it
        sides.append(int(places[-1] - places[0]) + 1)
    return max(sides)


@pytest.mark.parametrize(
    ("spec", "layer", "size"),
    [
        ("alexnet", "pool5", 256),
        ("vgg11", "features.15", 128),
        ("nin_cifar", "mlpconv2.6", 64),
        ("googlenet", "inception4b.branch3.1.conv", 320),
        ("googlenet_tv", "inception4a.branch1.conv", 320),
        ("inception_v3", "Mixed_5c.branch1x1.conv", 160),
        ("resnet18", "layer3.0.conv1", 192),
        ("resnet18 shortcut=A", "layer3.1.conv2", 288),
        ("resnet50", "layer3.0.conv2", 192),
        ("resnet20", "layer3.1.conv2", 160),
        ("plain20", "layer3.0.conv1", 128),
        ("preact_resnet20", "layer3.1.residual.3", 160),
    ],
)
def test_the_receptive_field_is_what_changes_a_unit(spec: str, layer: str, size: int) -> None:
    row = next(row for row in layer_complexity(make(spec, num_classes=2), size) if row.name == layer)
    assert brute_force(spec, layer, size) == row.receptive_field


def test_every_net_costs_neither_memory_nor_the_compiler(compose: Callable) -> None:
    """On the meta device, and without the seconds that torch takes to import what it does not need here."""
    before = set(sys.modules)
    for name in ("vgg19", "googlenet", "deepface", "resnet1202"):
        measured = summarize(compose(f"model={name}", command="summary"))
        assert (measured.params, measured.macs) == COUNTS[name]
    assert not {"sympy", "torch._inductor"} & (set(sys.modules) - before)


def test_each_block_of_a_deeper_net_takes_the_same_work(compose: Callable) -> None:
    """Its layers are looked up, counted and shown one by one, and none goes through all the others."""

    def steps(blocks: int) -> int:
        cfg = compose(f"model=preact_resnet{6 * blocks + 2}", command="summary")
        return count_steps(lambda: command.single(summarize(cfg), cfg.layers, cfg.format))

    steps(3)  # what is imported and computed once
    few, some, many = (steps(blocks) for blocks in (3, 9, 18))
    assert (many - some) / 9 < 1.03 * (some - few) / 6
