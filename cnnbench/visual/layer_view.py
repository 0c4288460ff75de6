"""Stages and layers of a net by name: their feature maps, and the part of the image that each unit sees."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.receptive_field import Axis, Trace, origin, tensors
from cnnbench.models.layers import Net, run_on_meta, run_under
from cnnbench.utils.errors import UserError, did_you_mean

HEAD = "head"


@dataclass(frozen=True, eq=False)
class LayerView:
    """Stage or layer of a net, its output seen as maps (N, units, rows, columns), a vector as maps of one position."""

    name: str
    module: nn.Module
    shape: tuple[int, int, int]  # units, rows, columns
    rows: Axis  # receptive fields in the image
    columns: Axis
    map_dims: tuple[int, int] = (2, 3)

    @property
    def units(self) -> int:
        return self.shape[0]

    @property
    def has_maps(self) -> bool:
        return self.shape[1] * self.shape[2] > 1

    def maps(self, output: Tensor) -> Tensor:
        return as_maps(output, self.map_dims)

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Receptive field of the unit at this position: top, left, bottom, right in pixels, the latter two exclusive.
        It may reach beyond the image, into the padding."""
        (top, bottom), (left, right) = _span(self.rows, row), _span(self.columns, column)
        return top, left, bottom, right


def _span(axis: Axis, position: int) -> tuple[int, int]:
    return axis.low + position * axis.step, axis.high + position * axis.step + 1


def as_maps(output: Tensor, map_dims: tuple[int, int]) -> Tensor:
    """Maps (N, units, rows, columns) of an output: maps, vectors (N, units) or tokens (N, tokens, units)."""
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim == 3:
        return output.transpose(1, 2)[..., None]
    return output if map_dims == (2, 3) else output.permute(0, 3, 1, 2)


def viewable_modules(model: Net) -> dict[str, nn.Module]:
    """Modules by the name of their layer or stage: for a stage its last module, for the head, which gives the logits,
    the net. Auxiliary heads are left out."""
    aside = {id(part) for head in model.auxiliary.values() for part in head.modules()}
    stages = {name: parts[-1] for name, parts in model.stages.items()}
    layers = {name: part for name, part in model.named_modules() if name and id(part) not in aside}
    return {**layers, **stages, HEAD: model}


def layer_views(model: Net, names: Sequence[str], image_size: int, in_channels: int) -> list[LayerView]:
    """Views of these layers and stages, in the order of the names. UserError for a name that the net does not have."""
    known = viewable_modules(model)
    check_layer_names(model, names)
    traced = _trace(model, {name: known[name] for name in names}, image_size, in_channels)
    return [traced[name] for name in names]


def check_layer_names(model: Net, names: Sequence[str]) -> None:
    """UserError for a name that the net does not have."""
    known = viewable_modules(model)
    for name in names:
        if name not in known:
            raise UserError(
                f"{model.name} has no layer '{name}'.{did_you_mean(name, known)}\n"
                f"its stages: {', '.join(model.stages)}; and the layers that `cnnbench summary layers=all` lists"
            )


def stage_names(model: Net) -> list[str]:
    """Names of the stages before the head, in forward order."""
    return list(model.stages)[:-1]


def _trace(model: Net, wanted: dict[str, nn.Module], image_size: int, in_channels: int) -> dict[str, LayerView]:
    found: dict[str, LayerView] = {}
    trace = Trace()

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            result = next(tensors([output]))
            seen = origin(result)
            if seen is None or result.ndim not in (2, 3, 4):
                return
            units, rows, columns = as_maps(result, model.map_dims).shape[1:]
            found[name] = LayerView(name, module, (units, rows, columns), seen.rows, seen.columns, model.map_dims)

        return hook

    handles = [model.register_forward_pre_hook(lambda module, inputs: trace.begin(inputs[0]))]
    handles += [module.register_forward_hook(record(name)) for name, module in wanted.items()]
    try:
        with trace:
            run_under(model, image_size, in_channels)
    finally:
        for handle in handles:
            handle.remove()
    for name in wanted:
        if name not in found:
            raise UserError(f"{model.name} does not use its layer '{name}' at inference: choose another")
    return found


class _StopForward(Exception):  # noqa: N818 (no error: the rest of the forward pass is not needed)
    pass


@contextmanager
def captured_maps(model: Net, views: Sequence[LayerView], *, whole: bool = True) -> Iterator[dict[str, Tensor]]:
    """Fill the dictionary with the maps of each view in every forward pass inside this block.

    With whole=False the pass ends at the last of these layers, by an exception that `layer_maps` catches.
    """
    found: dict[str, Tensor] = {}

    def keep(view: LayerView) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[view.name] = view.maps(next(tensors([output])))
            if not whole and len(found) == len(views):
                raise _StopForward

        return hook

    handles = [view.module.register_forward_hook(keep(view)) for view in views]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def layer_maps(model: Net, images: Tensor, views: Sequence[LayerView]) -> dict[str, Tensor]:
    """Maps (N, units, rows, columns) of each view for normalised images (N, C, H, W). Later layers do not run."""
    with captured_maps(model, views, whole=False) as found, suppress(_StopForward):
        model(images)
    return found


def prepare_model(model: Net) -> Net:
    """The net in eval mode, its weights frozen, its in-place layers no longer in place: hooks see their inputs."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False
    return model.eval().requires_grad_(False)


def bounded_batch(model: Net, image_size: int, in_channels: int, wanted: int, memory: int = 2**28) -> int:
    """Batch size, at most `wanted`, for which the largest output of any layer stays below `memory` bytes."""
    largest = 1

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max([largest, *(tensor.numel() for tensor in tensors([output]))])

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        run_on_meta(model, image_size, in_channels)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, min(wanted, memory // (4 * largest)))


def choose_units(asked: Any, count: int, where: str, names: Sequence[str] = ()) -> list[int] | None:
    """Unit numbers that `units=` asks for, below `count`; units of the head also by `names`, the classes. None where
    `units=` is null. UserError for an unknown unit of the layer `where`."""
    if asked is None:
        return None
    items = asked if isinstance(asked, list) else [asked]
    if not items:
        raise UserError("units=[]: give at least one, as in units=[0,5]")
    return [_unit(item, count, where, list(names)) for item in items]


def _unit(item: Any, count: int, where: str, names: list[str]) -> int:
    if str(item) in names:
        return names.index(str(item))
    if isinstance(item, int) or str(item).isdigit():
        if 0 <= int(item) < count:
            return int(item)
        raise UserError(f"units={item}: the units of {where} are numbered 0 to {count - 1}")
    what = "class or number" if names else "number"
    raise UserError(f"units={item}: not a {what} of a unit of {where}.{did_you_mean(str(item), names)}")


def spread_indices(count: int, most: int) -> list[int]:
    """Up to `most` evenly spaced numbers from 0 to `count` - 1."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def spread_names(names: list[str], most: int) -> list[str]:
    return [names[index] for index in spread_indices(len(names), most)]
