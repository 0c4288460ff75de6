"""Nets cut behind a stage."""

import pytest
import torch

from cnnbench import models
from cnnbench.training import freezing
from cnnbench.transfer import features


@pytest.mark.parametrize(("name", "arguments", "cut"), [
    ("resnet8", {}, "layer2"), ("nin_cifar", {}, "mlpconv2"), ("alexnet_owt", {}, "conv3"),
    ("squeezenet1_0", {"source": "torchvision"}, "features.7"),
])  # fmt: skip
def test_a_cut_net_computes_what_the_whole_one_does_up_to_there(name: str, arguments: dict, cut: str) -> None:
    torch.manual_seed(0)
    whole = models.build(name, num_classes=3, **arguments).eval()
    part = models.build(name, num_classes=3, cut=cut, **arguments).eval()
    state = {f"body.{key}": value for key, value in whole.state_dict().items()}
    part.load_state_dict({key: state.get(key, value) for key, value in part.state_dict().items()})
    images = torch.randn(2, 3, whole.image_size, whole.image_size)
    kept = list(part.stages)[:-1]
    with torch.no_grad(), features.capture_features(whole, kept) as found, features.capture_features(part, kept) as own:
        whole(images)
        expected = found[cut] @ part.head.weight.T + part.head.bias
        assert torch.allclose(part(images), expected, atol=1e-4)
    assert all(torch.allclose(own[name], found[name], atol=1e-4) for name in kept)  # its stages can be looked at
    assert list(part.stages)[-2:] == [cut, "head"]
    freezing.freeze(part, "backbone")
    freezing.train_mode(part)
    assert {name for name, p in part.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
