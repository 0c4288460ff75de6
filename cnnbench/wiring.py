"""How the layers of a net are wired, found by running it on shapes: what a drawing of it follows.

Each tensor remembers the layers that it came from, so nothing is read from the net's code: an addition or a
concatenation of tensors from different places is where ways meet, and what holds no weighted sums and moves no pixels
(activations, normalisation, dropout) is no part of the picture.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnbench.complexity import Layer, layers
from cnnbench.models.layers import Net
from cnnbench.summaries import POOLS, idle, kind
from cnnbench.tracing import Trace, tensors

aten = torch.ops.aten
JOINS = {aten.add: "add", aten.add_: "add", aten.mul: "multiply", aten.mul_: "multiply", aten.cat: "concat",
         aten.stack: "concat"}  # fmt: skip
Sources = tuple[int, ...]


@dataclass(eq=False)
class Node:
    """The image, a layer, or a place where ways meet (`kind` is then "add", "multiply" or "concat").

    `sources` are the numbers of the nodes that it takes its input from, `stage` the stage of the net and `head` the
    auxiliary head that it is in, if any. Shapes are without the batch.
    """

    number: int
    kind: str
    shape: tuple[int, ...]
    sources: Sources
    layer: Layer | None = None
    stage: str = ""
    head: str = ""
    targets: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.layer.name if self.layer else self.kind


class _Wires(Trace):
    """Gives each tensor that depends on the image the numbers of the nodes that it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.inside = False  # a leaf: what it is made of does not matter
        self.begun: list[int] = []  # how many nodes there were when each running module began

    def begin(self, image: Tensor) -> None:
        super().begin(image)
        self._add("image", image, ())

    def enter(self, leaf: bool) -> None:
        self.inside = leaf
        self.begun.append(len(self.nodes))

    def leave(self, leaf: bool, row: Layer | None, inputs: Any, output: Any) -> None:
        self.inside = False
        own = self.begun.pop() == len(self.nodes)  # attention has layers that it does not call: its input is its own
        if row:
            sources = _sources(tensors([inputs]) if own else tensors([output]))
            node = self._add(kind(row), output, sources)
            node.layer = row

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        came_from = [] if self.inside else [s for x in tensors(args) if (s := getattr(x, "_sources", None))]
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if not came_from:
            return output
        if len(set(came_from)) > 1 and func.overloadpacket in JOINS:
            self._add(JOINS[func.overloadpacket], output, tuple(dict.fromkeys(sum(came_from, ()))))
        else:
            _mark(output, tuple(dict.fromkeys(sum(came_from, ()))))
        return output

    def _add(self, kind: str, output: Any, sources: Sources) -> Node:
        node = Node(len(self.nodes), kind, tuple(next(tensors([output])).shape[1:]), sources)
        self.nodes.append(node)
        _mark(output, (node.number,))
        return node


def _mark(output: Any, sources: Sources) -> None:
    for result in tensors([output]):
        result._sources = sources  # type: ignore[attr-defined]


def _sources(values: Iterable[Tensor]) -> Sources:
    return tuple(dict.fromkeys(number for x in values for number in getattr(x, "_sources", ())))


def wire(net: Net, image_size: int, in_channels: int) -> list[Node]:
    """The nodes that a drawing shows, in the order in which they run; the auxiliary heads' among them.

    The first is the image. Each is numbered by its place in the list, and knows its sources and targets there.
    """
    wires = _Wires()
    layers(net, image_size, in_channels, wires, auxiliary=bool(net.auxiliary))
    names = {module: name for name, module in net.named_modules()}
    heads = {names[head]: key for key, head in net.auxiliary.items()}
    stages = {names[part]: stage for stage, parts in net.stages.items() for part in parts if part in names}
    nodes = _visible(wires.nodes)
    for node in nodes:
        if node.layer:
            node.stage, node.head = _above(node.name, stages), _above(node.name, heads)
    return _used(nodes)


def _above(name: str, owners: dict[str, str]) -> str:
    """What owns the module `name`, or the nearest of those that hold it."""
    while name not in owners and name:
        name = name.rpartition(".")[0]
    return owners.get(name, "")


def _shown(node: Node) -> bool:
    row = node.layer
    if row is None or node.kind == "zero pad" or row.macs:
        return True
    return node.kind in POOLS and not idle(row)


def _visible(nodes: list[Node]) -> list[Node]:
    """Without what is not shown, whose sources take its place, and without joins that are left with one way."""
    standing: dict[int, Sources] = {}
    for node in nodes:
        node.sources = tuple(dict.fromkeys(number for source in node.sources for number in standing[source]))
        joins = node.layer is None and node.kind != "image"
        standing[node.number] = (
            (node.number,) if _shown(node) and not (joins and len(node.sources) < 2) else node.sources
        )
    return [node for node in nodes if standing[node.number] == (node.number,)]


def _used(nodes: list[Node]) -> list[Node]:
    """Those that lead to the logits or belong to an auxiliary head, numbered anew."""
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
