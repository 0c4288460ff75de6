"""Tables that list files: CSV and TSV with a header, and Parquet. What is wrong with one is named by its line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cnnbench.data.layout import split_of
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import plural, some
from cnnbench.utils.named_files import typed_path

FILE_COLUMNS = ("file", "image", "path", "filename", "file_name", "name", "id")
CLASS_COLUMNS = ("class", "label", "category", "target")
SPLIT_COLUMNS = ("split", "set", "subset", "part")
PARQUET = (".parquet", ".pq")
INSTALL = "pip install 'cnnbench[parquet]'"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a table, each with the number of its line in the file (in Parquet, of the row)."""

    path: Path
    key: str  # the setting that names it, for messages
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def error(self, text: str, row: int | None = None) -> UserError:
        """UserError on the table, or on one of its rows."""
        where = f"'{self.path}'" if row is None else f"'{self.path}', {self.place(row)}"
        return UserError(f"{self.key}: {where}: {text}")

    def place(self, row: int) -> str:
        """`line 7`, where a row stands in the file."""
        return f"{'row' if self.path.suffix.lower() in PARQUET else 'line'} {self.lines[row]:,}"

    def columns(self, names: Mapping[str, Sequence[str]], needed: Sequence[str]) -> dict[str, list[str]]:
        """Values of the columns that there are, by the keys of `names`. UserError where a needed one is missing."""
        there = {name.casefold().strip(): number for number, name in enumerate(self.header)}
        at = {key: next((there[name] for name in choices if name in there), None) for key, choices in names.items()}
        if missing := [key for key in needed if at[key] is None]:
            raise self.error(f"there is no column {missing[0]}; its columns are {some(self.header)}")
        if not self.rows:
            raise self.error("there are no rows")
        return {key: [row[column].strip() for row in self.rows] for key, column in at.items() if column is not None}

    def splits(self, values: Sequence[str]) -> list[str]:
        """`train`, `val` or `test` for each value of the column of splits. UserError for another word."""
        known = {value: split_of(value) for value in set(values)}
        for row, value in enumerate(values):
            if known[value] is None:
                raise self.error(f"the split '{value}' is none of train, val and test", row)
        return [known[value] or "" for value in values]

    def places(self, files: Sequence[str], homes: Sequence[Path], *, must: bool = True) -> list[str]:
        """Path of each file, below the first of these folders that has it. UserError for one that is missing; where
        it need not be there (must), its path below the first folder."""
        if any(file.startswith("/") for file in files):
            homes = [home.absolute() for home in homes]  # so that all paths have one root
        found = [next((path for path in _below(homes, file) if Path(path).is_file()), "") for file in files]
        missing = [row for row, path in enumerate(found) if not path]
        if missing and must:
            more = f" ({len(missing) - 1:,} more are missing)" if len(missing) > 1 else ""
            raise self.error(f"there is no file '{files[missing[0]]}' in '{homes[0]}'{more}", missing[0])
        return [path or str(homes[0] / file) for path, file in zip(found, files, strict=True)]


def _below(homes: Sequence[Path], file: str) -> Iterator[str]:
    file = file.replace("\\", "/")  # of a table that was made under Windows
    return (file if file.startswith("/") else f"{home}/{file}" for home in homes)


def find_table(file: str, folder: Path) -> Path:
    """Path of the table that the user names: as it is typed, or below a folder."""
    given = typed_path(file)
    return next((path for path in (given, folder / given) if path.is_file()), given)


def read_table(path: Path, key: str) -> Table:
    """Table of CSV, TSV or Parquet that the setting `key` names. UserError where it cannot be read."""
    header, rows, lines = _parquet(path, key) if path.suffix.lower() in PARQUET else _text(path, key)
    table = Table(path=path, key=key, header=header, rows=rows, lines=lines)
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise table.error(
                f"it has {plural(len(row), 'value')}, but there are {plural(len(header), 'column')}", number
            )
    return table


def _text(path: Path, key: str) -> tuple[list[str], list[list[str]], list[int]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max("\t;,", key=first.count))
            numbered = [(reader.line_num, row) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{key}: cannot read the table '{path}': {_why(error)}") from None
    rows = [row for _, row in numbered]
    return (rows or [[]])[0], rows[1:], [line for line, _ in numbered[1:]]


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is no text in UTF-8 (from byte {error.start:,} on)"
    return str(error.strerror if isinstance(error, OSError) else error)


def _parquet(path: Path, key: str) -> tuple[list[str], list[list[str]], list[int]]:
    """As text; columns of anything but text and numbers are left out."""
    if find_spec("pyarrow") is None:
        raise UserError(f"{key}: to read '{path}' takes pyarrow: {INSTALL}, or write it as CSV")
    import pyarrow.parquet as pq
    from pyarrow import ArrowException, types

    try:
        if not path.is_file():
            raise FileNotFoundError(2, "No such file or directory")
        kept = [one.name for one in pq.read_schema(path) if not types.is_nested(one.type)]
        columns = pq.read_table(path, columns=kept).to_pydict()
    except (OSError, ArrowException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise UserError(f"{key}: cannot read the table '{path}': {reason}") from None
    rows = [["" if value is None else str(value) for value in row] for row in zip(*columns.values(), strict=True)]
    return list(columns), rows, list(range(1, len(rows) + 1))
