"""Stochastic depth: which blocks are left out, how often, and that evaluation knows nothing of it."""

import pytest
import torch
from torch import nn

from cnnbench.models import build
from cnnbench.models.stochastic_depth import Residual, blocks, leave_out


@pytest.mark.parametrize(("name", "count"), [("resnet20", 9), ("preact_resnet20", 9), ("resnet18", 8), ("plain20", 0)])
def test_blocks_are_left_out_the_more_the_deeper_they_lie(name: str, count: int) -> None:
    net = build(name)
    assert leave_out(net, 0.5) == count
    assert [block.left_out for block in blocks(net)] == pytest.approx([0.5 * n / count for n in range(1, count + 1)])


def test_an_image_has_its_residual_or_passes_by_and_the_mean_stays() -> None:
    block = Residual()
    block.left_out = 0.25
    torch.manual_seed(0)
    added = block.drawn(torch.full((40_000, 2, 1, 1), 3.0))
    kept = added[:, 0, 0, 0] > 0
    assert torch.equal(added[kept], torch.full_like(added[kept], 4.0)) and (added[~kept] == 0).all()
    assert abs(kept.float().mean() - 0.75) < 0.01
    residual = torch.ones(2, 2, 1, 1)
    assert block.eval().drawn(residual) is residual


def test_evaluation_is_that_of_the_whole_net_and_training_differs() -> None:
    net, images = build("resnet8"), torch.randn(16, 3, 32, 32)
    for module in net.modules():  # so that a block changes something from the start, whatever the batch
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    plain = net.eval()(images), net.train()(images)
    assert leave_out(net, 0.9) == 3
    torch.manual_seed(1)
    assert torch.equal(net.eval()(images), plain[0])
    trained = [net.train()(images) for _ in range(2)]
    assert not torch.equal(trained[0], plain[1]) and not torch.equal(*trained)
