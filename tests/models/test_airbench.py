"""Airbench's net: where it begins, and what of it does not train."""

import pytest
import torch

from cnnbench.models import build
from cnnbench.models.airbench import Airbench


@pytest.fixture
def net() -> Airbench:
    torch.manual_seed(0)
    made = build("airbench")
    assert isinstance(made, Airbench)
    return made


def images(count: int = 200) -> torch.Tensor:
    """Smooth and coloured, as photographs are: neighbouring pixels and channels are correlated."""
    torch.manual_seed(1)
    coarse = torch.nn.functional.interpolate(torch.randn(count, 3, 8, 8), size=32, mode="bilinear")
    return coarse + 0.5 * coarse.mean(1, keepdim=True) + 0.1 * torch.randn(count, 3, 32, 32)


def test_patches_are_white_behind_the_first_layer(net: Airbench) -> None:
    """12 components that are neither correlated nor of different size, then their negatives (section 3.2)."""
    x = images()
    net.fit_to(x.split(70))
    with torch.no_grad():
        out = net.whiten(x).transpose(0, 1).flatten(1).double()
    moments = out @ out.T / out.shape[1]
    white = torch.eye(12).double()
    torch.testing.assert_close(
        moments, torch.cat([torch.cat([white, -white]), torch.cat([-white, white])], 1), atol=0.06, rtol=0
    )
    raw = x.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    assert torch.corrcoef(raw.T).fill_diagonal_(0).max() > 0.5  # they were not before


def test_before_it_has_seen_images_the_first_layer_gives_the_pixels(net: Airbench) -> None:
    x = images(2)
    with torch.no_grad():
        out = net.whiten(x)
    assert torch.equal(out[:, 0], x[:, 0, :-1, :-1])
    assert torch.equal(out[:, 12:], -out[:, :12])


def test_filters_begin_as_a_partial_identity(net: Airbench) -> None:
    conv = net.get_submodule("layer2.conv1")
    x = torch.randn(1, 64, 8, 8)
    out = conv(x)
    torch.testing.assert_close(out[:, :64], x)
    assert out.shape[1] == 256 and 0.1 < out[:, 64:].std() < 1


def test_what_is_fixed_is_saved_and_moved_but_not_trained(net: Airbench) -> None:
    names = {name for name, _ in net.named_parameters()}
    fixed = {"whiten.weight", *(f"layer{number}.norm{place}.weight" for number in (1, 2, 3) for place in (1, 2))}
    assert fixed <= set(net.state_dict()) and not fixed & names
    assert "whiten.bias" in names and "layer1.norm1.bias" in names
    copy = build("airbench")
    net.fit_to([images(20)])
    copy.load_state_dict(net.state_dict())
    assert torch.equal(copy.get_buffer("whiten.weight"), net.get_buffer("whiten.weight"))


def test_other_images_and_classes() -> None:
    net = build("airbench", in_channels=1, num_classes=7)
    net.fit_to([torch.randn(30, 1, 16, 16)])
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 7)
