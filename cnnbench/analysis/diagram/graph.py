"""Graph of the layers of a net, traced by running the net on shapes.

Each tensor remembers the layers that it came from. An addition or a concatenation of tensors from different layers is a
join of branches. Layers without weighted sums that move no pixels (activations, normalisation, dropout) are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnbench.analysis.complexity import Layer, layer_complexity
from cnnbench.analysis.receptive_field import Trace, tensors
from cnnbench.analysis.summary import POOLS, is_identity_pool, layer_kind
from cnnbench.models.layers import Net
from cnnbench.models.meta_kernels import pair

aten = torch.ops.aten
JOINS = {aten.add: "add", aten.add_: "add", aten.mul: "multiply", aten.mul_: "multiply", aten.cat: "concat",
         aten.stack: "concat"}  # fmt: skip
CALLED = {aten.max_pool2d_with_indices: "max pool", aten.avg_pool2d: "average pool",
          aten._adaptive_avg_pool2d: "average pool", aten.mean: "average pool"}  # fmt: skip
Sources = tuple[int, ...]


@dataclass(eq=False)
class Node:
    """The image, a layer, a pool that the net calls as a function, or a join of branches.

    sources: numbers of the nodes that give its input; stage, head: the stage and the auxiliary head that it is in, or
    "". Shapes are without the batch, with the channels first.
    """

    number: int
    kind: str
    shape: tuple[int, ...]
    sources: Sources
    layer: Layer | None = None
    kernel: str = ""
    stage: str = ""
    head: str = ""
    targets: list[int] = field(default_factory=list)

    @property
    def joins(self) -> bool:
        return self.kind in JOINS.values()

    @property
    def name(self) -> str:
        return self.layer.name if self.layer else self.kind


class _GraphTrace(Trace):
    """Gives each tensor that depends on the image the numbers of its source nodes; collects the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.inside = False  # within a leaf module: its operations do not matter
        self.begun: list[int] = []  # stack: number of nodes when each running module began

    def begin(self, image: Tensor) -> None:
        super().begin(image)
        self._add("image", image, ())

    def enter(self, leaf: bool) -> None:
        self.inside = leaf
        self.begun.append(len(self.nodes))

    def leave(self, leaf: bool, row: Layer | None, inputs: Any, output: Any) -> None:
        self.inside = False
        own = self.begun.pop() == len(
            self.nodes
        )  # no node came from its children, as in attention, which does not call them
        if row:
            sources = _sources(tensors([inputs]) if own else tensors([output]))
            if sources:  # none: computed from weights alone
                node = self._add(layer_kind(row), output, sources)
                node.layer, node.kernel = row, row.kernel

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        came_from = [] if self.inside else [s for x in tensors(args) if (s := getattr(x, "_sources", None))]
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if not came_from:
            return output
        if len(set(came_from)) > 1 and func.overloadpacket in JOINS:
            self._add(JOINS[func.overloadpacket], output, _together(came_from))
        elif pool := _called(func, args):
            self._add(pool, output, came_from[0]).kernel = _slides(func, args)
        else:
            _mark(output, _together(came_from))
        return output

    def _add(self, kind: str, output: Any, sources: Sources) -> Node:
        node = Node(len(self.nodes), kind, tuple(next(tensors([output])).shape[1:]), sources)
        self.nodes.append(node)
        _mark(output, (node.number,))
        return node


def _together(sources: Iterable[Sources]) -> Sources:
    return tuple(dict.fromkeys(number for group in sources for number in group))


def _called(func: Any, args: tuple) -> str | None:
    """Kind of pool of an operation, or None. A mean over all positions of maps is an average pool."""
    if func.overloadpacket is aten.mean and not (args[0].dim() == 4 and len(args) > 1 and len(args[1] or ()) == 2):
        return None
    return CALLED.get(func.overloadpacket)


