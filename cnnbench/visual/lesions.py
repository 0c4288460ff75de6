"""`what=lesions`: the error of a net without each of its blocks, and with each two neighbours swapped.

Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", 2016. A residual
block is left out by zeroing its last BatchNorm: what remains is its shortcut, where the shape stays the identity. A
plain block is skipped; zeroed, it gives zeros to all that follows.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from cnnbench.data import in_classes_of
from cnnbench.models.layers import Net
from cnnbench.models.stochastic_depth import Residual
from cnnbench.output.figure import BLUE, VERMILLION, new_figure, save_figure
from cnnbench.tasks.measurement import progress
from cnnbench.tasks.passes import predictions
from cnnbench.utils.errors import UserError
from cnnbench.utils.statistics import newcombe
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.numbers import write_numbers

Norm = nn.modules.batchnorm._BatchNorm
Change = Callable[[], AbstractContextManager[None]]
COLORS = {"left out": VERMILLION, "zeroed": "#767676", "swapped with the next": BLUE}


@dataclass(frozen=True)
class Lesion:
    """The net's error with one change, and the 95 % interval of what it is more than the whole net's, all in percent.

    keeps_shape: whether the block's output has the shape of its input.
    """

    block: str
    change: str
    keeps_shape: bool
    error: float
    low: float
    high: float


def blocks_of(net: Net, size: int, channels: int) -> dict[str, tuple[Residual, bool]]:
    """Blocks by name, residual or plain, in their order, and whether each keeps the shape of its input."""
    found: dict[str, tuple[Residual, bool]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda block, inputs, output: found.update({name: (block, inputs[0].shape == output.shape)})

    named = [(name, module) for name, module in net.named_modules() if isinstance(module, Residual)]
    handles = [module.register_forward_hook(note(name)) for name, module in named]
    try:
        with torch.no_grad():
            first = next(net.parameters())
            net.eval()(torch.zeros(1, channels, size, size, device=first.device))
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def zeroed(block: nn.Module) -> Iterator[None]:
    """The last BatchNorm of the block gives zeros inside."""
    norm = [module for name, module in block.named_modules() if isinstance(module, Norm) and "downsample" not in name][
        -1
    ]
    kept = norm.weight.detach().clone(), norm.bias.detach().clone()
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            norm.weight.copy_(kept[0])
            norm.bias.copy_(kept[1])


@contextmanager
def skipped(block: nn.Module) -> Iterator[None]:
    """The block gives what it is given inside."""
    handle = block.register_forward_hook(lambda module, inputs, output: inputs[0])
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def swapped(net: Net, first: str, second: str) -> Iterator[None]:
    """Two blocks stand in each other's place inside."""

    def exchange() -> None:
        for one, other in ((first, net.get_submodule(second)), (second, net.get_submodule(first))):
            changes.append((one, other))
        for name, module in changes:
            outer, _, inner = name.rpartition(".")
            setattr(net.get_submodule(outer), inner, module)
        changes.clear()

    changes: list[tuple[str, nn.Module]] = []
    exchange()
    try:
        yield
    finally:
        exchange()


def changes_of(net: Net, blocks: dict[str, tuple[Residual, bool]]) -> Iterator[tuple[str, str, bool, Change]]:
    """(Block, change, whether it keeps the shape, context in which the net is changed) for all that can be changed."""
    names = list(blocks)
    for name, (block, keeps) in blocks.items():
        if block.has_shortcut:
            yield name, "left out", keeps, partial(zeroed, block)
            continue
        yield name, "zeroed", keeps, partial(zeroed, block)
        if keeps:
            yield name, "left out", keeps, partial(skipped, block)
    for one, other in pairwise(names):
        if blocks[one][1] and blocks[other][1] and one.rpartition(".")[0] == other.rpartition(".")[0]:
            yield one, "swapped with the next", True, partial(swapped, net, one, other)


def wrong(context: VisualizeContext) -> np.ndarray:
    """Whether the net errs on each of the searched images: (N,)."""
    parts = []
    for batch, _, logits in predictions(
        context.model, context.batches(context.searched), context.runtime, context.normalize
    ):
        parts.append(logits.argmax(1).cpu() != batch["target"].cpu())
    return torch.cat(parts).numpy()


def compared(whole: np.ndarray, changed: np.ndarray) -> tuple[float, float, float]:
    """Error with the change, and the interval of the difference."""
    first, second = int((whole & ~changed).sum()), int((changed & ~whole).sum())
    low, high = newcombe(first, second, int((whole & changed).sum()), len(whole))
    return 100 * float(changed.mean()), low, high


def draw_lesions(context: VisualizeContext) -> Iterator[Picture]:
    context.check_channels()
    in_classes_of(context.dataset, context.classes, context.source)  # refuses data with other classes
    blocks = blocks_of(context.model, context.size, context.channels)
    if not blocks:
        raise UserError(f"what=lesions leaves out blocks, which {context.title} has not: take a resnet or a plain net")
    changes, whole = list(changes_of(context.model, blocks)), wrong(context)
    found = []
    with progress(len(changes), "lesions") as advance:
        for name, change, keeps, changed in changes:
            with changed():
                found.append(Lesion(name, change, keeps, *compared(whole, wrong(context))))
            advance(1)
    error = 100 * float(whole.mean())
    picture = context.new_picture("lesions", "lesions", "", caption(found))
    write_numbers(context, picture, facts(context, error, len(whole), found))
    about = f"{context.title} on {context.data_name}, n = {len(whole):,}"
    yield replace(picture, title=draw(found, error, picture, about))


def facts(context: VisualizeContext, error: float, n: int, found: list[Lesion]) -> dict[str, Any]:
    about = {"model": context.title, "weights": context.source, "data": context.data_name, "split": context.split}
    return {**about, "n": n, "seed": context.cfg.seed, "precision": context.runtime.precision, "top1_error": error,
            "lesions": [asdict(one) for one in found]}  # fmt: skip


def caption(found: list[Lesion]) -> str:
    """The ranges of the errors in words."""
    kinds: dict[str, list[float]] = {}
    for one in found:
        where = one.change if one.keeps_shape else f"{one.change} where the shape changes"
        kinds.setdefault(where, []).append(one.error)
    return "Top-1 error: " + "; ".join(f"{kind}, {min(e):.2f} to {max(e):.2f} %" for kind, e in kinds.items()) + "."


def draw(found: list[Lesion], error: float, picture: Picture, about: str) -> str:
    title = f"{about}: error of the whole net {error:.2f} %, and with one change"
    names = list(dict.fromkeys(one.block for one in found))
    kinds = list(dict.fromkeys(one.change for one in found))
    figure = new_figure(max(7, 1 + 0.8 * len(names)), 4, title)
    ax, wide = figure.subplots(), 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        some = [one for one in found if one.change == kind]
        at = [names.index(one.block) + (place - (len(kinds) - 1) / 2) * wide for one in some]
        ax.bar(at, [one.error for one in some], wide, color=COLORS[kind], label=kind)
        spread = [[one.error - error - one.low for one in some], [one.high - one.error + error for one in some]]
        ax.errorbar(at, [one.error for one in some], yerr=np.abs(spread), fmt="none", ecolor="black", linewidth=0.8)
    ax.axhline(error, color="black", linewidth=1, linestyle="--")
    shapes = {one.block: one.keeps_shape for one in found}
    ax.set_xticks(range(len(names)), [name if shapes[name] else f"{name}\nother shape" for name in names], fontsize=8)
    ax.set(ylabel="top-1 error, %", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, picture.path)
    return title
