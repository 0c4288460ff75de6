"""Blocks left out, zeroed and swapped: what remains is what the definition says, and the net is whole again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench.models import build
from cnnbench.visual import lesions
from tests.helpers.runs import Ran


@pytest.mark.parametrize("name", ["resnet14", "preact_resnet20"])
def test_a_residual_block_whose_last_norm_is_zero_is_the_identity(name: str) -> None:
    torch.manual_seed(0)
    net = build(name).eval()
    blocks = lesions.blocks_of(net, 32, 3)
    assert [name for name, (_, keeps) in blocks.items() if not keeps] == ["layer2.0", "layer3.0"]
    block, keeps = blocks["layer1.1"]
    maps = torch.rand(2, 16, 8, 8)
    with torch.no_grad(), lesions.zeroed(block):
        assert keeps and torch.equal(block(maps), maps)
    assert not torch.equal(block(maps), maps), "whole again"


def test_a_plain_block_gives_zeros_when_zeroed_and_what_it_is_given_when_skipped() -> None:
    block, _ = lesions.blocks_of(build("plain14").eval(), 32, 3)["layer2.1"]
    maps = torch.rand(2, 32, 8, 8)
    with torch.no_grad(), lesions.zeroed(block):
        assert not block(maps).any()
    with torch.no_grad(), lesions.skipped(block):
        assert torch.equal(block(maps), maps)


def test_neighbours_of_one_stage_change_places_and_come_back() -> None:
    net = build("resnet20")
    first, second = net.layer2[1], net.layer2[2]
    with lesions.swapped(net, "layer2.1", "layer2.2"):
        assert net.layer2[1] is second and net.layer2[2] is first
    assert net.layer2[1] is first and net.layer2[2] is second
    kinds = [(name, change) for name, change, _, _ in lesions.changes_of(net, lesions.blocks_of(net, 32, 3))]
    assert [name for name, change in kinds if change.startswith("swapped")] == [
        "layer1.0", "layer1.1", "layer2.1", "layer3.1"]  # fmt: skip
    assert len([change for _, change in kinds if change == "left out"]) == 9


def test_the_interval_is_of_the_difference_on_the_same_images() -> None:
    whole, changed = np.array([True] * 5 + [False] * 95), np.array([True] * 25 + [False] * 75)
    error, low, high = lesions.compared(whole, changed)
    assert error == 25.0 and 0 < low < 20.0 < high


def test_the_command_writes_numbers_beside_the_picture(cnnbench: Callable[..., Ran], no_pictures: None) -> None:
    made = cnnbench("train", "model=plain8", "data.image_size=8", "data.fraction=0.1", "epochs=1", "run.dir=run")
    assert made.code == 0, made.err
    ran = cnnbench("visualize", "what=lesions", "weights=run", "limit=40", "run.dir=cut")
    assert ran.code == 0, ran.err
    found = json.loads(Path("cut/lesions.json").read_text())
    assert (found["model"], found["n"], found["data"]) == ("plain8", 40, "digits")
    assert found["command"].startswith("cnnbench visualize what=lesions weights=run") and "commit" in found
    changes = {(one["block"], one["change"]): one for one in found["lesions"]}
    assert set(changes) == {("layer1.0", "left out"), *((f"layer{n}.0", "zeroed") for n in (1, 2, 3))}
    assert all(0 <= one["error"] <= 100 and one["low"] <= one["high"] for one in changes.values())
    refused = cnnbench("visualize", "what=lesions", "weights=zoo:resnet20-cifar10", "data=digits", "run.dir=no")
    assert refused.code == 2 and not Path("no/lesions.png").exists()
