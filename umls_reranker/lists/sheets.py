"""Rows of CSV and TSV, as text by column."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.text_files import read_table
from .reading_errors import naming
from .rows import RowPosition

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def sheet_rows(
    path: Path, *required: Sequence[str]
) -> Iterator[tuple[RowPosition, dict[str, str]]]:
    """The lines of a sheet that are not blank, as a program for tables may have written them.

    It may separate the cells by semicolons.

    Raises:
        UserError: the file cannot be read; names it.
    """
    with naming(path):
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        delimiter = max(";", DELIMITERS.get(path.suffix, ","), key=header.count)
        for number, row in table_rows(path, *required, delimiter=delimiter):
            cells = {column: cell.strip() for column, cell in row.items()}
            if any(cells.values()):
                yield RowPosition(path, number), cells


def table_rows(
    path: Path, *required: Sequence[str], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first line of each row of CSV or TSV, and its cells.

    The table has one of each of several alternative columns.
    """
    delimiter = delimiter or DELIMITERS[path.suffix]
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = read_table(path, stream, delimiter)
        _, columns = next(rows, (1, []))
        for name in columns:
            # Only the last would be read. Programs for tables leave several blank names.
            if name.strip() and columns.count(name) > 1:
                raise UserError(f"{path}: the first line names the column {name} more than once")
        for names in required:
            if not {*names} & {*columns}:
                raise UserError(
                    f"{path}: the first line names no column {' or '.join(names)}"
                    f"{_columns_found(columns, delimiter)}"
                )
        for number, cells in rows:
            yield number, dict(zip(columns, cells, strict=True))


def _columns_found(columns: Sequence[str], delimiter: str) -> str:
    """The columns of a table that lacks one, as the end of a message."""
    if not columns:
        return "; it has none"
    if columns[0][:1] in ("{", "["):
        return "; a file of JSON Lines must end in .jsonl"
    return f"; it has {reprlib.repr(list(columns))}, separated by {delimiter!r}"
