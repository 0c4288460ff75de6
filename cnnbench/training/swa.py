"""Stochastic weight averaging. Izmailov et al. (2018), Averaging weights leads to wider optima and better
generalization."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from cnnbench.data import Batch
from cnnbench.runtime.device import Runtime
from cnnbench.training.exchange import running_statistics


class EpochAverage(AveragedModel):
    """Mean of a net's weights at the ends of epochs, from epoch number `first` on. Buffers are the net's own until
    `reestimate` makes them the average's."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__(model)
        self.first = first

    @classmethod
    def after(cls, model: nn.Module, part: float, epochs: int) -> "EpochAverage":
        """Average of the epochs that begin after this part of so many."""
        return cls(model, int(part * epochs) + 1)

    @property
    def has_begun(self) -> bool:
        return int(self.n_averaged) > 0

    def add(self, model: nn.Module, epoch: int) -> None:
        """Add the weights at the end of an epoch; one that was added before changes nothing."""
        if epoch - self.first >= int(self.n_averaged):
            self.update_parameters(model)


@torch.no_grad()
def reestimate(average: EpochAverage, model: nn.Module, batches: Iterable[Batch], normalize: Callable[[Tensor], Tensor],
               runtime: Runtime) -> None:  # fmt: skip
    """Make the running statistics of the average's BatchNorm those of these batches, each batch alike, wherever the
    model's own move in training. Several processes have batches of their own: the statistics are the mean of theirs, as
    in training."""
    pairs = zip(average.module.modules(), model.modules(), strict=True)
    norms: list[Any] = [mine for mine, its in pairs if isinstance(mine, _BatchNorm) and its.training]
    if not norms:
        return
    average.module.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean over all batches
    for batch in batches:
        with runtime.autocast():
            average.module(normalize(batch["image"]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average.module.eval()
    statistics = list(running_statistics(nn.ModuleList(norms)))
    runtime.group.all_reduce_sum(*statistics)
    for tensor in statistics:
        tensor /= runtime.group.size
