"""Where each tensor of a net comes from: what its units see of the image, and through how many weight layers.

The receptive field is the textbook recursion, carried from operation to operation: the unit at place i of a map sees
the pixels from low + i * step to high + i * step of the image, the padding included, and where branches meet, the hull
of what they see. For a convolutional net that is exact. What mixes all places of a map (a fully connected layer, a
global pool) sees what they see together; attention sees at least the whole image.
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
# Matrix products by the positions of their two factors.
PRODUCTS = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2)}
VIEWS = (aten.view, aten._unsafe_view, aten.reshape)


class Axis(NamedTuple):
    """Of the unit at place i: it sees the pixels from low + i * step to high + i * step."""

    low: int
    high: int
    step: int

    def window(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> "Axis":
        """After a window that slides over this axis."""
        low = self.low - padding * self.step
        return Axis(low, low + self.high - self.low + (kernel - 1) * dilation * self.step, self.step * stride)

    def join(self, other: "Axis") -> "Axis":
        return Axis(min(self.low, other.low), max(self.high, other.high), max(self.step, other.step))

    def all(self, places: int) -> "Axis":
        """After something that mixes all places."""
        return Axis(self.low, self.high + (places - 1) * self.step, 0)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor came from: what its units see of the image, down and across, and how many weight layers deep."""

    rows: Axis
    columns: Axis
    depth: int = 0

    @property
    def receptive_field(self) -> int:
        """Side in pixels, the longer one."""
        return max(axis.high - axis.low + 1 for axis in (self.rows, self.columns))


class Trace(Shapes):
    """Gives each tensor that depends on `image` an Origin, and each operation's multiply-adds to `on_macs`.

    Who runs the net under it says when modules begin and end, which a kind of Trace may listen to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_macs: Callable[[int], None] = lambda macs: None
        self.image: Origin | None = None

    def enter(self, leaf: bool) -> None:
        """A module begins to run; a leaf holds no others."""

    def leave(self, leaf: bool, row: Any, inputs: Any, output: Any) -> None:
        """It has run; `row` is what there is to say of it as a layer, or None."""

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
            weighted = len(origins) < len(sources)  # a factor that does not depend on the image is a weight
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
    """Those in arguments or outputs, however nested."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def multiply_adds(func: Any, args: tuple, output: Tensor) -> int:
    """Of one operation: convolutions and matrix products count, everything else is nothing."""
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
    """Bins of equal size are an ordinary pool. Unequal ones overlap somehow: then as if each saw everything."""
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
    """Maps laid out as one vector: each of its numbers may now meet every other."""
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
