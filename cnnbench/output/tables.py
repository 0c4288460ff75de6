"""Rows of results as text: a terminal table, JSON, CSV or Markdown."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TextIO

from cnnbench.config.sections import Format
from cnnbench.utils.files import json_text
from cnnbench.utils.format import display_width, is_number, wrapped
from cnnbench.utils.text import printable

ENDINGS = {".json": Format.json, ".csv": Format.csv, ".md": Format.markdown, ".txt": Format.table}  # of files
NARROWEST = 14  # columns of a terminal that a wrapped column keeps
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what text begins with that spreadsheets run


def for_people(format: Format) -> TextIO:
    """Stream for people: stdout, unless that is for the result alone."""
    return sys.stdout if format is Format.table else sys.stderr


def render(rows: Sequence[Mapping[str, Any]], format: Format) -> str:
    """Text of the rows, without a final newline. Columns are in the order in which the rows first name them.

    JSON and CSV keep the values as they are (JSON has no NaN or infinity: they become null); the table and Markdown
    round them for reading.
    """
    if format is Format.json:
        return json_text(rows, ascii=False, default=str)
    if format is Format.csv:
        names = _names(rows)
        return csv_text([names, *([row.get(name) for name in names] for row in rows)])
    return (_markdown if format is Format.markdown else _table)(*cells(rows))


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Row with its dictionaries and lists as JSON: one value in each cell."""
    return {key: json_text(value, indent=None) if isinstance(value, dict | list) else value
            for key, value in row.items()}  # fmt: skip


def one_line(text: str) -> str:
    """Text without line breaks, and without what would command a terminal."""
    return printable(" ".join(text.split()))


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[bool]]:
    """Columns as text, each with its heading first, and whether each is numeric."""
    names = _names(rows)
    shown = [_column(name, [row.get(name) for row in rows]) for name in names]
    return shown, [_is_numeric(row.get(name) for row in rows) for name in names]


def fitted(
    rows: Sequence[Mapping[str, Any]], format: Format, width: int | None, dispensable: Sequence[str] = (),
    elsewhere: Sequence[str] = (), how: str = "add | cat",
) -> str:  # fmt: skip
    """Table without the dispensable columns, dropped in this order, that do not fit into the width of the terminal; a
    last line names them. elsewhere: those that the caller shows in another place, which are not named; how: to see all.

    If it does not fit without them either, the cells of its widest columns of text are wrapped.
    """
    if format is not Format.table or width is None or not rows:
        return render(rows, format)
    every = _names(rows)
    for column in dispensable:
        if max(map(display_width, render(rows, format).splitlines())) <= width:
            break
        rows = [{key: value for key, value in row.items() if key != column} for row in rows]
    left = [name for name in every if name not in (*_names(rows), *elsewhere)]
    note = f"not shown, for lack of width: {', '.join(left)} ({how} to see all)"
    return "\n".join([_table(*cells(rows), width), *(wrapped(note, width) if left else [])])


def _table(columns: list[list[str]], right: list[bool], most: int | None = None) -> str:
    widths = _narrowed([max(map(display_width, cells)) for cells in columns], right, most)
    lines = [
        line for row in zip(*columns, strict=True) for line in zip_longest(*map(_wrapped, row, widths), fillvalue="")
    ]
    return "\n".join("  ".join(map(_pad, line, widths, right)).rstrip() for line in lines)


def _narrowed(widths: list[int], right: list[bool], most: int | None) -> list[int]:
    """Widths with which the table fits into `most` columns of a terminal, as far as its columns of text allow it."""
    text = [number for number, flag in enumerate(right) if not flag]
    while most and text and sum(widths) + 2 * (len(widths) - 1) > most:
        widest = max(text, key=lambda number: widths[number])
        if widths[widest] <= NARROWEST:
            break
        widths = [width - (number == widest) for number, width in enumerate(widths)]
    return widths


def _wrapped(cell: str, width: int) -> list[str]:
    return [cell] if display_width(cell) <= width else wrapped(cell, width)


def _markdown(columns: list[list[str]], right: list[bool]) -> str:
    columns = [[cell.replace("|", "\\|") for cell in cells] for cells in columns]
    columns = [[head, "---:" if flag else "---", *cells] for (head, *cells), flag in zip(columns, right, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Text of the rows, the headings first, without a final newline."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue().rstrip("\n")


def csv_cell(value: Any) -> Any:
    """Value for CSV. Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers do not."""
    if value is None or isinstance(value, int | float):
        return value
    text = printable(str(value))
    return f"'{text}" if text.startswith(FORMULA) and not is_number(text) else text


def _pad(cell: str, width: int, right: bool) -> str:
    space = " " * (width - display_width(cell))
    return space + cell if right else cell + space


def _column(name: str, values: list[Any]) -> list[str]:
    """Heading and cells of one column. Its floats have the same number of decimals where no digit is lost."""
    spec = _float_format([abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v])
    return [one_line(name), *(_cell(value, spec) for value in values)]


def _cell(value: Any, spec: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return format(value, spec or (",.0f" if abs(value) >= 1e4 else ".4g"))
    return one_line(str(value))


def _float_format(magnitudes: list[float]) -> str:
    """Format with four significant digits for the largest; "" where the smallest would lose their digits."""
    if not magnitudes:
        return ".0f"
    decimals = max(0, 3 - math.floor(math.log10(max(magnitudes))))
    if decimals > 6 or min(magnitudes) * 10**decimals < 10:
        return ""
    while decimals and all(math.isclose(value, round(value, decimals - 1), rel_tol=1e-9) for value in magnitudes):
        decimals -= 1
    return f",.{decimals}f"


def _is_numeric(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
