"""Figures of matplotlib without a display: titles and labels that fit, number formats, axes, an atomic write."""

import io
import math
import os
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
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

from cnnbench.utils.console import warn
from cnnbench.utils.format import shorten, shorten_apart
from cnnbench.utils.text import printable

FONT = "DejaVu Sans"  # of matplotlib
# Fonts for the scripts that it lacks, used where they are needed and installed. Emoji: of outlines alone.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC",
                  "Noto Sans KR", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
                  "IPAexGothic", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
                  "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS", "Noto Emoji",
                  "Segoe UI Emoji", "Segoe UI Symbol", "Symbola", "Noto Sans Symbols 2",
                  "Noto Sans Symbols2")  # fmt: skip
TITLE_LINES = 4  # of a title; what is more is shortened
TITLE_LINE = 0.19  # inches of one

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#767676"  # Okabe and Ito's blue and vermillion


_subject: ContextVar[str] = ContextVar("subject", default="")


@contextmanager
def pictures_of(subject: str) -> Iterator[None]:
    """Begin the title of each picture that is drawn inside with a line on what it shows, `resnet8 on digits`, unless
    it does so already."""
    before = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(before)


def title_lines(title: str, width: float) -> list[str]:
    """Lines of a title above a figure so many inches wide, broken between words and not clipped."""
    if not title.startswith(_subject.get()):
        title = f"{_subject.get()}\n{title}"
    limit = int(width * 11)  # characters of 11 points
    lines = [line for text in title.splitlines() for line in _wrapped(text, limit)]
    first, rest = lines[: TITLE_LINES - 1], " ".join(lines[TITLE_LINES - 1 :])
    return [short_label(line, limit) for line in [*first, *([rest] if rest else [])]]


def _wrapped(text: str, limit: int) -> list[str]:
    return textwrap.wrap(text, limit, break_long_words=False, break_on_hyphens=False)


def title_height(title: str, width: float) -> float:
    """Inches of a title above a figure so many inches wide, with a little room below."""
    return 0.09 + TITLE_LINE * len(title_lines(title, width))


def new_figure(width: float, height: float, title: str, layout: Any = "constrained", dpi: int = 120) -> Figure:
    """Figure with a title, of a size in inches, made without pyplot."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    title = "\n".join(title_lines(title, width))
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
    return _escaped(shorten(printable(str(name)), width))


def short_labels(names: Iterable[str], width: int) -> dict[str, str]:
    """Labels of names, each as `short_label`; those that would then look alike are cut where they differ."""
    printed = {name: printable(name) for name in names}
    short = shorten_apart(printed.values(), width)
    return {name: _escaped(short[text]) for name, text in printed.items()}


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")


def array(values: Any) -> np.ndarray:
    """Numpy array of a tensor, on any device and of any dtype, or of a sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()  # numpy knows no bfloat16
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


@cache
def _fallbacks() -> list[str]:
    """Fallback fonts that are installed, among them those that matplotlib's list of fonts is too old for."""
    manager = font_manager.fontManager
    listed = {font.fname for font in manager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in listed:
            with suppress(Exception):  # damaged, or of a kind that matplotlib does not read
                manager.addfont(file)
    installed = set(manager.get_font_names())
    return [name for name in FALLBACK_FONTS if name in installed]


@cache
def _characters(font: str) -> frozenset[str]:
    """Characters that a font has."""
    return frozenset(map(chr, font_manager.get_font(font_manager.findfont(font)).get_charmap()))


_said: set[str] = set()  # characters that no font has


def _fonts_for(text: str) -> list[str]:
    """Fonts for the characters of a text. Says once of those that none has that boxes stand for them."""
    lacking = {char for char in text if not char.isspace()} - _characters(FONT)
    fallbacks = _fallbacks() if lacking else []
    lacking -= frozenset[str]().union(*map(_characters, fallbacks))
    if new := sorted(lacking - _said):
        _said.update(new)
        shown = " ".join(new[:10]) + (f" and {len(new) - 10} more" if len(new) > 10 else "")
        warn(f"no font of this machine has {shown}: pictures show a box instead; "
             "Noto Sans CJK and Noto Emoji have the most, if you install them")  # fmt: skip
    return [FONT, *fallbacks]


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
    texts: list[Text] = figure.findobj(Text)
    for text in texts:
        text.set_text(printable(text.get_text()))
    fonts = _fonts_for("".join({text.get_text() for text in texts}))
    for text in texts:
        text.set_fontfamily(fonts)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # said above, in plain words
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
