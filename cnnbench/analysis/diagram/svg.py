"""SVG file, written element by element, with the shapes that a drawing of a net needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnnbench.output.html import escape

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
INK, GREY = "#222222", "#5f5f5f"
ARROW = 4.0  # pixels: length of an arrow head


def text_width(text: str, size: float = 11) -> float:
    """Width in pixels of the text in the widest font of FONT."""
    return 0.62 * size * len(text)


class Canvas:
    """Collects elements; coordinates are in pixels, from the upper left corner."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, tag: str, content: str | None, attributes: dict[str, object]) -> None:
        end = "/>" if content is None else f">{content}</{tag}>"
        self.parts.append(f"<{tag}{_written(attributes)}{end}")

    @contextmanager
    def group(self, title: str = "", **attributes: object) -> Iterator[None]:
        """Group of the elements drawn inside this block. title: their tooltip."""
        self.parts.append(f"<g{_written(attributes)}>")
        if title:
            self.add("title", escape(title), {})
        yield
        self.parts.append("</g>")

    def rect(self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = INK,
             **attributes: object) -> None:  # fmt: skip
        self.add(
            "rect",
            None,
            {"x": x, "y": y, "width": width, "height": height, "fill": fill, "stroke": stroke} | attributes,
        )

    def path(self, d: str, stroke: str = INK, **attributes: object) -> None:
        self.add("path", None, {"d": d, "fill": "none", "stroke": stroke} | attributes)

    def text(self, x: float, y: float, text: str, size: float = 11, anchor: str = "middle", fill: str = INK,
             **attributes: object) -> None:  # fmt: skip
        own = {"x": x, "y": y, "font_size": size, "text_anchor": anchor, "fill": fill}
        self.add("text", escape(text), own | attributes)

    def circle(self, x: float, y: float, radius: float) -> None:
        self.add("circle", None, {"cx": x, "cy": y, "r": radius, "fill": "#ffffff", "stroke": INK})

    def arrow(self, x: float, top: float, bottom: float, stroke: str = INK, **attributes: object) -> None:
        """Draw an arrow downwards."""
        self.path(f"M{x:.6g} {top:.6g}V{bottom - ARROW:.6g}", stroke, **attributes)
        self.head(x, bottom, stroke)

    def head(self, x: float, y: float, fill: str = INK, left: bool = False) -> None:
        """Draw the head of an arrow with its tip at (x, y), pointing down or to the left."""
        a, b = ARROW, 0.75 * ARROW
        d = f"M{x:.6g} {y:.6g}" + (f"l{a} {-b}v{2 * b}z" if left else f"l{-b} {-a}h{2 * b}z")
        self.add("path", None, {"d": d, "fill": fill})

    def page(self, width: float, height: float, label: str) -> str:
        head = {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height,
                "viewBox": f"0 0 {width:.6g} {height:.6g}", "font-family": FONT, "role": "img",
                "aria-label": label}  # fmt: skip
        ground = f'<rect width="{width:.6g}" height="{height:.6g}" fill="#ffffff"/>'
        return "\n".join([f"<svg{_written(head)}>", ground, *self.parts, "</svg>"])


def _written(attributes: dict[str, object]) -> str:
    """XML of attributes: `font_size` is written as `font-size`, `class_` as `class`."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    texts = ((key, f"{value:.6g}" if isinstance(value, float) else str(value)) for key, value in pairs)
    return "".join(f' {key}="{escape(text)}"' for key, text in texts)
