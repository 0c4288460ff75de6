"""Drawing of several nets side by side, with maps of the same size on the same level."""

from collections.abc import Sequence
from itertools import pairwise

from cnnbench.analysis.diagram.one_net import COLOURS, GAP, NetColumn
from cnnbench.analysis.diagram.structure import Chain, Diagram, all_nodes, layer_nodes, map_size
from cnnbench.analysis.diagram.svg import GREY, Canvas, text_width
from cnnbench.analysis.diagram.widths import SMALL, extent, half_width
from cnnbench.analysis.summary import Summary

UNEVEN = 1.4  # largest height of aligned nets, relative to the tallest net alone


def draw_nets(nets: Sequence[tuple[Summary, Diagram]]) -> str:
    """SVG of the nets side by side."""
    canvas = Canvas()
    columns = [NetColumn(canvas, summary, diagram, {}) for summary, diagram in nets]
    level = _aligned(columns)
    sizes = _sizes(columns) if level else []
    _colour(columns, sizes)
    gutter = max(text_width(key, 10.5) for column in columns for key, _ in column.bands) + 16
    width, height = _place(columns, gutter, level), 0.0
    tops = [column.heading(10) for column in columns]
    if level:
        height = _level(canvas, columns, sizes, tops[0], width)
    else:
        for column, top in zip(columns, tops, strict=True):
            height = max(height, _alone(canvas, column, top, gutter))
    for column in columns:
        column.stages()
        height = max(height, column.heads(height))
    height = _legend(canvas, columns, height + 18)
    return canvas.page(width, height, ", ".join(column.summary.label for column in columns))


def _colour(columns: list[NetColumn], sizes: list[str]) -> None:
    """Choose a colour for each size of maps, the same in all nets if they are aligned."""
    for column in columns:
        own = sizes or list(dict.fromkeys(key for key, _ in column.bands))
        everywhere = dict.fromkeys([*own, *(map_size(node) for node in layer_nodes(column.diagram.items))])
        column.colours = {key: COLOURS[number % (len(COLOURS) - 1)] for number, key in enumerate(everywhere)}


def _place(columns: list[NetColumn], gutter: float, level: bool) -> float:
    """Place the nets from left to right; return the total width. gutter: width of the column with the sizes of maps."""
    x = 16.0
    for number, column in enumerate(columns):
        left, right = column.extent()
        x += gutter if not (level and number) else 6
        column.x = x + left
        x = column.x + right + (22 if number < len(columns) - 1 else 16)
    return x


def _sizes(columns: list[NetColumn]) -> list[str]:
    """Sizes of maps in all nets, largest first."""
    return sorted({key for column in columns for key, _ in column.bands}, key=_side, reverse=True)


def _side(key: str) -> int:
    return int(key.split()[0])


def _aligned(columns: list[NetColumn]) -> bool:
    """Whether to align the nets: they share at least half of the sizes of maps, and the drawing stays compact."""
    if len(columns) < 2:
        return False
    for column in columns:
        sides = [_side(key) for key, _ in column.bands]
        tokens = any("tokens" in key for key, _ in column.bands)
        if tokens or any(a <= b for a, b in pairwise(sides)):
            return False
    sizes = [{key for key, _ in column.bands} for column in columns]
    if 2 * len(set.intersection(*sizes)) < len(set.union(*sizes)):
        return False
    heights = [{key: _height(column, items) for key, items in column.bands} for column in columns]
    together = sum(max(height.get(key, 0) for height in heights) for key in _sizes(columns))
    return together <= UNEVEN * max(sum(height.values()) for height in heights)


def _height(column: NetColumn, items: Chain) -> float:
    trial = NetColumn(
        Canvas(),
        column.summary,
        column.diagram,
        dict.fromkeys(map(map_size, all_nodes(column.diagram.items)), COLOURS[0]),
    )
    return trial.band(items, 0)


def _level(canvas: Canvas, columns: list[NetColumn], sizes: list[str], y: float, width: float) -> float:
    ends = [y for _ in columns]
    for key in sizes:
        top = max(ends)
        _size_line(canvas, key, top, 10, width - 10)
        for number, column in enumerate(columns):
            items = dict(column.bands).get(key)
            if items:
                column.canvas.path(f"M{column.x:.6g} {ends[number]:.6g}V{top:.6g}")
                ends[number] = column.band(items, top)
    return max(ends)


def _alone(canvas: Canvas, column: NetColumn, y: float, gutter: float) -> float:
    left, _ = column.extent()
    right = extent(column.diagram.items, half_width(column.diagram.items))[1]
    for key, items in column.bands:
        _size_line(canvas, key, y, column.x - left - gutter + 4, column.x + right)
        y = column.band(items, y)
    return y


def _size_line(canvas: Canvas, key: str, y: float, left: float, right: float) -> None:
    canvas.parts.insert(0, f'<path d="M{left:.6g} {y + 5:.6g}H{right:.6g}" stroke="#dddddd" fill="none"/>')
    canvas.text(left, y + GAP + 13, key, 10.5, "start", class_="size")


def _legend(canvas: Canvas, columns: list[NetColumn], y: float) -> float:
    """Draw the legend of the lines and frames that the drawing has; return the y where it ends."""
    text = "\n".join(canvas.parts)
    lines = [("", "left: size of the maps and name of the stage")]
    if 'class="shortcut identity"' in text:
        lines.append(("", "solid arc: the input itself"))
    if 'class="shortcut projection"' in text:
        lines.append(("1.5 3", "dotted arc: brought to the new shape"))
    if 'class="fold"' in text:
        lines.append(("5 3", "× n: n times the same"))
    for _, line in lines:
        y += 13
        canvas.text(16, y, line, SMALL, "start", GREY)
    return y + 12
