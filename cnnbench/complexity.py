"""Parameters, multiply-adds, depth and receptive fields of a net, layer by layer, from shapes alone.

Conventions: parameters are the learned ones (running statistics are not); multiply-adds are those of convolutions and
matrix products for one image, as the papers count their "FLOPs": no biases, normalisation, activations or pooling.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from cnnbench.models.layers import Net, run_on_meta
from cnnbench.tracing import Trace, origin, tensors


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it ran: shapes are without the batch, `weights` and `biases` are numbers of parameters.

    `receptive_field` is the side in pixels of what one unit sees of the image, padding included (`tracing` says how);
    `depth` the number of weight layers on the longest way from the image to this layer's output, it included.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    macs: int
    receptive_field: int = 0
    depth: int = 0
    kernel: str = ""

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

    A module that holds others has a row where it has parameters or multiply-adds of its own. The net may lie on any
    device, the meta device included, and its weights are not touched.
    """
    rows: list[Layer] = []
    counted: set[nn.Parameter] = set()
    running = [0]  # multiply-adds of each module that is still running, without its children; modules nest

    def on_macs(macs: int) -> None:
        running[-1] += macs

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        running.append(0)

    def end(name: str, leaf: bool, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        macs = running.pop()
        # Attention takes the weights of a child without calling it. What the net itself never calls is an auxiliary head.
        parameters = module.named_parameters(recurse=module is not model)
        new = {key: parameter.numel() for key, parameter in parameters if parameter not in counted}
        if not (leaf or new or macs):
            return
        counted.update(module.parameters(recurse=module is not model))
        biases = sum(new.pop(key) for key in list(new) if key.endswith("bias"))
        result, seen = _first(output), origin(_first(output))
        rows.append(
            Layer(name, type(module).__name__, tuple(_first(inputs).shape[1:]), tuple(result.shape[1:]),
                  sum(new.values()), biases, macs, seen.receptive_field if seen else 0, seen.depth if seen else 0,
                  _kernel(module))  # fmt: skip
        )

    trace = Trace(on_macs)
    hooks = [model.register_forward_pre_hook(lambda module, inputs: trace.begin(inputs[0]))]
    for name, module in model.named_modules():
        leaf = next(module.children(), None) is None
        hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(partial(end, name, leaf))]
    try:
        with trace:
            run_on_meta(model, image_size or model.image_size, in_channels)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _first(values: Any) -> Tensor:
    return next(tensors([values]))


def _kernel(module: nn.Module) -> str:
    """`11x11/4` for a kernel with a stride of 4, `3x3, 2 groups` for a convolution in two."""
    kernel, stride, groups = (getattr(module, key, None) for key in ("kernel_size", "stride", "groups"))
    kernel = kernel or getattr(module, "kernel", None)
    if not kernel or isinstance(kernel, nn.Module):
        return ""
    sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    step = stride if isinstance(stride, int) else max(stride or [1])
    text = "x".join(map(str, sides)) + (f"/{step}" if step > 1 else "")
    return f"{text}, {groups} groups" if groups and groups > 1 else text
