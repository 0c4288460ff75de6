"""LeNet-5 against its paper: counts layer by layer, the table of C3, the codes and what begins."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnbench.models import build
from cnnbench.models.lenet import TABLE, Codes, Squash, Subsampling
from cnnbench.training import freezing
from cnnbench.transfer.strategies import check_head_learns
from cnnbench.utils.errors import UserError
from tests.helpers.model_facts import on_meta


def test_parameters_of_each_layer_are_the_papers():
    net = on_meta("lenet5")
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0, "squash": 0}


def test_maps_of_c3_see_those_of_table_one():
    """Sixteen different sets: six of three maps, nine of four, one of all; each map of S2 is seen ten times."""
    seen = [maps for rows in TABLE for maps in rows]
    assert [len(maps) for maps in seen] == [3] * 6 + [4] * 9 + [6] and len({*seen}) == 16
    assert [sum(one in maps for maps in seen) for one in range(6)] == [10] * 6
    torch.manual_seed(0)
    c3 = build("lenet5").c3
    x = torch.rand(1, 6, 14, 14, requires_grad=True)
    for number, maps in enumerate(seen):
        gradient = torch.autograd.grad(c3(x)[0, number].sum(), x)[0]
        assert gradient.abs().sum((0, 2, 3)).nonzero().flatten().tolist() == list(maps)


def test_outputs_are_distances_to_fixed_codes():
    torch.manual_seed(0)
    codes, x = Codes(84, 10), torch.randn(3, 84)
    assert codes.weight.abs().eq(1).all() and not [*codes.parameters()]
    expected = -(x[:, None] - codes.weight[None]).square().sum(2)
    torch.testing.assert_close(codes(x), expected)
    targets = torch.tensor([1, 2, 3])
    criterion = -expected[range(3), targets] + torch.logsumexp(expected, 1)  # (9) of the paper, without its constant
    torch.testing.assert_close(F.cross_entropy(codes(x), targets, reduction="none"), criterion)


def test_subsampling_squash_and_weights():
    layer, x = Subsampling(2), torch.rand(1, 2, 4, 4)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, -1.0)
    torch.testing.assert_close(layer(x)[0, 1, 0, 1], 2 * x[0, 1, :2, 2:].sum() - 1)
    torch.testing.assert_close(
        Squash()(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0
    )
    net = build("lenet5")
    assert net.f6.weight.abs().max() <= 2.4 / 120 and net.c5.weight.std().item() == pytest.approx(
        2.4 / 400 / 3**0.5, rel=0.05
    )


def test_a_linear_output_and_other_images():
    net = build("lenet5", num_classes=7, in_channels=3, output="linear").eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7) and sum(p.numel() for p in net.output.parameters()) == 595
    with pytest.raises(UserError, match="lenet5 ends in fixed codes"):
        check_head_learns(build("lenet5"))
    freezing.freeze(net, "backbone")
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {
        "f6.weight", "f6.bias", "output.weight", "output.bias"}  # fmt: skip
