"""`deterministic=true`: set, taken back, and refused with the layer that cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench.runtime.device import Runtime, create_runtime
from tests.helpers.runs import SMALL, Ran


def test_deterministic_is_set_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    create_runtime("cpu", "fp32", seed=0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    create_runtime("cpu", "fp32", seed=0)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("no_pictures")
def test_deterministic_gives_the_same_bits_on_a_cpu(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    from tests.helpers.runs import assert_same_run

    for name, more in (("a", "deterministic=true"), ("b", "deterministic=false")):
        assert cnnbench("train", "epochs=1", more, f"run.dir={name}", *SMALL).code == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.usefixtures("no_pictures")
def test_what_cannot_be_deterministic_is_said(cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*args: Any) -> None:
        raise RuntimeError("adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you …")

    monkeypatch.setattr("cnnbench.training.loop.train_step", step)
    ran = cnnbench("train", "deterministic=true", *SMALL)
    assert ran.code == 2
    assert "deterministic=true: on this device adaptive_avg_pool2d_backward_cuda" in ran.err


def test_kernels_are_searched_for_the_shape_of_the_first_batch_alone() -> None:
    """Neither for a short last batch, nor where whole images of many sizes come one by one."""
    searched: list[bool] = []

    class Noting(Runtime):
        def search_kernels(self, worth: bool) -> None:
            searched.append(worth)

    cpu = create_runtime("cpu", "fp32", seed=0)
    runtime = Noting(cpu.device, cpu.dtype, cpu.scaler, searches=True)
    shapes = [(4, 3, 8, 8), (4, 3, 8, 8), (3, 3, 8, 8), (4, 3, 8, 9), (4, 3, 8, 8)]
    given = [{"image": torch.zeros(shape), "number": number} for number, shape in enumerate(shapes)]
    assert [batch["number"] for batch in runtime.by_shape(given)] == [0, 1, 2, 3, 4]
    assert searched == [True, True, False, False, True]


def test_kernels_are_searched_for_in_long_trainings_alone() -> None:
    """A search takes seconds, and an evaluation or a short training is over before they are won back."""
    runtime = create_runtime("cpu", "bf16", seed=0)
    long = runtime.for_steps(64_000)
    assert (runtime.searches, runtime.for_steps(400).searches, long.searches) == (False, False, True)
    assert not long.to_measure("auto").searches
