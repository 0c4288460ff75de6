"""Exponential moving average of a net's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """torch's average of weights and buffers, updated without asking the device how often that was done.

    The count `n_averaged` stays on the host, so that a recorded step can hold the update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model; the first time, be equal to it. `n_averaged` is counted by the caller."""
        mine, theirs = _tensors(self.module), _tensors(model)
        if self.n_averaged == 0:
            torch._foreach_copy_(mine, theirs)
            return
        floats = [(one, other) for one, other in zip(mine, theirs, strict=True) if one.is_floating_point()]
        torch._foreach_lerp_([one for one, _ in floats], [other for _, other in floats], 1 - self.decay)
        for one, other in zip(mine, theirs, strict=True):
            if not one.is_floating_point():
                one.copy_(one * self.decay + other * (1 - self.decay))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
