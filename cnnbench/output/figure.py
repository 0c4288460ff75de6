"""What every picture shares: a figure without a display, names that fit, a file written in one step."""

import io
import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from cnnbench.utils.format import shorten

# Fonts with the scripts that matplotlib's own lacks; whichever of them is installed is used where it is needed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Hiragino Sans",
                  "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Arabic",
                  "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS")  # fmt: skip

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#767676"  # Okabe and Ito's blue and vermillion


def new_figure(width: float, height: float, title: str, layout: Any = "constrained", dpi: int = 120) -> Figure:
    """A titled figure that draws without pyplot, of a size in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    limit = int(width * 11)  # characters of 11 points to a line, so that a long title is cut and not clipped
    title = "\n".join(short_label(line, limit) for line in title.splitlines())
    # Where a layout engine runs it makes room for a title that it may place itself; a fixed y would be drawn over.
    figure.suptitle(title, fontsize=11, **({} if layout else {"y": 1 - 0.08 / height}))
    return figure


def short_label(name: str, width: int) -> str:
    """A class name or title as matplotlib takes it: short, on one line, a dollar sign not read as mathematics."""
    return shorten(str(name), width).replace("$", r"\$")


def array(values: Any) -> np.ndarray:
    """A tensor (on any device, of any type) or a sequence as a numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()  # numpy knows no bfloat16
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


@cache
def _fonts() -> list[str]:
    installed = set(font_manager.fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def save_figure(figure: Figure, path: str | Path) -> Figure:
    """Write the figure as PNG beside its path and rename it: no reader and no crash meets half a picture."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(as_png(figure))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    for text in figure.findobj(Text):
        text.set_fontfamily(_fonts())
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box: no font has it
        figure.savefig(stream, format="png")
    return stream.getvalue()


def log_axis(ax: Axes, label: str, form: Callable[[float], str]) -> None:
    """A logarithmic x axis for what is drawn there, with a few round numbers that people read."""
    ax.set_xscale("log")
    low, high = (limit * factor for limit, factor in zip(ax.get_xlim(), (0.9, 1.1), strict=True))
    ax.set(xlabel=label, xlim=(low, high))
    ax.xaxis.set_major_locator(FixedLocator(round_numbers(low, high)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def round_numbers(low: float, high: float) -> list[float]:
    """Three to five numbers of few digits between two limits, for a logarithmic axis; fewer where there are none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 5)]
    # A narrow stretch, on which a logarithm is nearly a straight line.
    steps = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(f"{step:.6g}") for step in steps if low <= step <= high]
