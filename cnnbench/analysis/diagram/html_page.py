"""Self-contained HTML page of nets: the drawing and the tables of their layers."""

from collections.abc import Sequence

from cnnbench.output import html

STYLE = """\
body { max-width: none; }
figure { overflow-x: auto; }
svg { display: block; }
.layer:hover > rect, .join:hover > rect, .join:hover > circle { stroke-width: 2.5; }
.layer:hover, .join:hover { cursor: help; }
th, td { padding: .15rem .7rem; }
"""


def diagram_page(title: str, svg: str, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    """HTML of the page. sections: headings, each with tables (as HTML) and lines of text."""
    parts = [
        html.paragraph("Hover over a box to read its output, parameters and multiply-adds."),
        f"<figure>\n{svg}\n</figure>",
    ]
    for heading, blocks in sections:
        parts.append(html.heading(heading))
        parts += [block if block.startswith("<div") else html.paragraph(block) for block in blocks]
    return html.document(title, parts, style=STYLE)
