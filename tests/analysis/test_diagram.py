"""Nets drawn: the boxes are the net's layers, the arcs its shortcuts, the numbers the table's; nothing overlaps."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cnnbench.analysis.diagram.graph import Node, trace_graph
from cnnbench.analysis.diagram.structure import (
    Branches,
    Fold,
    Tangle,
    build_diagram,
    count_rows,
    layer_nodes,
    node_label,
)
from cnnbench.models import MODELS, build
from cnnbench.models.layers import Net
from cnnbench.models.meta_kernels import Shapes
from tests.helpers.browser import CHROMIUM, screenshot
from tests.helpers.runs import Ran

SVG = "{http://www.w3.org/2000/svg}"


def nodes_of(name: str, **arguments: object) -> list[Node]:
    with torch.device("meta"), Shapes():
        net = build(name, **arguments)  # type: ignore[arg-type]
    return trace_graph(net, net.image_size, 3)


def drawn(cnnbench: Callable[..., Ran], *args: str) -> ElementTree.Element:
    ran = cnnbench("summary", *args, "format=svg")
    assert (ran.code, ran.err) == (0, "")
    return ElementTree.fromstring(ran.out)


def groups(page: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [group for group in page.iter(f"{SVG}g") if group.get("class") == kind]


def arcs(page: ElementTree.Element, kind: str) -> list[tuple[int, int]]:
    paths = [path for path in page.iter(f"{SVG}path") if (path.get("class") or "").endswith(kind)]
    return [(int(path.get("data-from", -1)), int(path.get("data-to", -1))) for path in paths]


Rect = tuple[float, float, float, float]


def rects(page: ElementTree.Element) -> Iterator[tuple[str, Rect]]:
    for kind in ("layer", "join"):
        for group in groups(page, kind):
            rect = group.find(f"{SVG}rect")
            if rect is not None:
                x, y, width, height = (float(rect.get(key, "nan")) for key in ("x", "y", "width", "height"))
                yield group.get("data-name", ""), (x, y, x + width, y + height)


def test_boxes_are_the_layers_in_order_with_the_numbers_of_the_table(cnnbench: Callable[..., Ran]) -> None:
    for name in ("vgg19", "alexnet", "resnet34", "googlenet"):
        page = drawn(cnnbench, f"model={name}")
        (net,) = json.loads(cnnbench("summary", f"model={name}", "format=json").out)
        table = {row["name"]: row for row in net["layers"] if row["macs"] or "pool" in row["kind"]}
        layers = sorted(groups(page, "layer"), key=lambda group: int(group.get("data-node", -1)))
        main = [group for group in layers if not group.get("data-name", "").startswith("aux")]
        assert [group.get("data-name") for group in main] == list(table)
        assert len(layers) - len(main) == (8 if name == "googlenet" else 0)
        for group in main:
            row, said = table[group.get("data-name", "")], group.findtext(f"{SVG}title") or ""
            assert f"\n{row['weights'] + row['biases']:,} parameters\n{row['macs']:,} multiply-adds\n" in said
            assert f"output {' × '.join(map(str, row['output_shape']))}\n" in said


def test_labels_are_the_papers() -> None:
    labels = [node_label(node) for node in nodes_of("resnet34")[1:]]
    assert labels[:4] == ["7x7 conv, 64, /2", "3x3 max pool, /2", "3x3 conv, 64", "3x3 conv, 64"]
    assert labels[-2:] == ["global average pool", "fc 1000"]
    assert node_label(nodes_of("alexnet")[3]) == "5x5 conv, 256, 2 groups"
    assert "zero pad, /2" in [node_label(node) for node in nodes_of("resnet20")]
    assert "3x3 average pool" in [node_label(node) for node in nodes_of("inception_v3")]  # called as a function


def test_shortcuts_begin_and_end_where_the_blocks_do(cnnbench: Callable[..., Ran]) -> None:
    page, nodes = drawn(cnnbench, "model=resnet34"), nodes_of("resnet34")
    identity, projection = arcs(page, "identity"), arcs(page, "projection")
    assert (len(identity), len(projection)) == (13, 3)
    for start, end in identity:
        assert nodes[end].kind == "add"
        assert nodes[start].kind == "add" or nodes[start].name == "maxpool"
        assert [node.name.rpartition(".")[2] for node in nodes[start + 1 : end]] == ["conv1", "conv2"]
    inside = [{node.name for node in nodes[start + 1 : end]} for start, end in projection]
    assert all(f"layer{stage}.0.downsample.0" in names for stage, names in zip((2, 3, 4), inside, strict=True))
    assert not arcs(drawn(cnnbench, "model=plain34"), "identity")
    padded = drawn(cnnbench, "model=resnet34", "model.shortcut=A")
    assert (len(arcs(padded, "identity")), len(arcs(padded, "projection"))) == (13, 3)


def test_inception_modules_are_four_ways_and_the_auxiliary_heads_hang_on_4a_and_4d(
    cnnbench: Callable[..., Ran],
) -> None:
    parts = build_diagram(nodes_of("googlenet"))
    modules = [item for item in parts.items if isinstance(item, Branches)]
    assert [len(module.branches) for module in modules] == [4] * 9
    assert [[len(list(layer_nodes(way))) for way in module.branches] for module in modules] == [[1, 2, 2, 2]] * 9
    assert [(head.name, head.source) for head in parts.heads] == [("aux1", modules[2].join), ("aux2", modules[5].join)]
    assert len(arcs(drawn(cnnbench, "model=googlenet"), "auxiliary")) == 2
    theirs = build_diagram(nodes_of("googlenet", source="torchvision"))  # its heads pool by a function
    joins = [item.join for item in theirs.items if isinstance(item, Branches)]
    assert [head.source for head in theirs.heads] == [joins[2], joins[5]]
    assert [len(head.nodes) for head in theirs.heads] == [4, 4]
    assert len(list(layer_nodes(theirs.items))) == len(list(layer_nodes(parts.items)))
    for settings in (["model.aux=false"], ["image_size=64"]):
        assert not arcs(drawn(cnnbench, "model=googlenet", *settings), "auxiliary")


def test_nets_with_maps_of_the_same_sizes_stand_on_one_level(cnnbench: Callable[..., Ran]) -> None:
    page = drawn(cnnbench, "model=vgg19,plain34,resnet34", "num_classes=1000")
    tops = [(name, rect[1]) for name, rect in rects(page)]
    plain, residual = ([y for name, y in tops if name == "layer3.0.conv1"] for _ in range(2))
    assert plain == residual and len(set(plain)) == 1 and len(plain) == 2
    assert dict(tops)["features.27"] == plain[0]  # VGG's pool to 14 x 14
    assert [text.text for text in page.iter(f"{SVG}text") if text.get("class") == "size"] == [
        "224 × 224", "112 × 112", "56 × 56", "28 × 28", "14 × 14", "7 × 7", "1 × 1"
    ]  # fmt: skip


def test_repeats_of_deep_nets_are_folded(cnnbench: Callable[..., Ran]) -> None:
    page = drawn(cnnbench, "model=resnet1202")
    assert [int(group.get("data-times", 0)) for group in groups(page, "fold")] == [200, 199, 199]
    assert_laid_out(page)
    for name in ("resnet152", "preact_resnet1001", "plain110", "resnet44"):
        nodes = nodes_of(name)
        parts = build_diagram(nodes)
        count = sum(
            len(list(layer_nodes(item.items))) * item.times
            if isinstance(item, Fold)
            else len(list(layer_nodes([item])))
            for item in parts.items
        )
        assert count == sum(not node.joins for node in nodes) - 1
        assert count_rows(parts.items) < 40


def overlapping(found: list[tuple[str, Rect]]) -> list[tuple[str, str]]:
    ordered = sorted(found, key=lambda one: one[1][1])
    bad = []
    for number, (name, (left, _, right, bottom)) in enumerate(ordered):
        for other, (x, y, end, _) in ordered[number + 1 :]:
            if y >= bottom:
                break
            if x < right and end > left:
                bad.append((name, other))
    return bad


def assert_laid_out(page: ElementTree.Element) -> None:
    width, height = float(page.get("width", 0)), float(page.get("height", 0))
    found = list(rects(page))
    assert overlapping(found) == []
    assert all(0 < x < end < width and 0 < y < bottom < height for _, (x, y, end, bottom) in found)
    for text in page.iter(f"{SVG}text"):
        room = 0.55 * float(text.get("font-size", 0)) * len(text.text or "")
        left = float(text.get("x", 0)) - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "")] * room
        assert left > 0 and left + room < width and 0 < float(text.get("y", 0)) < height
    assert height < 2000


# Seconds each; they fold as resnet1202 above and the shallower ones of their kind do.
DEEPEST = ("resnet1202", "resnet1001", "preact_resnet1001", "preact_resnet1202")


@pytest.mark.parametrize("family", ["alexnet", "vgg", "nin", "googlenet", "bn_inc", "inception", "resnet", "plain",
                                    "preact", "deepface"])  # fmt: skip
def test_every_net_is_drawn_and_nothing_overlaps_or_leaves_the_page(family: str, cnnbench: Callable[..., Ran]) -> None:
    names = [name for name in MODELS if name.startswith(family) and name not in DEEPEST]
    assert names
    for name in names:
        assert_laid_out(drawn(cnnbench, f"model={name}"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name in DEEPEST])
def test_the_deepest_nets_are_drawn_too(name: str, cnnbench: Callable[..., Ran]) -> None:
    assert_laid_out(drawn(cnnbench, f"model={name}"))


def test_modern_nets_are_drawn_too(cnnbench: Callable[..., Ran]) -> None:
    for name in ("shufflenet_v2_x1_0", "efficientnet_b0", "vit_b_16", "swin_t", "densenet121", "inception_v3"):
        assert overlapping(list(rects(drawn(cnnbench, "model=torchvision", f"model.name={name}")))) == []
    dense = [
        item for item in build_diagram(nodes_of("densenet121", source="torchvision")).items if isinstance(item, Tangle)
    ]
    assert len(dense) == 4
    # The first block: six layers, each of which takes all before it, and so do the six concatenations but the first.
    assert len(dense[0].skips) == sum(range(1, 7))


class Crossed(Net):
    """Two ways that share a layer: neither a sequence nor a fork that closes again."""

    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(3, 2)

    @property
    def stages(self) -> dict[str, list[nn.Module]]:
        return {"stem": [self.a, self.b, self.c], "head": [self.fc]}

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a) + x
        logits: Tensor = self.fc((self.c(b) + a).mean((2, 3)))
        return logits


def test_the_wiring_is_what_the_tensors_did() -> None:
    with torch.device("meta"):
        nodes = trace_graph(Crossed(), 8, 3)
    assert [(node.name, node.sources) for node in nodes] == [
        ("image", ()), ("a", (0,)), ("b", (1,)), ("add", (2, 0)), ("c", (3,)), ("add", (4, 1)),
        ("average pool", (5,)), ("fc", (6,)),
    ]  # fmt: skip
    first, *rest = build_diagram(nodes).items
    assert isinstance(first, Tangle) and first.skips == [(0, 3), (1, 5)]
    assert len(rest) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_opens_in_a_browser_and_loads_nothing(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    file = tmp_path / "nets.html"
    ran = cnnbench("summary", "model=alexnet,googlenet", f"out={file}")
    assert ran.code == 0 and ran.out.startswith("model ")
    page = file.read_text()
    assert page.rstrip() == cnnbench("summary", "model=alexnet,googlenet", "format=html").out.rstrip()
    assert "default-src 'none'" in page and "<script" not in page and "url(" not in page and "src=" not in page
    assert re.findall(r'(?:href|data)="([^#"]*)"', page) == []
    for text in ("60,965,224", "105,415,200", "<td>inception5b.branch4.1.conv</td>", "as printed", "aux1"):
        assert text in page
    screenshot(file, tmp_path / "shot.png")
    with Image.open(tmp_path / "shot.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels.max(2) - pixels.min(2) > 20).mean() > 0.01  # boxes in colour
    assert (pixels < 80).all(2).mean() > 0.01  # and text
    drawing = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert len(groups(drawing, "layer")) == 11 + 80
