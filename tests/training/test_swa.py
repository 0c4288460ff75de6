"""Averaged weights of epochs: their mean, and BatchNorm's statistics of it."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from cnnbench.runtime.device import create_runtime
from cnnbench.runtime.distributed import ALONE
from cnnbench.training.swa import EpochAverage, reestimate


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


def test_each_epoch_from_the_first_on_counts_once() -> None:
    model = net()
    average = EpochAverage.after(model, 0.5, 7)
    assert average.first == 4 and not average.has_begun
    seen = []
    for epoch in range(4, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(epoch * torch.randn_like(parameter))
        seen.append(deepcopy(model.state_dict()))
        for _ in range(2):  # as where a validation was cut and the epoch ends again
            average.add(model, epoch)
        again = EpochAverage.after(net(), 0.5, 7)
        again.load_state_dict(average.state_dict())
        average = again
    assert int(average.n_averaged) == 4
    for name, parameter in average.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), torch.stack([one[name] for one in seen]).mean(0))


def test_the_statistics_are_those_of_the_average_as_torch_estimates_them() -> None:
    model, runtime = net().train(), create_runtime("cpu", "fp32", None)
    average = EpochAverage(model, 1)
    average.add(model, 1)
    theirs = deepcopy(average.module)
    theirs[3].p = 0.0  # type: ignore[index, union-attr]
    batches = [{"image": torch.randn(8, 3, 6, 6)} for _ in range(3)]
    before = torch.get_rng_state()
    reestimate(average, model, batches, lambda images: images, runtime)
    assert torch.equal(torch.get_rng_state(), before) and not average.module.training
    update_bn([batch["image"] for batch in batches], theirs)
    for name, value in average.module.named_buffers():
        torch.testing.assert_close(value, dict(theirs.named_buffers())[name])
    assert average.module[1].momentum == pytest.approx(0.1)  # type: ignore[index, union-attr]
    kept = deepcopy(average.module.state_dict())
    model[1].eval()  # type: ignore[index]  # frozen
    reestimate(average, model, [{"image": torch.zeros(8, 3, 6, 6)}], lambda images: images, runtime)
    assert all(torch.equal(value, kept[name]) for name, value in average.module.state_dict().items())


def test_statistics_of_two_processes_are_the_mean_of_theirs() -> None:
    runtime = create_runtime("cpu", "fp32", None)
    model, batches = net().train(), [{"image": torch.randn(8, 3, 6, 6)} for _ in range(4)]
    average = EpochAverage(model, 1)
    average.add(model, 1)

    def estimate(group: Any, seen: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        reestimate(average, model, seen, lambda images: images, replace(runtime, group=group))
        norm = average.module[1]  # type: ignore[index]
        return [norm.running_mean.clone(), norm.running_var.clone()]

    theirs = estimate(ALONE, batches[2:])

    def add_theirs(*mine: torch.Tensor) -> None:
        for tensor, other in zip(mine, theirs, strict=True):
            tensor += other

    ours = estimate(SimpleNamespace(size=2, all_reduce_sum=add_theirs), batches[:2])
    for value, whole in zip(ours, estimate(ALONE, batches), strict=True):
        torch.testing.assert_close(value, whole)
