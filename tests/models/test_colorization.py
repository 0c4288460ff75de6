"""The net of Colorful Image Colorization: its names, its sizes, what it answers, how it begins."""

import pytest
import torch

from cnnbench.models import answers, build
from cnnbench.models.colorization import COLOURS


def test_names_and_shapes_are_those_of_the_network_that_the_authors_released() -> None:
    with torch.device("meta"):
        state = build("colorizer").state_dict()
    convolutions = {
        "model1.0": (64, 1, 3, 3), "model1.2": (64, 64, 3, 3), "model2.0": (128, 64, 3, 3),
        "model2.2": (128, 128, 3, 3),
        "model3.0": (256, 128, 3, 3), "model3.4": (256, 256, 3, 3), "model4.0": (512, 256, 3, 3),
        "model5.4": (512, 512, 3, 3), "model6.0": (512, 512, 3, 3), "model7.4": (512, 512, 3, 3),
        "model8.0": (512, 256, 4, 4), "model8.2": (256, 256, 3, 3), "model8.4": (256, 256, 3, 3),
        "model8.6": (313, 256, 1, 1),
    }  # fmt: skip
    assert {name: tuple(state[f"{name}.weight"].shape) for name in convolutions} == convolutions
    norms = {"model1.4": 64, "model2.4": 128, **{f"model{number}.6": 512 for number in (4, 5, 6, 7)}, "model3.6": 256}
    assert {name: len(state[f"{name}.running_mean"]) for name in norms} == norms


@pytest.mark.parametrize("size", [32, 40, 48])
@pytest.mark.parametrize(("loss", "outputs"), [("class", 313), ("class_rebalanced", 313), ("l2", 2)])
def test_it_answers_at_a_quarter_of_the_size(size: int, loss: str, outputs: int) -> None:
    net = build("colorizer", width=0.05, loss=loss).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 1, size, size)).shape == (2, outputs, size // 4, size // 4)
    assert answers("colorizer") == COLOURS


def test_every_layer_keeps_the_size_of_the_signal_at_the_start() -> None:
    torch.manual_seed(0)
    net, x = build("colorizer", width=0.25), torch.randn(8, 1, 32, 32)
    with torch.no_grad():
        for block in list(net.children())[:-1]:
            x = block(x)
            assert 0.9 < x.std() < 1.1
        assert 1.1 < net.get_submodule("model8.0")(x).std() < 1.7
        assert net.get_submodule("model8")(x).std() < 0.2  # all colours about as likely
