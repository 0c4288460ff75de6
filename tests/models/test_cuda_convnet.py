"""cuda-convnet's net and the comparisons that it is made for."""

import pytest
import torch
from torch import nn

from cnnbench.models import build
from cnnbench.models.layers import LocallyConnected2d
from cnnbench.utils.errors import UserError
from tests.helpers.model_facts import on_meta


def layer(net: nn.Module, number: int) -> list[nn.Module]:
    return list(net.get_submodule(f"layer{number}").children())


def parameters(net: nn.Module, *numbers: int) -> int:
    return sum(p.numel() for number in numbers for p in net.get_submodule(f"layer{number}").parameters())


def test_the_layers_are_those_of_the_definition() -> None:
    net = on_meta("cuda_convnet")
    assert [parameters(net, number) for number in (1, 2, 3, 4)] == [4_864, 102_464, 1_181_696, 591_872]
    conv, relu, norm, pool = layer(net, 1)
    assert isinstance(relu, nn.ReLU) and (norm.size, norm.alpha, norm.beta, norm.k) == (5, 1e-3, 0.75, 1)
    assert (conv.kernel_size, pool.kernel_size, pool.stride) == ((5, 5), 3, 2)
    assert isinstance(layer(net, 3)[0][1], LocallyConnected2d)
    assert list(net.stages) == ["stem", "layer2", "layer3", "layer4", "head"]


def test_the_kinds_of_upper_layers_have_as_many_units_and_other_parameters() -> None:
    nets = {kind: on_meta(f"cuda_convnet upper={kind} filters=[32,32,32,32]") for kind in ("shared", "local", "full")}
    assert {kind: parameters(net, 3, 4) for kind, net in nets.items()} == {
        "shared": 18_496, "local": 2 * 64 * (288 * 32 + 32), "full": 2 * (2048 * 2048 + 2048)}  # fmt: skip
    image = torch.empty(2, 3, 32, 32, device="meta")
    for net in nets.values():
        below = net.layer2(net.layer1(image))
        assert net.layer4(net.layer3(below)).shape == (2, 32, 8, 8)


def test_a_local_layer_with_one_filter_everywhere_is_a_convolution() -> None:
    torch.manual_seed(0)
    shared, local = (build("cuda_convnet", upper=kind, filters=[4, 4, 4], image_size=8).eval()
                     for kind in ("shared", "local"))  # fmt: skip
    local.load_state_dict({k: v for k, v in shared.state_dict().items() if not k.startswith("layer3")}, strict=False)
    conv, unshared = layer(shared, 3)[0], layer(local, 3)[0][1]
    with torch.no_grad():
        unshared.weight.copy_(conv.weight.flatten(1).T.expand_as(unshared.weight))
        unshared.bias.copy_(conv.bias[:, None, None].expand_as(unshared.bias))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(local(images), shared(images))


@pytest.mark.parametrize("filters", [[132], [34, 34], [33, 33, 33], [32, 32, 32, 32]])
def test_nets_of_any_number_of_layers_end_in_the_same_maps(filters: list[int]) -> None:
    net = build("cuda_convnet", filters=filters, upper="shared", lrn=False)
    assert net.fc.in_features == filters[-1] * 64
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_groups_split_the_second_and_the_fourth_layer() -> None:
    net = on_meta("cuda_convnet upper=shared groups=2")
    assert [layer(net, number)[0].groups for number in (1, 2, 3, 4)] == [1, 2, 1, 2]
    assert isinstance(layer(on_meta("cuda_convnet activation=tanh"), 2)[1], nn.Tanh)


def test_the_papers_start_is_by_hand() -> None:
    torch.manual_seed(0)
    net = build("cuda_convnet", init="paper", image_size=16)
    stds = [layer(net, 1)[0].weight.std(), layer(net, 2)[0].weight.std(), layer(net, 3)[0][1].weight.std(),
            net.fc.weight.std()]  # fmt: skip
    assert [std.item() for std in stds] == pytest.approx([0.0001, 0.01, 0.04, 0.01], rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": []}, "filters must be a list of whole numbers from 1 on, as [64,64,32,32], not []"),
        ({"filters": [8, 0]}, "not [8, 0]"),
        ({"filters": 8}, "filters must be a list, not 8"),
        ({"groups": 2}, "groups=2 are of convolutions: give upper=shared"),
    ],
)
def test_mistakes_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        build("cuda_convnet", **arguments)
    assert message in str(error.value)
