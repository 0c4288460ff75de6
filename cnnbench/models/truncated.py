"""Net cut behind one of its stages, with a linear classifier on the features there ("deep features").

The maps of the stage are averaged over a grid of at most 8 x 8 cells, as fine as MAX_FEATURES allows, so that a little
of where something is remains. The cut is torchvision's feature extraction: the same modules under the same names.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx.proxy import TraceError
from torch.nn import functional as F

from cnnbench.models.layers import WEIGHTED, Linear, Net, normal, run_on_meta
from cnnbench.utils.errors import UserError

MAX_FEATURES = 4096
FINEST = 8


class Truncated(Net):
    """Stages of `net` up to `cut`, then `head`: (N, in_channels, H, W) -> (N, num_classes)."""

    def __init__(self, net: Net, cut: str, num_classes: int) -> None:
        super().__init__()
        self.name, self.image_size, self.map_dims = net.name, net.image_size, net.map_dims
        names = list(net.stages)
        self._kept = {name: net.stages[name] for name in names[: names.index(cut) + 1]}
        self.side, count = grids(net)[cut]
        self.body = extractor(net, {name: modules[-1] for name, modules in self._kept.items()})
        # The body calls only layers. What a stage as a whole gives, as a block's sum, has no module that a hook could
        # be put on, so it passes through one of its own.
        self.ends = nn.ModuleList(nn.Identity() for _ in self._kept)
        self.head = Linear(count, num_classes)
        normal(self.head, std=0.01)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        ends = zip(self._kept.items(), self.ends, strict=True)
        return {**{name: [*modules, end] for (name, modules), end in ends}, "head": [self.head]}

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        last = [end(found[name]) for name, end in zip(self._kept, self.ends, strict=True)][-1]
        logits: Tensor = self.head(pooled(last, self.side, self.map_dims))
        return logits


def extractor(net: Net, lasts: Mapping[str, nn.Module], leaves: Sequence[type[nn.Module]] = WEIGHTED) -> nn.Module:
    """Part of the net up to and including these modules; returns the output of each by its key.

    leaves: kinds of modules that stay whole, as they are; of all others only the layers inside remain.
    """
    from torchvision.models.feature_extraction import create_feature_extractor  # only here: it takes seconds

    for name in net.auxiliary:  # torchvision's: the tracer cannot follow the condition on them
        setattr(net, name, None)
        vars(net)["aux_logits"] = False
    names = {module: name for name, module in net.named_modules()}
    nodes = {names[module]: key for key, module in lasts.items()}
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on dropout: the graphs of train and eval mode differ
                return create_feature_extractor(net.eval(), nodes, tracer_kwargs={"leaf_modules": list(leaves)})
        except TraceError as error:
            why = str(error).splitlines()[0]
            raise UserError(f"{net.name} cannot be cut: torch.fx does not follow its forward ({why})") from None
        except ValueError as error:  # the tracer sees the sequence that ends with the module as one node
            node = next((node for node in nodes if f"'{node}'" in str(error)), "")
            outer, _, _ = node.rpartition(".")
            if not outer:
                raise
            nodes[outer] = nodes.pop(node)


def grids(net: Net) -> dict[str, tuple[int, int]]:
    """(Cells along a side, number of features) for each stage before the head.

    Both follow from the maps at the net's native image size; images of another size give as many features.
    """
    found: dict[str, tuple[int, int]] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            side = grid(*channels_first(output, net.map_dims).shape[1:]) if output.ndim == 4 else 1
            found[name] = (side, pooled(output, side, net.map_dims).shape[1])

        return hook

    names = list(net.stages)[:-1]
    handles = [net.stages[name][-1].register_forward_hook(look(name)) for name in names]
    try:
        run_on_meta(net, net.image_size)
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names}


def grid(channels: int, height: int, width: int) -> int:
    """Number of cells along a side: the largest power of two that the map and MAX_FEATURES allow."""
    side = FINEST
    while side > 1 and (side > min(height, width) or channels * side * side > MAX_FEATURES):
        side //= 2
    return side


def pooled(features: Tensor, side: int, map_dims: tuple[int, int]) -> Tensor:
    """Features (N, D) of a stage's output: maps averaged over side x side cells, tokens (N, T, C) over all."""
    if features.ndim == 3:
        return features.mean(1)
    if features.ndim == 4:
        features = F.adaptive_avg_pool2d(channels_first(features, map_dims), side)
    return features.flatten(1)


def channels_first(maps: Tensor, map_dims: tuple[int, int]) -> Tensor:
    return maps if map_dims == (2, 3) else maps.permute(0, 3, 1, 2)
