"""Figures of matplotlib without a display: titles and labels that fit, number formats, axes, an atomic write."""

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
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from cnnbench.utils.format import shorten
from cnnbench.utils.text import printable

# Fonts for the scripts that the font of matplotlib lacks. Installed ones are used where they are needed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Hiragino Sans",
                  "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans Arabic",
                  "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS")  # fmt: skip

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#767676"  # Okabe and Ito's blue and vermillion


def new_figure(width: float, height: float, title: str, layout: Any = "constrained", dpi: int = 120) -> Figure:
    """Figure with a title, of a size in inches, made without pyplot."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    limit = int(width * 11)  # characters of 11 points in a line: a long title is shortened, not clipped
    title = "\n".join(short_label(line, limit) for line in title.splitlines())
    # A layout engine makes room only for a title that it may place itself; axes would cover a title with a fixed y.
    figure.suptitle(title, fontsize=11, **({} if layout else {"y": 1 - 0.08 / height}))
    return figure


def picture_axes(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes (rows, columns) for pictures, without ticks and frames."""
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return axes


def short_label(name: str, width: int) -> str:
    """Label on one line of at most `width` characters, dollar signs escaped, which matplotlib reads as mathematics."""
    return shorten(printable(str(name)), width).replace("$", r"\$")


def array(values: Any) -> np.ndarray:
    """Numpy array of a tensor, on any device and of any dtype, or of a sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()  # numpy knows no bfloat16
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


@cache
def _fonts() -> list[str]:
    installed = set(font_manager.fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def save_figure(figure: Figure, path: str | Path) -> Figure:
    """Write the figure as a PNG, atomically, and return it."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(as_png(figure))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return figure


def as_png(figure: Figure) -> bytes:
    """PNG file of the figure."""
    for text in figure.findobj(Text):
        text.set_fontfamily(_fonts())
        text.set_text(printable(text.get_text()))
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box: no font has it
        figure.savefig(stream, format="png")
    return stream.getvalue()


def log_axis(ax: Axes, label: str, form: Callable[[float], str]) -> None:
    """Make the x axis logarithmic, with ticks at a few round numbers written by `form`."""
    ax.set_xscale("log")
    low, high = (limit * factor for limit, factor in zip(ax.get_xlim(), (0.9, 1.1), strict=True))
    ax.set(xlabel=label, xlim=(low, high))
    round_ticks(ax.xaxis, low, high, form)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def round_ticks(axis: Axis, low: float, high: float, form: Callable[[float], str]) -> None:
    """Put the ticks of a logarithmic axis at round numbers, written by `form`."""
    axis.set_major_locator(FixedLocator(round_numbers(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axis.set_minor_locator(NullLocator())


def round_numbers(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis between two limits: three to five numbers of few digits, fewer if there are none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 5)]
    # A narrow range, on which a logarithmic axis is nearly linear.
    steps = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(f"{step:.6g}") for step in steps if low <= step <= high]
