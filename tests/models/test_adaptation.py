"""Two new layers in place of the last: on a net, and in a fine-tuning that only trains them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cnnbench.models import build
from cnnbench.models.adaptation import adapt
from cnnbench.utils.errors import UserError
from cnnbench.weights import sources
from tests.helpers.runs import Ran


def test_the_layers_stand_where_the_last_one_stood() -> None:
    net = adapt(build("resnet8", num_classes=3), 16)
    assert [tuple(p.shape) for p in net.fc.parameters()] == [(16, 64), (16,), (3, 16), (3,)]
    assert net.stages["head"][-1] is net.fc and net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    again = build("resnet8", num_classes=3, adapt=16)
    again.load_state_dict(net.state_dict())
    with pytest.raises(UserError, match="the logits of nin_cifar are of no linear layer"):
        adapt(build("nin_cifar"), 16)


def test_only_they_train_with_transfer_head(cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path) -> None:
    ran = cnnbench("finetune", "transfer=head", "transfer.adapt=8", "transfer.probe=false", "data.image_size=8",
                   "epochs=1", "data.fraction=0.05", "run.dir=two", "format=json")  # fmt: skip
    assert ran.code == 0, ran.err
    found, zoo = sources.load("two"), sources.load(sources.DEFAULT)
    assert found.spec and found.spec.model["adapt"] == 8
    assert torch.equal(found.state["layer3.2.conv2.weight"], zoo.state["layer3.2.conv2.weight"])
    assert found.state["fc.2.weight"].shape == (10, 8)
    refused = cnnbench("finetune", "transfer=svm", "transfer.adapt=8", "run.dir=three")
    assert refused.code == 2 and "two new layers must train: give transfer=head, partial or full" in refused.err
    assert not Path("three").exists()
