"""Embeddings: nets without their last layer, the heads that tell people apart, and the nets for faces."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnbench import models
from cnnbench.models.embedding import EMBEDDING, Cosine, Embedder
from cnnbench.models.layers import output_layer
from cnnbench.models.sphereface import SphereFace
from tests.helpers.model_facts import make, on_meta


def test_sphereface_has_the_published_parameters() -> None:
    """Open Model Zoo: 22.671 million without the last layer, for images of 112 x 96, where FC1 sees 7 x 6 places."""
    net = on_meta("sphereface20")
    body = sum(value.numel() for name, value in net.named_parameters() if not name.startswith("fc."))
    assert body - 512 * 512 * 7 == 22_670_656
    convolutions = [sum(isinstance(layer, nn.Conv2d) for layer in on_meta(f"sphereface{layers}").modules())
                    for layers in (4, 10, 20, 36, 64)]  # fmt: skip
    assert convolutions == [4, 10, 20, 36, 64]


def test_sphereface_is_for_one_size_and_says_which() -> None:
    with pytest.raises(ValueError, match="FC1 is made for images of 112 pixels: give model"):
        SphereFace((0, 0, 0, 0), width=0.02)(torch.zeros(1, 3, 64, 64))
    odd = SphereFace((0, 1, 0, 0), width=0.02, image_size=37, embedding=8, num_classes=3)
    assert odd(torch.zeros(2, 3, 37, 37)).shape == (2, 3)


NETS = ["resnet20", "squeezenet1_1 source=torchvision", "nin_cifar", "deepface image_size=72", "googlenet",
        "sphereface4 width=0.1 image_size=32"]  # fmt: skip


@pytest.mark.parametrize("line", NETS)
def test_an_embedding_is_what_the_last_layer_sees(line: str) -> None:
    """Of a 1x1 convolution before a pool, the mean over the places."""
    name, *_ = line.split()
    plain = make(f"{line} num_classes=5").eval()
    embedder = make(f"{line} num_classes=5 embed=cosface").eval()
    assert isinstance(embedder, Embedder) and embedder.answers == EMBEDDING and embedder.name == name
    embedder.net.load_state_dict(plain.state_dict(), strict=False)
    last, seen = output_layer(plain), []
    last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, plain.image_size, plain.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain(images)
        found = embedder(images)
    features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    assert found.shape == (2, embedder.length) and torch.allclose(found, F.normalize(features), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("head", "shape"), [("softmax", (2, 7)), ("cosface", (2, 7)), ("arcface", (2, 7)), ("none", (2, 64))]
)
def test_a_head_is_used_in_training_alone(head: str, shape: tuple[int, int]) -> None:
    net = models.build("resnet8", num_classes=7, in_channels=3, embed=head)
    images = torch.rand(2, 3, 32, 32)
    assert net.train()(images).shape == shape and net.eval()(images).shape == (2, 64)
    parameters = [parameter for stage in net.stages.values() for layer in stage for parameter in layer.parameters()]
    assert {id(one) for one in parameters} == {id(one) for one in net.parameters()}
    assert len(parameters) == len(list(net.parameters())), "each in one stage"


def test_cosines_know_no_length() -> None:
    layer = Cosine(4, 3)
    nn.init.normal_(layer.weight)
    x = torch.randn(5, 4)
    assert torch.allclose(layer(x), layer(7 * x), atol=1e-6) and layer(x).abs().max() <= 1 + 1e-6
    assert torch.allclose(layer(layer.weight.detach()).diag(), torch.ones(3), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float())) and layer(x).dtype == torch.float32
