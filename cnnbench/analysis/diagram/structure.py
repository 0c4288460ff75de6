"""Structure of a net as nested sequences: boxes, branches that meet again, and repeats. The drawing follows it.

Branches meet in the first node that all of them reach (the nearest post-dominator). Branches that share nodes before
that, as in DenseNets, stay one sequence, a Tangle, with a line for each connection that skips a node.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnbench.analysis.diagram.graph import Node
from cnnbench.analysis.summary import POOLS

LIMIT = 44  # rows: in taller drawings, repeats are folded
LONGEST = 12  # items of a repeated block


@dataclass(eq=False)
class LayerBox:
    """One layer, or a join at the start of a chain."""

    node: Node

    @property
    def end(self) -> Node:
        return self.node


@dataclass(eq=False)
class Branches:
    """Branches from the node `start` that meet in the node `join`; an empty branch is an identity."""

    start: Node
    branches: list["Chain"]
    join: Node

    @property
    def end(self) -> Node:
        return self.join

    @property
    def residual(self) -> bool:
        """Whether this is a residual block: at most one branch has several layers, the others are shortcuts."""
        return self.join.kind != "concat" and sum(len(list(layer_nodes(branch))) > 1 for branch in self.branches) <= 1

    @property
    def main(self) -> "Chain":
        return max(self.branches, key=lambda branch: len(list(layer_nodes(branch))))

    @property
    def shortcuts(self) -> list["Chain"]:
        return [branch for branch in self.branches if branch is not self.main]


@dataclass(eq=False)
class Tangle:
    """Branches that share nodes: all nodes in order; in the last one everything has met."""

    start: Node
    nodes: list[Node]

    @property
    def end(self) -> Node:
        return self.nodes[-1]

    @property
    def skips(self) -> list[tuple[int, int]]:
        """Connections that skip nodes: (from, to) as indices of nodes, from 1; 0 is the start."""
        places = {self.start.number: 0, **{node.number: place for place, node in enumerate(self.nodes, 1)}}
        return [
            (places[s], places[n.number]) for n in self.nodes for s in n.sources if places[n.number] - places[s] > 1
        ]


@dataclass(eq=False)
class Fold:
    """The first of `times` repeats of the same items."""

    items: "Chain"
    times: int

    @property
    def end(self) -> Node:
        return self.items[-1].end


Item = LayerBox | Branches | Tangle | Fold
Chain = list[Item]  # from top to bottom


@dataclass(frozen=True)
class Head:
    """An auxiliary head: its layers in order, and the node that gives its input."""

    name: str
    source: Node
    nodes: list[Node]


@dataclass(frozen=True)
class Diagram:
    image: Node
    items: Chain
    heads: list[Head]


def build_diagram(nodes: Sequence[Node]) -> Diagram:
    """Diagram of the nodes of graph.trace_graph()."""
    main = [node for node in nodes if not node.head]
    own = {node.number for node in main}
    targets = {node.number: [target for target in node.targets if target in own] for node in main}
    meeting = _meetings(targets)
    items = _sequence(nodes, targets, meeting, main[0].number, None)
    items = items[1:]  # the first is the image
    if count_rows(items) > LIMIT:
        items = _folded(items)
    names = dict.fromkeys(node.head for node in nodes if node.head)
    heads = [[node for node in nodes if node.head == name] for name in names]
    return Diagram(main[0], items, [Head(part[0].head, nodes[part[0].sources[0]], part) for part in heads])


def _meetings(targets: dict[int, list[int]]) -> dict[int, int | None]:
    """The first node that all paths from each node reach. Numbers grow along every path."""
    found: dict[int, int | None] = {}
    for number in sorted(targets, reverse=True):
        meets: int | None = None
        for position, target in enumerate(targets[number]):
            meets = target if position == 0 else _common(meets, target, found)
        found[number] = meets
    return found


def _common(a: int | None, b: int | None, found: dict[int, int | None]) -> int | None:
    while a != b:
        if a is None or b is None:
            return None
        if a < b:
            a = found[a]
        else:
            b = found[b]
    return a


def _sequence(nodes: Sequence[Node], targets: dict[int, list[int]], meeting: dict[int, int | None], at: int | None,
              stop: int | None) -> Chain:  # fmt: skip
    """Items from the node `at` to the node before `stop`."""
    items: Chain = []
    while at != stop and at is not None:
        if not items or items[-1].end is not nodes[at]:
            items.append(LayerBox(nodes[at]))
        join = meeting[at]
        if len(targets[at]) > 1 and join is not None:
            between = [nodes[number] for number in range(at + 1, join + 1) if number in targets]
            if _apart(nodes[at], between[:-1]):
                branches = [_sequence(nodes, targets, meeting, target, join) for target in targets[at]]
                items.append(Branches(nodes[at], branches, nodes[join]))
            else:
                items.append(Tangle(nodes[at], between))
        at = join
    return items


def _apart(start: Node, nodes: list[Node]) -> bool:
    """Whether each of these nodes lies on one branch from `start` only."""
    branch: dict[int, int | None] = {}
    for node in nodes:
        branches = {node.number if source == start.number else branch.get(source) for source in node.sources}
        if len(branches) > 1:
            return False
        branch[node.number] = branches.pop()
    return True


def all_nodes(items: Chain) -> Iterator[Node]:
    """All nodes of the items, joins included."""
    for item in items:
        if isinstance(item, LayerBox):
            yield item.node
        elif isinstance(item, Branches):
            for branch in item.branches:
                yield from all_nodes(branch)
            yield item.join
        elif isinstance(item, Tangle):
            yield from item.nodes
        else:
            yield from all_nodes(item.items)


def layer_nodes(items: Chain) -> Iterator[Node]:
    """Nodes of the items that are layers, without joins."""
    return (node for node in all_nodes(items) if not node.joins)


def count_rows(items: Chain) -> int:
    """Height of the items in rows of boxes."""
    total = 0
    for item in items:
        if isinstance(item, Branches):
            total += count_rows(item.main) if item.residual else max(map(count_rows, item.branches)) + 1
        else:
            total += (
                1
                if isinstance(item, LayerBox)
                else len(item.nodes)
                if isinstance(item, Tangle)
                else count_rows(item.items)
            )
    return total


def node_label(node: Node) -> str:
    """Label in the notation of the papers: `3x3 conv, 64, /2`, `3x3 max pool, /2`, `fc 1000`."""
    row, channels = node.layer, node.shape[0]
    if node.joins:
        return f"concat, {channels}" if node.kind == "concat" else {"add": "+", "multiply": "×"}[node.kind]
    kernel, _, groups = node.kernel.partition(", ")
    size, _, stride = kernel.partition("/")
    parts = [f"{size} {node.kind}".strip()]
    if node.kind == "fc":
        parts = [f"fc {channels if len(node.shape) == 3 else node.shape[-1]}"]
    elif row and node.kind in ("conv", "local"):
        depthwise = groups and groups.split()[0] == str(row.input_shape[0])
        parts = [f"{size} {'depthwise' if depthwise else node.kind}", str(channels)]
        parts += [groups] if groups and not depthwise else []
    elif node.kind in POOLS and not size:
        parts = [f"global {node.kind}" if max(node.shape[1:], default=1) == 1 else node.kind]
    elif row and node.kind == "zero pad":
        stride = str(row.input_shape[-1] // node.shape[-1]).replace("1", "")
    return ", ".join([*parts, *([f"/{stride}"] if stride else [])])


def map_size(node: Node) -> str:
    """Size of the maps of a node: `56 × 56`; `1 × 1` for a vector."""
    if len(node.shape) == 3:
        return f"{node.shape[1]} × {node.shape[2]}"
    return "1 × 1" if len(node.shape) == 1 else f"{node.shape[0]} tokens"


def _signature(item: Item) -> tuple:
    """Key that is equal for items of one stage that look the same."""
    if isinstance(item, LayerBox):
        return node_label(item.node), item.node.shape, item.node.stage
    if isinstance(item, Branches):
        return item.join.kind, item.join.shape, *(tuple(map(_signature, branch)) for branch in item.branches)
    nodes = item.nodes if isinstance(item, Tangle) else all_nodes(item.items)
    return tuple((node_label(node), node.shape, node.stage) for node in nodes)


def _folded(items: Chain) -> Chain:
    """Items with repeats folded, the shortest repeats first."""
    signatures = [_signature(item) for item in items]
    result: Chain = []
    at = 0
    while at < len(items):
        period, times = _repeats(signatures, at)
        if times > 1:
            result.append(Fold(items[at : at + period], times))
            at += period * times
        else:
            result.append(items[at])
            at += 1
    return result


def _repeats(signatures: list[tuple], at: int) -> tuple[int, int]:
    """Length of the block that is repeated from `at` on, and its number of repeats."""
    for period in range(1, LONGEST + 1):
        first, times = signatures[at : at + period], 1
        while len(first) == period and signatures[at + times * period : at + (times + 1) * period] == first:
            times += 1
        if times > 1:
            return period, times
    return 1, 1
