"""All-reduce of the processes of a training: one message in each step."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnbench.runtime.distributed import ProcessGroup
from cnnbench.tasks.meter import Meter


class Exchange:
    """One all-reduce for each step: the loss, the meter's sums, flags, and BatchNorm's running statistics.

    sizes: images of all processes in the step of this number. flags: numbers of this process, whose sums over all
    processes are then in `flags_sum`.
    """

    def __init__(self, group: ProcessGroup, model: nn.Module, sizes: Callable[[int], int]) -> None:
        self.group, self.sizes = group, sizes
        self.buffers = list(running_statistics(model))
        self.flags: Callable[[], Sequence[float]] = tuple
        self.flags_sum = torch.zeros(0)

    def share(self, count: int, step: int) -> float:
        """Weight of this process's mean in the mean over all: 1 where all have as many images."""
        return count * self.group.size / self.sizes(step)

    def __call__(self, mine: Meter, total: Meter, loss: Tensor, step: int) -> Tensor:
        """Sum of the processes' losses. Adds the step's sums of all processes to `total`."""
        flags = torch.tensor([float(flag) for flag in self.flags()], dtype=torch.float64, device=loss.device)
        parts = [loss.reshape(1), *mine.tensors(), flags, *self.buffers]
        message = torch.cat([part.flatten().double() for part in parts])
        self.group.all_reduce_sum(message)
        loss_sum, *sums = message.split([part.numel() for part in parts])
        counted, (self.flags_sum, *means) = sums[: len(mine.tensors())], sums[len(mine.tensors()) :]
        for tensor, value in zip(total.tensors(), counted, strict=True):
            tensor += value.view_as(tensor).to(tensor.dtype)
        total.n += self.sizes(step)
        total.learn_of(mine)
        for buffer, value in zip(self.buffers, means, strict=True):
            buffer.copy_((value / self.group.size).view_as(buffer))
        return loss_sum[0].to(loss.dtype)


def running_statistics(model: nn.Module) -> Iterator[Tensor]:
    """Running means and variances that each process would have of its own images. Synchronised ones are the same."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            for buffer in (module.running_mean, module.running_var):
                if buffer is not None:
                    yield buffer