def _slides(func: Any, args: tuple) -> str:
    """Kernel of a pool that is called as a function, written as the kernel of a layer."""
    if func.overloadpacket not in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        return ""
    kernel = pair(args[1])
    stride = max(pair(list(args[2]) if len(args) > 2 else [], kernel[0]))
    return f"{kernel[0]}x{kernel[1]}" + (f"/{stride}" if stride > 1 else "")


def _mark(output: Any, sources: Sources) -> None:
    for result in tensors([output]):
        result._sources = sources  # type: ignore[attr-defined]


def _sources(values: Iterable[Tensor]) -> Sources:
    return _together(getattr(x, "_sources", ()) for x in values)


def trace_graph(net: Net, image_size: int, in_channels: int) -> list[Node]:
    """Nodes that a drawing shows, in the order in which they run, with those of the auxiliary heads.

    The first node is the image. The number of a node is its index in the list.
    """
    traced = _GraphTrace()
    layer_complexity(net, image_size, in_channels, traced, auxiliary=bool(net.auxiliary))
    names = {module: name for name, module in net.named_modules()}
    heads = {names[head]: key for key, head in net.auxiliary.items()}
    stages = {names[part]: stage for stage, parts in net.stages.items() for part in parts if part in names}
    nodes = _visible(traced.nodes)
    for node in nodes:
        if node.layer:
            node.stage, node.head = _above(node.name, stages), _above(node.name, heads)
        if len(node.shape) == 3 and _channels_last(node, net):
            node.shape = (node.shape[2], *node.shape[:2])
    _inherit(nodes)
    return _used(nodes)


def _channels_last(node: Node, net: Net) -> bool:
    """Whether the maps of a node are rows x columns x channels, as linear layers take them."""
    return node.kind == "fc" or (net.map_dims == (1, 2) and node.kind not in ("image", "conv", *POOLS))


def _inherit(nodes: list[Node]) -> None:
    """Give nodes without a module the stage and head of the node before, or the only auxiliary head that uses them."""
    by_number = {node.number: node for node in nodes}
    for node in nodes:
        if not node.layer and node.sources:
            before = by_number[max(node.sources)]
            node.stage, node.head = before.stage, before.head
    takers: dict[int, set[str]] = {}
    for node in reversed(nodes):
        heads = takers.get(node.number, set())
        if not node.layer and len(heads) == 1:
            (node.head,) = heads
        for source in node.sources:
            takers.setdefault(source, set()).add(node.head)


def _above(name: str, owners: dict[str, str]) -> str:
    """Owner of the module `name` or of its nearest parent that has one; ""."""
    while name not in owners and name:
        name = name.rpartition(".")[0]
    return owners.get(name, "")


def _shown(node: Node) -> bool:
    row = node.layer
    if row is None or node.kind == "zero pad" or row.macs:
        return True
    return node.kind in POOLS and not is_identity_pool(row)


def _visible(nodes: list[Node]) -> list[Node]:
    """Nodes that are shown. Hidden nodes, and joins left with one source, are replaced by their sources."""
    standing: dict[int, Sources] = {}
    for node in nodes:
        node.sources = tuple(dict.fromkeys(number for source in node.sources for number in standing[source]))
        stands = len(node.sources) > 1 if node.joins else _shown(node)
        standing[node.number] = (node.number,) if stands else node.sources
    return [node for node in nodes if standing[node.number] == (node.number,)]


def _used(nodes: list[Node]) -> list[Node]:
    """Nodes that lead to the logits or belong to an auxiliary head, renumbered."""
    by_number = {node.number: node for node in nodes}
    last = [node for node in nodes if not node.head][-1]
    wanted, todo = set(), [last.number, *(node.number for node in nodes if node.head)]
    while todo:
        number = todo.pop()
        if number not in wanted:
            wanted.add(number)
            todo += by_number[number].sources
    kept = [node for node in nodes if node.number in wanted]
    places = {node.number: place for place, node in enumerate(kept)}
    for node in kept:
        node.number, node.sources = places[node.number], tuple(places[source] for source in node.sources)
        for source in node.sources:
            kept[source].targets.append(node.number)
    return kept
