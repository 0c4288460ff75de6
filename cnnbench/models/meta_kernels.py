"""Operations on meta tensors computed from shapes alone: nothing is drawn, computed or stored.

torch's own meta kernels are Python, and some import its compiler first: seconds for a net that takes a tenth of a
second here. Unusual and wrong calls are left to torch and its errors.
"""

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnnbench.utils import fast_start

aten = torch.ops.aten
STORAGE = {"pin_memory", "device", "layout", "memory_format"}  # keywords that do not change the shape
IN_PLACE = (aten.normal_.default, aten.uniform_.default, aten.fill_.Scalar, aten.zero_.default, aten.erfinv_.default,
            aten.clamp_.default, aten.relu_.default)  # fmt: skip
ELEMENTWISE = (aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.pow.Tensor_Scalar)


class Shapes(TorchDispatchMode):
    """Makes building and running nets on the meta device quick, while entered.

    Garbage collection waits: a deep net makes so many small objects that to search them takes half of the time.
    """

    def __enter__(self) -> Self:
        self._quick = fast_start.enabled()
        self._collects = gc.isenabled()
        if self._quick:
            gc.disable()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._collects:
            gc.enable()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return not fast_start.enabled()  # torch would import its compiler only to keep it away from this class

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        answer = _ANSWERS.get(func) if self._quick else None
        output = answer(*args) if answer and _on_meta(args[0]) and STORAGE.issuperset(kwargs or ()) else None
        return func(*args, **(kwargs or {})) if output is None else output


def _on_meta(value: Tensor | list[Tensor]) -> bool:
    return value.is_meta if isinstance(value, Tensor) else all(x.is_meta for x in value)


def pair(value: Any, default: Any = 1) -> tuple[int, int]:
    """(Rows, columns) of an argument that may be missing, one number, or longer, with the depth first."""
    value = default if value is None or value == [] else value
    return (value, value) if isinstance(value, int) else (value[-2 % len(value)], value[-1])


def _slid(side: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Positions of a window along a side. Rounded up, the last one must begin inside the map or its left padding."""
    room = side + 2 * padding - dilation * (kernel - 1) - 1
    places = (-(-room // stride) if ceil else room // stride) + 1
    return places - 1 if ceil and (places - 1) * stride >= side + padding else places


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")  # new_empty() is slow too


def _maps(x: Tensor, channels: int, sizes: Sequence[int]) -> Tensor | None:
    return _empty(x, (x.shape[0], channels, *sizes)) if min(sizes) > 0 else None


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int],
                 dilation: list[int], transposed: bool, _: list[int], groups: int) -> Tensor | None:  # fmt: skip
    if transposed or x.dim() != weight.dim() or x.shape[1] != weight.shape[1] * groups:
        return None
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return _maps(x, weight.shape[0], [_slid(*side) for side in sides])


def _pool(x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
          ceil: bool = False) -> Tensor | None:  # fmt: skip
    arguments = pair(kernel), pair(list(stride), kernel), pair(padding), pair(dilation)
    sizes = [_slid(*side, ceil) for side in zip(x.shape[-2:], *arguments, strict=True)]
    return _maps(x, x.shape[1], sizes) if x.dim() == 4 else None


def _max_pool(*args: Any) -> tuple[Tensor, Tensor] | None:
    output = _pool(*args)
    return None if output is None else (output, torch.empty(output.shape, dtype=torch.long, device="meta"))


def _average_pool(x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
                  *rest: Any) -> Tensor | None:  # fmt: skip
    return _pool(x, kernel, stride, padding, 1, ceil)


def _average_over_channels(x: Tensor, kernel: list[int], stride: list[int], *rest: Any) -> Tensor | None:
    """Average pool of a local response norm, along the channels of N x 1 x channels x height x width."""
    if x.dim() != 5 or kernel[1:] != [1, 1] or stride not in ([], [1], [1, 1, 1]) or any(rest[:1] and rest[0]):
        return None
    return _empty(x, (*x.shape[:2], x.shape[2] - kernel[0] + 1, *x.shape[3:]))


def _adaptive_pool(x: Tensor, size: list[int]) -> Tensor | None:
    return _empty(x, (*x.shape[:-2], *size))


def _unfold(x: Tensor, kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]) -> Tensor | None:
    sizes = [_slid(*side) for side in zip(x.shape[-2:], kernel, stride, padding, dilation, strict=True)]
    return _maps(x, x.shape[1] * math.prod(kernel), [math.prod(sizes)]) if min(sizes) > 0 else None


def _product(a: Tensor, b: Tensor) -> Tensor | None:
    fits = a.dim() == b.dim() and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return _empty(a, (*a.shape[:-1], b.shape[-1])) if fits else None


def _affine(bias: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    return _product(a, b)


def _concatenation(parts: list[Tensor], dim: int = 0) -> Tensor | None:
    rests = {(*part.shape[:dim], *part.shape[dim:][1:]) for part in parts}
    if dim < 0 or len(rests) > 1:
        return None
    first = parts[0].shape
    return _empty(parts[0], (*first[:dim], sum(part.shape[dim] for part in parts), *first[dim + 1 :]))


def _mean(x: Tensor, dims: list[int] | None, keepdim: bool = False) -> Tensor | None:
    if not dims:
        return None
    reduced = {dim % x.dim() for dim in dims}
    kept = [1 if dim in reduced else side for dim, side in enumerate(x.shape) if keepdim or dim not in reduced]
    return _empty(x, kept)


def _pad(x: Tensor, padding: list[int], value: float = 0) -> Tensor | None:
    shape = list(x.shape)
    for dim, sides in enumerate(zip(padding[::2], padding[1::2], strict=True), start=1):
        shape[-dim] += sum(sides)
    return _empty(x, shape) if min(shape) > 0 else None


def _batch_norm(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _same(x), _empty(x, (0,)), _empty(x, (0,))


def _same(x: Tensor, *rest: Any) -> Tensor:
    return _empty(x, x.shape)


def _elementwise(x: Tensor, other: Any) -> Tensor | None:
    if isinstance(other, Tensor):
        return _same(x) if x.shape[x.dim() - other.dim() :] == other.shape else None
    return _same(x) if x.is_floating_point() else None


def _itself(x: Tensor, *rest: Any) -> Tensor:
    return x


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.avg_pool3d.default: _average_over_channels,
    aten._adaptive_avg_pool2d.default: _adaptive_pool,
    aten.im2col.default: _unfold,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _affine,
    aten.cat.default: _concatenation,
    aten.mean.dim: _mean,
    aten.constant_pad_nd.default: _pad,
    aten.native_batch_norm.default: _batch_norm,
    aten.relu.default: _same,
    aten.empty_like.default: _same,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(IN_PLACE, _itself),
}
