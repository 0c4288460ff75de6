"""Drawing of one net in the style of the papers: boxes from the image down to the classes, branches side by side,
shortcuts as arcs, a colour for each size of the maps.
"""

from dataclasses import dataclass, field
from itertools import groupby

from cnnbench.analysis.diagram.graph import Node
from cnnbench.analysis.diagram.structure import (
    Branches,
    Chain,
    Diagram,
    Fold,
    Head,
    LayerBox,
    Tangle,
    layer_nodes,
    map_size,
    node_label,
)
from cnnbench.analysis.diagram.svg import GREY, INK, Canvas, text_width
from cnnbench.analysis.diagram.widths import LANE, SMALL, centres, extent, half_of, half_width, pill, reach
from cnnbench.analysis.summary import POOLS, Summary
from cnnbench.utils.format import three_digits

# Colours of Okabe and Ito, safe for colour-blind readers: for lines, and lighter for areas under black text.
COLOURS = (("#0072B2", "#CFE3F1"), ("#E69F00", "#FAE8C4"), ("#009E73", "#C9EADD"), ("#CC79A7", "#F4DFEB"),
           ("#8A7F00", "#F7F3BE"), ("#56B4E9", "#E3F3FC"), ("#D55E00", "#F7DAC6"), ("#777777", "#E6E6E6"))  # fmt: skip
BOX, GAP = 18.0, 11.0  # height of a box, distance between boxes
ROUND, BAR = 5.0, 15.0  # radius of the circle of a sum, height of the bar of a concatenation
HEADING = 62.0


