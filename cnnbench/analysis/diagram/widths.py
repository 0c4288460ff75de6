"""Widths in pixels of the parts of a diagram, to the left and right of the vertical line that they are drawn on."""

from collections.abc import Sequence

from cnnbench.analysis.diagram.graph import Node
from cnnbench.analysis.diagram.structure import Branches, Chain, Fold, Item, LayerBox, Tangle, layer_nodes, node_label
from cnnbench.analysis.diagram.svg import text_width

BETWEEN, LANE = 14.0, 13.0  # distance between branches, distance between arcs
SMALL = 9.5  # font size beside the boxes


def pill(node: Node) -> float:
    return text_width(node_label(node), SMALL) + 8


def reach(span: int) -> float:
    """Width of an arc that skips so many nodes."""
    return min(14.0 + 5 * span, 90.0)


def half_of(nodes: Sequence[Node]) -> float:
    return max([text_width(node_label(node)) / 2 + 6 for node in nodes], default=0.0)


def half_width(items: Chain) -> float:
    """Half the width of the boxes on the line of the items."""
    halves = [0.0]
    for item in items:
        if isinstance(item, LayerBox | Tangle):
            halves.append(half_of([item.node] if isinstance(item, LayerBox) else item.nodes))
        elif isinstance(item, Fold):
            halves.append(half_width(item.items))
        elif item.residual:
            halves.append(half_width(item.main))
    return max(halves)


def extent(items: Chain, half: float) -> tuple[float, float]:
    """Width to the left and to the right of the line of the items."""
    sides = [(half, half)]
    for item in items:
        sides.append(_sides(item, half))
    return max(left for left, _ in sides), max(right for _, right in sides)


def _sides(item: Item, half: float) -> tuple[float, float]:
    if isinstance(item, Branches) and item.residual:
        left, right = extent(item.main, half)
        for branch in item.shortcuts:
            right += LANE
            pills = [pill(node) - 6 for node in layer_nodes(branch)]
            right += max(pills, default=2)
        return left, right
    if isinstance(item, Branches):
        width = centres(item)[1]
        return width / 2, width / 2
    if isinstance(item, Fold):
        left, right = extent(item.items, half)
        return left + 6, right + 20 + text_width(f"× {item.times}", 14)
    if isinstance(item, Tangle):
        return half, half + 0.75 * max((reach(end - start) for start, end in item.skips), default=0)
    return half, half


def centres(split: Branches) -> tuple[list[float], float]:
    """Lines of the branches, from the left edge, and the width of all branches."""
    found, x = [], 0.0
    for branch in split.branches:
        left, right = extent(branch, max(half_width(branch), 8.0))
        found.append(x + left)
        x += left + right + BETWEEN
    return found, max(x - BETWEEN, text_width(node_label(split.join), 10) + 8)
