"""Where to look inside a net: its stages and layers by name, the maps they give, what one unit sees of the image."""

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
class Place:
    """A stage or layer of a net. Its output is seen as maps (N, units, rows, columns), vectors as maps of one place."""

    name: str
    module: nn.Module
    shape: tuple[int, int, int]  # units, rows, columns
    rows: Axis  # what the unit at each place sees of the image
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
        """What the unit at this place sees: top, left, bottom, right in pixels, the latter two one past the end. It may
        reach over the edge of the image, where the padding is."""
        (top, bottom), (left, right) = _span(self.rows, row), _span(self.columns, column)
        return top, left, bottom, right


def _span(axis: Axis, place: int) -> tuple[int, int]:
    return axis.low + place * axis.step, axis.high + place * axis.step + 1


def as_maps(output: Tensor, map_dims: tuple[int, int]) -> Tensor:
    """(N, units, rows, columns) from maps, vectors (N, units) or the tokens of a transformer (N, tokens, units)."""
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim == 3:
        return output.transpose(1, 2)[..., None]
    return output if map_dims == (2, 3) else output.permute(0, 3, 1, 2)


def modules(model: Net) -> dict[str, nn.Module]:
    """What can be looked at, by name: the stages, whose output is that of their last module, then every layer. The head
    stands for the logits. What only training uses is left out."""
    aside = {id(part) for head in model.auxiliary.values() for part in head.modules()}
    stages = {name: parts[-1] for name, parts in model.stages.items()}
    layers = {name: part for name, part in model.named_modules() if name and id(part) not in aside}
    return {**layers, **stages, HEAD: model}


def find(model: Net, names: Sequence[str], image_size: int, in_channels: int) -> list[Place]:
    """The places of these names, in the order of the names. UserError for a name that the net does not have."""
    known = modules(model)
    check(model, names)
    traced = _trace(model, {name: known[name] for name in names}, image_size, in_channels)
    return [traced[name] for name in names]


def check(model: Net, names: Sequence[str]) -> None:
    """UserError for a name that the net does not have."""
    known = modules(model)
    for name in names:
        if name not in known:
            raise UserError(
                f"{model.name} has no layer '{name}'.{did_you_mean(name, known)}\n"
                f"its stages: {', '.join(model.stages)}; and the layers that `cnnbench summary layers=all` lists"
            )


def stages(model: Net) -> list[str]:
    """Those before the head, in forward order."""
    return list(model.stages)[:-1]


def _trace(model: Net, wanted: dict[str, nn.Module], image_size: int, in_channels: int) -> dict[str, Place]:
    found: dict[str, Place] = {}
    trace = Trace()

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            result = next(tensors([output]))
            seen = origin(result)
            if seen is None or result.ndim not in (2, 3, 4):
                return
            units, rows, columns = as_maps(result, model.map_dims).shape[1:]
            found[name] = Place(name, module, (units, rows, columns), seen.rows, seen.columns, model.map_dims)

        return hook

    handles = [model.register_forward_pre_hook(lambda module, inputs: trace.begin(inputs[0]))]
    handles += [module.register_forward_hook(look(name)) for name, module in wanted.items()]
    try:
        with trace:
            run_under(model, image_size, in_channels)
    finally:
        for handle in handles:
            handle.remove()
    for name in wanted:
        if name not in found:
            raise UserError(f"{model.name} does not use its layer '{name}' when it looks at an image: choose another")
    return found


class _Enough(Exception):  # noqa: N818 (no error: the rest of the forward pass is not needed)
    pass


@contextmanager
def tapped(model: Net, places: Sequence[Place], *, whole: bool = True) -> Iterator[dict[str, Tensor]]:
    """Inside this block each forward pass fills the dictionary with the maps of each place.

    With whole=False a pass ends, through an exception that `look()` expects, where the last of them is reached.
    """
    found: dict[str, Tensor] = {}

    def keep(place: Place) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[place.name] = place.maps(next(tensors([output])))
            if not whole and len(found) == len(places):
                raise _Enough

        return hook

    handles = [place.module.register_forward_hook(keep(place)) for place in places]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def look(model: Net, images: Tensor, places: Sequence[Place]) -> dict[str, Tensor]:
    """The maps (N, units, rows, columns) of each place for normalised images (N, C, H, W); nothing behind them runs."""
    with tapped(model, places, whole=False) as found, suppress(_Enough):
        model(images)
    return found


def observed(model: Net) -> Net:
    """The net for looking at: in eval mode, its weights fixed, and no layer that overwrites what it was given."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False
    return model.eval().requires_grad_(False)


def bounded_batch(model: Net, image_size: int, in_channels: int, wanted: int, memory: int = 2**28) -> int:
    """So many images, at most `wanted`, that the largest output of any layer stays below `memory` bytes."""
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
    """`units=` as numbers below `count`: one or a list of numbers, or of names where units have such, as classes do.
    None where nothing is asked."""
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
        raise UserError(f"units: {where} has the units 0 to {count - 1}, not {item}")
    what = "class or number" if names else "number"
    raise UserError(f"units: '{item}' is no {what} of a unit of {where}.{did_you_mean(str(item), names)}")


def spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers below `count`, evenly from all of them."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def some(names: list[str], most: int) -> list[str]:
    return [names[index] for index in spread(len(names), most)]
