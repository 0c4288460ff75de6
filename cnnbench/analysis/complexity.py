"""Parameters, multiply-adds, depth and receptive fields of a net, layer by layer, from shapes alone.

Conventions: parameters are learned numbers, without running statistics. Multiply-adds are those of convolutions and
matrix products for one image, without biases, normalisation, activations and pooling, as papers count "FLOPs".
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from cnnbench.analysis.receptive_field import Trace, origin, tensors
from cnnbench.models.layers import Net, evaluating, run_under

TRAINING_PASSES = 3  # passes in a training step: forward, and backward with the gradients of inputs and of weights


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it ran. Shapes are without the batch; `weights` and `biases` are numbers of parameters.

    receptive_field: side in pixels, padding included (see receptive_field.py); depth: number of weight layers on the
    longest path from the image to the output of this layer, itself included.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    biases: int
    macs: int
    receptive_field: int
    depth: int
    kernel: str

    @property
    def neurons(self) -> int:
        return math.prod(self.output_shape)


@dataclass(frozen=True, slots=True)
class Complexity:
    params: int
    macs: int


def count_complexity(model: Net, image_size: int | None = None, in_channels: int | None = None) -> Complexity:
    """Parameters and multiply-adds of a net at inference, by default at its native image size and channels."""
    rows = layer_complexity(model, image_size, in_channels)
    return Complexity(sum(row.weights + row.biases for row in rows), sum(row.macs for row in rows))


def layer_complexity(
    model: Net, image_size: int | None = None, in_channels: int | None = None, trace: Trace | None = None,
    auxiliary: bool = False,
) -> list[Layer]:  # fmt: skip
    """Layers in the order in which they run. Of a layer that runs twice, the first row has the parameters.

    A module with children has a row if it has parameters or multiply-adds of its own. The net may be on any device,
    the meta device included; its weights do not change. trace: records the run; auxiliary: run the auxiliary heads,
    too.
    """
    trace = trace or Trace()
    rows: list[Layer] = []
    counted: set[nn.Parameter] = set()
    running = [0]  # stack: multiply-adds of each running module, without its children
    names = {module: name for name, module in model.named_modules()}

    def on_macs(macs: int) -> None:
        running[-1] += macs

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is model:
            trace.begin(inputs[0])
            model.training = auxiliary  # the mode of the net alone, which runs the heads; layers stay in eval mode
        trace.enter(not module._modules)
        running.append(0)

    def end(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        macs, leaf = running.pop(), not module._modules
        # Attention uses the weights of a child without calling it. Children that the net does not call are auxiliary
        # heads.
        own = module._parameters if leaf or module is model else dict(module.named_parameters())
        new = {key: p for key, p in own.items() if p is not None and p not in counted}
        counts = (leaf or new or macs) and output is not None  # None: an auxiliary head whose input is too small
        row = _row(names[module], module, inputs, output, new, macs) if counts else None
        if row:
            counted.update(new.values())
            rows.append(row)
        trace.leave(leaf, row, inputs, output)

    # Global hooks: registering one on each of thousands of modules takes longer than the forward pass.
    trace.on_macs = on_macs
    with trace, _hooked(begin, end):
        _run(model, image_size or model.image_size, in_channels)
    return rows


@contextmanager
def _hooked(begin: Callable[..., None], end: Callable[..., None]) -> Iterator[None]:
    hooks = register_module_forward_pre_hook(begin), register_module_forward_hook(end)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run(model: Net, image_size: int, in_channels: int | None) -> None:
    """Run the net on meta tensors; a net on the meta device runs as it is, without a copy of its parameters."""
    if in_channels is None or not next(model.parameters()).is_meta:
        return run_under(model, image_size, in_channels)
    with torch.no_grad(), evaluating(model):
        model(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    return None


def _kind(module: nn.Module) -> str:
    """Class name of the layer of torch.nn that the module is or derives from; else its own class name."""
    names = [kind.__name__ for kind in type(module).__mro__[:-1] if kind is not nn.Module]
    return next((name for name in names if hasattr(nn, name)), names[0])


def _row(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any, parameters: dict[str, nn.Parameter],
         macs: int) -> Layer:  # fmt: skip
    result = _first(output)
    seen = origin(result)
    biases = sum(p.numel() for key, p in parameters.items() if key.endswith("bias"))
    return Layer(
        name=name,
        kind=_kind(module),
        input_shape=tuple(_first(inputs).shape[1:]),
        output_shape=tuple(result.shape[1:]),
        weights=sum(p.numel() for p in parameters.values()) - biases,
        biases=biases,
        macs=macs,
        receptive_field=seen.receptive_field if seen else 0,
        depth=seen.depth if seen else 0,
        kernel=_kernel(module),
    )


def _first(values: Any) -> Tensor:
    return next(tensors([values]))


def _kernel(module: nn.Module) -> str:
    """Kernel in words: `11x11/4` with a stride of 4, `3x3, 2 groups` for a grouped convolution."""
    kernel, stride, groups = (getattr(module, key, None) for key in ("kernel_size", "stride", "groups"))
    kernel = kernel or getattr(module, "kernel", None)
    if not kernel or isinstance(kernel, nn.Module):
        return ""
    sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    step = stride if isinstance(stride, int) else max(stride or [1])
    text = "x".join(map(str, sides)) + (f"/{step}" if step > 1 else "")
    return f"{text}, {groups} groups" if groups and groups > 1 else text