@dataclass
class NetColumn:
    """A net that is drawn around the vertical line at `x`. at: right edge and vertical middle of each drawn node."""

    canvas: Canvas
    summary: Summary
    diagram: Diagram
    colours: dict[str, tuple[str, str]]
    x: float = 0.0
    at: dict[int, tuple[float, float]] = field(default_factory=dict)
    spans: list[tuple[str, float, float]] = field(default_factory=list)  # stage, top and bottom of each item

    @property
    def bands(self) -> list[tuple[str, Chain]]:
        """Items grouped by the size of their maps."""
        found: list[tuple[str, Chain]] = []
        for key, group in groupby(self.diagram.items, lambda item: map_size(item.end)):
            found.append((key, list(group)))
        return found

    @property
    def width_of_stages(self) -> float:
        names = {node.stage for node in layer_nodes(self.diagram.items)}
        return max((text_width(name, SMALL) for name in names), default=0) + 14

    def extent(self) -> tuple[float, float]:
        """Width in pixels to the left and to the right of x."""
        left, right = extent(self.diagram.items, half_width(self.diagram.items))
        texts = max(text_width(text, 15 if not number else 11) for number, text in enumerate(self.title()))
        heads = max((2 * half_of(head.nodes) for head in self.diagram.heads), default=0)
        right += heads + 40 if heads else 0
        return max(left + self.width_of_stages, texts / 2), max(right, texts / 2)

    def title(self) -> list[str]:
        net = self.summary
        return [
            net.label,
            f"{net.depth} layers deep, {three_digits(net.params)} parameters",
            f"{three_digits(net.macs)} multiply-adds",
        ]

    def heading(self, y: float) -> float:
        name, *rest = self.title()
        self.canvas.text(self.x, y + 14, name, 15, font_weight="bold")
        for number, text in enumerate(rest):
            self.canvas.text(self.x, y + 29 + 13 * number, text, 10.5, fill=GREY)
        image = self.diagram.image
        self.canvas.text(self.x, y + HEADING, f"image, {' × '.join(map(str, image.shape))}", 11)
        return y + HEADING + 4

    def items(self, items: Chain, x: float, y: float, half: float) -> float:
        """Draw items below y; return the y where they end."""
        for item in items:
            if isinstance(item, LayerBox):
                y = self.box(item.node, x, y, half)
            elif isinstance(item, Tangle):
                y = self.tangle(item, x, y, half)
            elif isinstance(item, Fold):
                y = self.fold(item, x, y, half)
            else:
                y = self.residual(item, x, y, half) if item.residual else self.branches(item, x, y)
        return y

    def band(self, items: Chain, y: float) -> float:
        half = half_width(self.diagram.items)
        for item in items:
            top, y = y, self.items([item], self.x, y, half)
            stage = next((node.stage for node in layer_nodes([item])), "")
            self.spans.append((stage, top + GAP, y))
        return y

    def box(self, node: Node, x: float, y: float, half: float, dashed: bool = False) -> float:
        if node.joins and node.kind != "concat":
            return self.sum(node, x, y)
        self.canvas.arrow(x, y, y + GAP)
        self.rectangle(node, x, y + GAP, half, dashed)
        return y + GAP + BOX

    def rectangle(self, node: Node, x: float, y: float, half: float, dashed: bool = False, height: float = BOX,
                  letters: float = 11) -> None:  # fmt: skip
        line, area = self.colours[map_size(node)] if not node.head else COLOURS[-1]
        area = "#ffffff" if node.kind in POOLS or node.joins else area
        dashes: dict[str, object] = {"stroke_dasharray": "3 2"} if dashed else {}
        kind = "join" if node.joins else "layer"
        with self.canvas.group(self.about(node), class_=kind, data_node=node.number, data_name=node.name):
            self.canvas.rect(x - half, y, 2 * half, height, area, line, rx=3, **dashes)
            self.canvas.text(x, y + height / 2 + 0.36 * letters, node_label(node), letters)
        self.at[node.number] = (x + half, y + height / 2)

    def about(self, node: Node) -> str:
        """Tooltip of a node, with the numbers of the table."""
        row = node.layer
        shape = " × ".join(map(str, row.output_shape if row else node.shape))
        if row is None:
            return f"{node.kind if node.joins else node_label(node)}\noutput {shape}"
        lines = [f"{row.name}: {node_label(node)}", f"output {shape}", f"{row.weights + row.biases:,} parameters",
                 f"{row.macs:,} multiply-adds", f"receptive field {row.receptive_field}"]  # fmt: skip
        return "\n".join([*lines, *([f"stage {node.stage}"] if node.stage and not node.head else [])])

    def sum(self, node: Node, x: float, y: float) -> float:
        """Draw the circle where branches meet."""
        middle = y + 4 + ROUND
        self.canvas.path(f"M{x:.6g} {y:.6g}V{y + 4:.6g}")
        with self.canvas.group(self.about(node), class_="join", data_node=node.number):
            self.canvas.circle(x, middle, ROUND)
            arm = 3.0 if node.kind == "add" else 2.1
            lines = f"h{arm}h{-2 * arm}m{arm} {-arm}v{2 * arm}" if node.kind == "add" else (
                f"m{-arm} {-arm}l{2 * arm} {2 * arm}m{-2 * arm} 0l{2 * arm} {-2 * arm}"
            )  # fmt: skip
            self.canvas.path(f"M{x:.6g} {middle:.6g}{lines}")
        self.at[node.number] = (x + ROUND, middle)
        return middle + ROUND

    def residual(self, split: Branches, x: float, y: float, half: float) -> float:
        """Draw the layers on the line, and each shortcut as an arc to the right of them."""
        end = self.items(split.main, x, y, half)
        result = self.sum(split.join, x, end)
        lane = x + extent(split.main, half)[1]
        for branch in split.shortcuts:
            lane += LANE
            self.arc(split, branch, x, lane, y + 3, end + 4 + ROUND)
        return result

    def arc(self, split: Branches, branch: Chain, x: float, lane: float, top: float, bottom: float) -> None:
        layers = list(layer_nodes(branch))
        kind = "projection" if layers else "identity"
        dashes: dict[str, object] = {"stroke_dasharray": "1.5 3", "stroke_linecap": "round"} if layers else {}
        turn = min(9.0, (bottom - top) / 2)
        self.canvas.path(
            f"M{x:.6g} {top:.6g}H{lane - turn:.6g}q{turn} 0 {turn} {turn:.6g}V{bottom - turn:.6g}"
            f"q0 {turn} {-turn} {turn:.6g}H{x + ROUND + 3:.6g}",
            INK,
            stroke_width=1.4, class_=f"shortcut {kind}", data_from=split.start.number, data_to=split.join.number,
            **dashes,
        )  # fmt: skip
        self.canvas.head(x + ROUND, bottom, left=True)
        for node in layers:
            half = pill(node) / 2
            self.rectangle(node, lane - 6 + half, (top + bottom) / 2 - 7, half, True, 14, SMALL)

    def branches(self, split: Branches, x: float, y: float) -> float:
        """Draw branches side by side, down to the bar where they meet."""
        offsets, width = centres(split)
        places = [x - width / 2 + offset for offset in offsets]
        fork = y + 6
        self.canvas.path(f"M{x:.6g} {y:.6g}V{fork:.6g}M{min(*places, x):.6g} {fork:.6g}H{max(*places, x):.6g}")
        drawn = [
            (place, self.items(branch, place, fork, half_width(branch)))
            for branch, place in zip(split.branches, places, strict=True)
        ]
        bar = max(end for _, end in drawn) + GAP
        ends: dict[str, object] = {
            "class_": "shortcut identity",
            "data_from": split.start.number,
            "data_to": split.join.number,
        }
        for branch, (place, end) in zip(split.branches, drawn, strict=True):
            self.canvas.arrow(place, end, bar, INK, **({} if branch else ends))
        self.rectangle(split.join, x, bar, width / 2, height=BAR, letters=10)
        return bar + BAR

    def fold(self, fold: Fold, x: float, y: float, half: float) -> float:
        """Draw repeated items once, in a frame with the number of repeats."""
        left, right = extent(fold.items, half)
        self.canvas.path(f"M{x:.6g} {y:.6g}v6")
        end = self.items(fold.items, x, y + 8, half)
        self.canvas.path(f"M{x:.6g} {y + 6:.6g}v4M{x:.6g} {end:.6g}v7")
        with self.canvas.group(f"{fold.times} times the same", class_="fold", data_times=fold.times):
            self.canvas.rect(
                x - left - 6, y + 5, left + right + 12, end - y + 1, rx=5, stroke=GREY, stroke_dasharray="5 3"
            )
            self.canvas.text(x + right + 11, (y + end) / 2 + 5, f"× {fold.times}", 14, "start", font_weight="bold")
        return end + 6

    def tangle(self, tangle: Tangle, x: float, y: float, half: float) -> float:
        places = [y]
        for number, node in enumerate(tangle.nodes, 1):
            before = tangle.start if number == 1 else tangle.nodes[number - 2]
            if before.number in node.sources:
                y = self.box(node, x, y, half)
            else:
                self.rectangle(node, x, y + GAP, half)
                y += GAP + BOX
            places.append(y)
        nodes = [tangle.start, *tangle.nodes]
        for start, end in tangle.skips:
            top, bottom = places[start] + 3, self.at[nodes[end].number][1]
            lane = x + half + reach(end - start)
            self.canvas.path(
                f"M{x:.6g} {top:.6g}H{x + half:.6g}"
                f"C{lane:.6g} {top:.6g} {lane:.6g} {bottom:.6g} {x + half:.6g} {bottom:.6g}",
                GREY, stroke_width=0.7, class_="shortcut identity",
                data_from=nodes[start].number, data_to=nodes[end].number,
            )  # fmt: skip
        return y

    def stages(self) -> None:
        """Draw a bar along each stage, with its name."""
        left = self.x - extent(self.diagram.items, half_width(self.diagram.items))[0] - 9
        for stage, group in groupby(self.spans, lambda span: span[0]):
            spans = list(group)
            top, bottom = spans[0][1], spans[-1][2]
            if stage:
                self.canvas.path(f"M{left:.6g} {top:.6g}V{bottom:.6g}", GREY, stroke_width=1.5)
                self.canvas.text(left - 5, top + 12, stage, SMALL, "end", GREY, class_="stage")

    def heads(self, y: float) -> float:
        """Draw the auxiliary heads to the right of the net; return the y where the lowest ends, at least y."""
        lowest = 0.0
        right = self.x + extent(self.diagram.items, half_width(self.diagram.items))[1]
        for head in self.diagram.heads:
            half = half_of(head.nodes)
            lowest = self.head(head, right + 30 + half, half, lowest)
        return max(y, lowest)

    def head(self, head: Head, x: float, half: float, lowest: float) -> float:
        source = max((number for number in self.at if number <= head.source.number), default=0)
        start, level = self.at[source]
        y = max(level, lowest + 8)
        self.canvas.path(f"M{start:.6g} {level:.6g}H{x - half - 12:.6g}V{y:.6g}H{x:.6g}", stroke_dasharray="4 3",
                         class_="auxiliary", data_from=source, data_to=head.nodes[0].number)  # fmt: skip
        for node in head.nodes:
            y = self.box(node, x, y, half, dashed=True)
        self.canvas.text(x, y + 13, f"{head.name}, in training only", SMALL, fill=GREY)
        return y + 18
