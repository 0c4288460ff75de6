"""Parameters and multiply-adds of a net, layer by layer, from shapes alone.

Conventions: parameters are the learned ones (running statistics are not); multiply-adds are those of convolutions and
matrix products for one image, as the papers count their "FLOPs": no biases, normalisation, activations or pooling.
"""

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.models.layers import Net, run_on_meta


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it ran: `output_shape` is without the batch, `weights` and `biases` are numbers of parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    macs: int

    @property
    def neurons(self) -> int:
        return math.prod(self.output_shape)


@dataclass(frozen=True, slots=True)
class Complexity:
    params: int
    macs: int


def count(model: Net, image_size: int | None = None, in_channels: int | None = None) -> Complexity:
    """Parameters and multiply-adds of the net as used at inference, at its native size and channels by default."""
    rows = layers(model, image_size, in_channels)
    return Complexity(sum(row.weights + row.biases for row in rows), sum(row.macs for row in rows))


def layers(model: Net, image_size: int | None = None, in_channels: int | None = None) -> list[Layer]:
    """A row for each layer in the order in which they run. A layer that runs twice has its parameters in the first row.

    The net may lie on any device, the meta device included, and its weights are not touched.
    """
    rows: list[Layer] = []
    counted: set[nn.Parameter] = set()
    started: list[int] = []  # multiply-adds when each layer that is still running began; layers nest
    counter = FlopCounterMode(display=False)

    def begin(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        started.append(counter.get_total_flops())

    def end(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs = (counter.get_total_flops() - started.pop()) // 2  # two operations per multiply-add
        new = {key: p.numel() for key, p in module.named_parameters(recurse=False) if p not in counted}
        counted.update(module.parameters(recurse=False))
        biases = new.pop("bias", 0)
        rows.append(Layer(name, type(module).__name__, tuple(output.shape[1:]), sum(new.values()), biases, macs))

    hooks = []
    for name, module in model.named_modules():
        if not any(module.children()):
            hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(partial(end, name))]
    try:
        with counter:
            run_on_meta(model, image_size or model.image_size, in_channels)
    finally:
        for hook in hooks:
            hook.remove()
    return rows
