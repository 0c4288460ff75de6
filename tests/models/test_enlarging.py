"""Nets for super-resolution against their papers, and the bicubic filter against Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

import cnnbench
from cnnbench import models
from cnnbench.analysis.complexity import count_complexity
from cnnbench.models.enlarging import Enlarger, enlarged, reduced
from cnnbench.utils.errors import UserError
from tests.helpers.model_facts import make, on_meta

# Weights without biases (SRCNN: tables of the paper), then parameters.
SRCNN = {1: (8_032, 8_129), 3: (24_416, 24_513), 5: (57_184, 57_281)}
ESPCN = {2: 21_284, 3: 22_729, 4: 24_752}
EDSR = {2: 1_369_859, 3: 1_554_499, 4: 1_517_571}
SMALL = ["srcnn", "srcnn middle=5 scale=2", "espcn scale=4", "espcn in_channels=3 scale=2",
         "edsr_baseline blocks=1 width=8 scale=4", "edsr_baseline blocks=2 width=8 scale=3 in_channels=1"]  # fmt: skip


@pytest.mark.parametrize("middle", SRCNN)
def test_srcnn_has_the_papers_weights_for_every_scale(middle: int) -> None:
    for scale in (2, 3, 4):
        net = on_meta(f"srcnn middle={middle} scale={scale}")
        weights = sum(value.numel() for name, value in net.named_parameters() if name.endswith("weight"))
        assert (weights, sum(value.numel() for value in net.parameters())) == SRCNN[middle]
    assert count_complexity(on_meta(f"srcnn middle={middle}"), 11).macs == SRCNN[middle][0] * 33 * 33


@pytest.mark.parametrize(("name", "counts"), [("espcn", ESPCN), ("edsr_baseline", EDSR)])
def test_parameters_by_scale(name: str, counts: dict[int, int]) -> None:
    for scale, count in counts.items():
        assert sum(value.numel() for value in on_meta(f"{name} scale={scale}").parameters()) == count


@pytest.mark.parametrize("spec", SMALL)
def test_an_image_of_any_size_comes_back_larger(spec: str) -> None:
    net = make(spec).eval()
    assert isinstance(net, Enlarger)
    with torch.no_grad():
        answer = net(torch.rand(2, net.in_channels, 9, 14))
    assert answer.shape == (2, net.in_channels, 9 * net.scale, 14 * net.scale) and answer.dtype == torch.float32


@pytest.mark.parametrize("spec", SMALL)
def test_a_pixel_of_the_answer_depends_on_no_more_than_the_radius(spec: str) -> None:
    torch.manual_seed(0)
    net = make(spec).double().eval()
    side = 2 * net.radius + 9
    image = torch.rand(1, net.in_channels, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2 * net.scale
    net(image)[..., middle : middle + net.scale, middle : middle + net.scale].sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.min() >= side // 2 - net.radius and rows.max() <= side // 2 + net.radius


def test_the_last_layer_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    for spec in SMALL:
        net = make(spec).eval()
        image = torch.rand(1, net.in_channels, 12, 12)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            answer = net(image)
        assert answer.dtype == torch.float32 and len(answer.unique()) > 0.95 * answer.numel() / 2, spec


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_pillows(scale: int) -> None:
    pixels = (255 * np.random.default_rng(0).random((12 * scale, 7 * scale))).astype(np.float32)
    small = Image.fromarray(pixels).resize((7, 12), Image.Resampling.BICUBIC)
    large = small.resize((7 * scale, 12 * scale), Image.Resampling.BICUBIC)
    ours = reduced(torch.from_numpy(pixels)[None, None], scale)
    assert np.abs(ours[0, 0].numpy() - np.asarray(small)).max() < 2e-3
    assert np.abs(enlarged(ours, scale)[0, 0].numpy() - np.asarray(large)).max() < 4e-3


def test_from_python_and_what_is_refused() -> None:
    assert cnnbench.create_model("srcnn", scale=2).in_channels == 1
    assert cnnbench.create_model("edsr_baseline", blocks=1).in_channels == 3
    with pytest.raises(UserError, match="scale must be 2 or 3 or 4, not 5"):
        models.build("espcn", scale=5)
    with pytest.raises(UserError, match="in_channels must be 1 or 3, not 4"):
        models.build("srcnn", in_channels=4)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_untrained_srcnn_is_close_to_bicubic_interpolation(channels: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, channels, 10, 12)
    with torch.no_grad():
        difference = make(f"srcnn in_channels={channels}")(image) - enlarged(image.clamp(min=0), 3)
    assert difference.abs().mean() < 0.1
