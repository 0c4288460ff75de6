"""Tensors of a file: which of the dictionaries in it holds the weights, and what others put before every name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnbench.utils.errors import UserError, unknown

USUAL = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
AVERAGE = re.compile(r"(^|[_.])(ema|swa|averaged?)($|[_.\d])", re.IGNORECASE)  # a moving average of the weights
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile
DEPTH = 2  # levels of dictionaries that are searched
SHOWN = 4  # names shown before the rest is only counted
LONG = 100  # characters of a name that are shown


@dataclass(frozen=True)
class Tensors:
    """Weights by name, and notes on what was taken of the file and what was not."""

    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def weights_in(content: Mapping[Any, Any], path: Path, key: str | None = None) -> Tensors:
    """The weights in the content of a file: those that `key` names, else the moving average where there is one.

    key: a dictionary in the file, or what its names begin with. UserError where neither is there.
    """
    found = dict(dictionaries(content))
    if key is not None and key not in found:
        return _beginning_with(found, path, key)
    chosen = _chosen(found, path) if key is None else key
    others = [name for name in found if name != chosen]
    more = f"; also there: {some(others)} (as in weights_key={others[0]})" if others else ""
    notes = [f"weights: '{chosen}' of {path}{more}"] if chosen else []
    if dropped := [str(name) for name, value in found[chosen].items() if not isinstance(value, Tensor)]:
        notes.append(f"not used, since they are no tensors: {some(dropped)}")
    return _unwrapped({str(name): value for name, value in found[chosen].items() if isinstance(value, Tensor)}, notes)


def dictionaries(content: Mapping[Any, Any], name: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Mapping]]:
    """Dictionaries with weights, by their dotted place in the file: "" is the file itself, and then the only one."""
    tensors = [value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)]
    inside = [(key, value) for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)]
    if any(tensor.ndim > 1 for tensor in tensors) or (tensors and not name and not inside):
        yield name, content
    elif depth:
        for key, value in inside:
            yield from dictionaries(value, f"{name}.{key}".lstrip("."), depth - 1)


def _chosen(found: Mapping[str, Any], path: Path) -> str:
    if not found:
        raise UserError(f"{path} holds no weights by name")
    usual = [name for leaf in USUAL for name in found if name.rpartition(".")[2] == leaf]
    likely = [name for name in found if AVERAGE.search(name)] or usual
    if len(found) > 1 and not likely:
        first = next(iter(found))
        raise UserError(
            f"{path} holds several dictionaries of weights: choose, as in weights_key={first}\n"
            f"choices: {', '.join(found)}"
        )
    return (likely or list(found))[0]


def _beginning_with(found: Mapping[str, Any], path: Path, key: str) -> Tensors:
    """Tensors of the file whose names begin with the key, under what follows it."""
    begin, names = f"{key.removesuffix('.')}.", found.get("", {})
    state = {str(name)[len(begin) :]: value for name, value in names.items()
             if str(name).startswith(begin) and isinstance(value, Tensor)}  # fmt: skip
    if state:
        return _unwrapped(state, [f"weights: the {len(state):,} tensors of {path} whose names begin with '{begin}'"])
    choices = [*filter(None, found), *dict.fromkeys(str(name).partition(".")[0] for name in names)]
    raise unknown(f"weights_key for {path}", key, choices)


def _unwrapped(state: dict[str, Tensor], notes: list[str]) -> Tensors:
    """Tensors under their names before training wrapped the net, without the wrapper's own counter beside them."""
    for prefix in WRAPPERS * 2:  # each may lie in the other
        inside = {name: value for name, value in state.items() if name.startswith(prefix)}
        if inside and state.keys() - inside.keys() <= {"n_averaged"}:
            state = {name.removeprefix(prefix): value for name, value in inside.items()}
            notes = [*notes, f"names in the file begin with '{prefix}': taken off"]
    return Tensors(state, notes)


def common_prefix(state: Mapping[str, Tensor], needed: list[str]) -> str:
    """Beginning of the file's names, up to a dot, that takes the net's names to it; "" where there is none.

    needed: the net's names. UserError where several do, so that it is not known which are meant.
    """
    if not needed or not state:
        return ""
    last = needed[0]
    begins = [name.removesuffix(last) for name in state if name.endswith(last)]
    fitting = [begin for begin in begins if begin[-1:] in ("", ".") and all(begin + name in state for name in needed)]
    if "" in fitting or len(fitting) == 1:
        return "" if "" in fitting else fitting[0]
    if fitting:
        keys = [begin.removesuffix(".") for begin in fitting]
        raise UserError(
            f"the file holds this net several times, under {some(keys)}: choose, as in weights_key={keys[0]}"
        )
    first, *_ = {name.partition(".")[0] for name in state}
    shared = all(name.startswith(f"{first}.") for name in state) and not any(n.startswith(f"{first}.") for n in needed)
    return f"{first}." if shared else ""


def some(names: list[str]) -> str:
    """First names of a list, and how many more there are."""
    shown = (name if len(name) <= LONG else f"{name[:LONG]}…" for name in names[:SHOWN])
    return ", ".join(shown) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
