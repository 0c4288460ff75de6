"""Receptive field and depth of each tensor of a net, traced through its operations.

The receptive field follows the textbook recursion: the unit at position i of a map sees the pixels from low + i * step
to high + i * step of the image, padding included; where branches meet, it is the hull of their receptive fields. For
convolutional nets this is exact. After an operation that mixes all positions (fully connected layer, global pool) it is
the hull over all positions; after attention it is at least the whole image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnbench.models.meta_kernels import Shapes, pair

aten = torch.ops.aten
CONVOLUTION = aten.convolution.default
# Matrix products, with the positions of their two factors among the arguments.
PRODUCTS = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2)}
VIEWS = (aten.view, aten._unsafe_view, aten.reshape)


class Axis(NamedTuple):
    """Receptive field along one axis: the unit at position i sees the pixels low + i * step to high + i * step."""

    low: int
    high: int
    step: int

    def window(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> "Axis":
        """Axis after a sliding window: convolution or pooling."""
        low = self.low - padding * self.step
        return Axis(low, low + self.high - self.low + (kernel - 1) * dilation * self.step, self.step * stride)

    def join(self, other: "Axis") -> "Axis":
        return Axis(min(self.low, other.low), max(self.high, other.high), max(self.step, other.step))

    def all(self, positions: int) -> "Axis":
        """Axis after an operation that mixes all positions."""
        return Axis(self.low, self.high + (positions - 1) * self.step, 0)


@dataclass(frozen=True, slots=True)
class Origin:
    """Receptive field of a tensor, down and across, and its depth in weight layers."""

    rows: Axis
    columns: Axis
    depth: int = 0

    @property
    def receptive_field(self) -> int:
        """Longer side of the receptive field, in pixels."""
        return max(axis.high - axis.low + 1 for axis in (self.rows, self.columns))


class Trace(Shapes):
    """Dispatch mode that gives an Origin to each tensor that depends on the image, and multiply-adds to `on_macs`.

    Its user calls `begin` with the image, and `enter` and `leave` around each module; subclasses may override them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_macs: Callable[[int], None] = lambda macs: None
        self.image: Origin | None = None

    def enter(self, leaf: bool) -> None:
        """Called before a module runs. leaf: it has no children."""

    def leave(self, leaf: bool, row: Any, inputs: Any, output: Any) -> None:
        """Called after a module has run. row: its Layer, or None if it is not counted."""

    def begin(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        self.image = Origin(Axis(0, height - 1, 0), Axis(0, width - 1, 0))
        image._origin = Origin(Axis(0, 0, 1), Axis(0, 0, 1))  # type: ignore[attr-defined]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        sources = list(tensors(args))
        origins = [known for source in sources if (known := origin(source))]
        if origins:
            outputs = list(tensors([output]))
            weighted = len(origins) < len(sources)  # a factor that does not depend on the image: a weight
            seen = self._after(func, args, origins, outputs[0], weighted)
            for result in outputs:
                result._origin = seen  # type: ignore[attr-defined]
        if func is CONVOLUTION or func.overloadpacket in PRODUCTS or "scaled_dot_product" in func._schema.name:
            self.on_macs(multiply_adds(func, args, next(tensors([output]))))
        return output

    def _after(self, func: Any, args: tuple, origins: list[Origin], output: Tensor, weighted: bool) -> Origin:
        seen = origins[0]
        for other in origins[1:]:
            seen = Origin(seen.rows.join(other.rows), seen.columns.join(other.columns), max(seen.depth, other.depth))
        kind = func.overloadpacket
        if kind in PRODUCTS or "scaled_dot_product" in func._schema.name:
            if weighted:
                return Origin(seen.rows, seen.columns, seen.depth + 1)
            assert self.image is not None
            return Origin(seen.rows.join(self.image.rows), seen.columns.join(self.image.columns), seen.depth)
        if rule := _MOVES.get(kind):
            rows, columns = rule(seen, args, output)
            return Origin(rows, columns, seen.depth + (func is CONVOLUTION))
        return seen


def origin(tensor: Tensor) -> Origin | None:
    return getattr(tensor, "_origin", None)


def tensors(values: Any) -> Iterator[Tensor]:
    """Tensors in arguments or outputs, at any depth of nesting."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)
        elif isinstance(value, dict):
            yield from tensors(value.values())


def multiply_adds(func: Any, args: tuple, output: Tensor) -> int:
    """Multiply-adds of one operation: of a convolution or a matrix product; 0 for any other."""
    kind = func.overloadpacket
    if func is CONVOLUTION:
        x, weight, transposed = args[0], args[1], args[6]
        return (x if transposed else output).numel() * math.prod(weight.shape[1:])
    if kind in PRODUCTS:
        return output.numel() * int(args[PRODUCTS[kind][0]].shape[-1])
    if "scaled_dot_product" in func._schema.name:
        query, key, value = args[:3]
        return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return 0


Moved = tuple[Axis, Axis]


def _slide(seen: Origin, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Moved:
    sides = zip(pair(kernel), pair(stride, kernel), pair(padding), pair(dilation), strict=True)
    rows, columns = (axis.window(*side) for axis, side in zip((seen.rows, seen.columns), sides, strict=True))
    return rows, columns


def _at(args: Sequence, position: int, default: Any) -> Any:
    return args[position] if len(args) > position else default


def _convolved(seen: Origin, args: tuple, output: Tensor) -> Moved:
    return _slide(seen, list(args[1].shape[2:]), *args[3:6])


def _max_pooled(seen: Origin, args: tuple, output: Tensor) -> Moved:
    return _slide(seen, args[1], _at(args, 2, []), _at(args, 3, 0), _at(args, 4, 1))


def _average_pooled(seen: Origin, args: tuple, output: Tensor) -> Moved:
    return _slide(seen, args[1], _at(args, 2, []), _at(args, 3, 0))


def _unfolded(seen: Origin, args: tuple, output: Tensor) -> Moved:
    _, kernel, dilation, padding, stride = args
    return _slide(seen, kernel, stride, padding, dilation)


def _all(seen: Origin, args: tuple, output: Tensor) -> Moved:
    height, width = args[0].shape[-2:]
    return seen.rows.all(height), seen.columns.all(width)


def _adapted(seen: Origin, args: tuple, output: Tensor) -> Moved:
    """Bins of equal size are an ordinary pool. Unequal bins overlap: treated as if each saw all positions."""
    (height, width), (rows, columns) = args[0].shape[-2:], output.shape[-2:]
    if height % rows or width % columns:
        return _all(seen, args, output)
    bins = [height // rows, width // columns]
    return _slide(seen, bins, bins)


def _averaged(seen: Origin, args: tuple, output: Tensor) -> Moved:
    dims = {dim % args[0].dim() for dim in args[1] or range(args[0].dim())}
    both = {args[0].dim() - 2, args[0].dim() - 1} <= dims
    return _all(seen, args, output) if both else (seen.rows, seen.columns)


def _viewed(seen: Origin, args: tuple, output: Tensor) -> Moved:
    """Maps flattened to a vector: the next layer may mix all positions."""
    flat = args[0].dim() >= 4 and output.dim() == 2 and output.shape[0] == args[0].shape[0]
    return _all(seen, args, output) if flat else (seen.rows, seen.columns)


def _sliced(seen: Origin, args: tuple, output: Tensor) -> Moved:
    x, dim, start, step = args[0], _at(args, 1, 0) % args[0].dim(), _at(args, 2, None) or 0, _at(args, 4, 1)
    axes = [seen.rows, seen.columns]
    if x.dim() >= 4 and dim >= x.dim() - 2:
        which = dim - (x.dim() - 2)
        axes[which] = axes[which].window(1, step, -(start % x.shape[dim]))
    return axes[0], axes[1]


def _padded(seen: Origin, args: tuple, output: Tensor) -> Moved:
    left, top = args[1][0], args[1][2] if len(args[1]) > 2 else 0
    return seen.rows.window(1, 1, top), seen.columns.window(1, 1, left)


_MOVES: dict[Any, Callable[[Origin, tuple, Tensor], Moved]] = {
    aten.convolution: _convolved,
    aten.max_pool2d_with_indices: _max_pooled,
    aten.avg_pool2d: _average_pooled,
    aten.avg_pool3d: _average_pooled,
    aten.im2col: _unfolded,
    aten._adaptive_avg_pool2d: _adapted,
    aten.adaptive_max_pool2d: _adapted,
    aten.mean: _averaged,
    aten.slice: _sliced,
    aten.constant_pad_nd: _padded,
    **dict.fromkeys(VIEWS, _viewed),
}
