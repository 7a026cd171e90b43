"""The rows of a file of names: a table of CSV, TSV, JSON Lines or Parquet, or BioSyn's form.

A table has the columns ``id`` and ``name``, and may have ``preferred`` (true for the preferred
name; else it is the first) and ``semantic_type``. In BioSyn's form a line is ``id|id||name|name``.
``|`` in an id separates alternates of one concept, whose id is the first; in ``semantic_type`` it
separates types.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from ..core.json_files import RepeatedKey, marking_repeated
from ..core.text_files import open_binary, read_lines, read_table, start_of
from .concepts import ROWS_PER_BATCH
from .type_sets import UNIT_SEPARATOR

Row = TypeVar("Row")
REQUIRED_COLUMNS = ("id", "name")
NAME_COLUMNS = (*REQUIRED_COLUMNS, "preferred", "semantic_type")
# Of a file of names, which is read into memory; a whole UMLS release has 17 million names.
MOST_NAME_ROWS = 30_000_000
# In a cell of ids: the first is the concept's, the others are its alternates.
ALTERNATE_SEPARATOR = "|"
PARQUET_START = b"PAR1"
# A text of one line.
ONE_LINE = r"^[^\r\n]+$"
# A cell of TSV that quotes enclose; those inside are doubled.
QUOTED_CELL = r'^"([^"]|"")*"$'
BIOSYN_SEPARATOR = b"||"
BIOSYN_NAME_SEPARATOR = "|"
BIOSYN_LINE = r"(?P<id>.*?)\|\|(?P<name>.*)"


class NameRows(NamedTuple):
    """n rows of a file of names.

    Attributes:
        ids: the concept id of each, the first in its cell.
        columns: the cells of each of `NAME_COLUMNS`, stripped; empty where there is no such column.
        lines: (n,) int64, the line of each; of Parquet its number, from 1.
        separator: what separates names in a cell.
    """

    ids: pa.StringArray
    columns: dict[str, pa.StringArray]
    lines: np.ndarray
    separator: str


class CellTable(NamedTuple):
    """The cells of a file, as the reader of its form gives them.

    Attributes:
        cells: n rows of the file's own columns.
        lines: (n,) int64, the line of each row; of Parquet its number, from 1.
        separator: what separates names in a cell; by default what no name contains.
    """

    cells: pa.Table
    lines: np.ndarray
    separator: str = UNIT_SEPARATOR


def read_name_rows(path: Path) -> NameRows:
    """Read the rows of a file of names, plain or gzip, in a form recognized by its content.

    Raises:
        UserError: the file is missing, empty, damaged or without the columns; or a row is malformed
            or without an id and a name of one line (names the line).
    """
    try:
        table = _read_cells(path)
        columns = _name_columns(table.cells)
    except (pa.ArrowException, KeyError, UnicodeError) as error:
        raise UserError(
            f"{path} cannot be read as a table with the columns id and name ({error})"
        ) from None
    ids_of_rows = pc.split_pattern(columns["id"], ALTERNATE_SEPARATOR)
    ids = pc.utf8_trim_whitespace(pc.list_element(ids_of_rows, 0))
    has_id = pc.match_substring_regex(ids, ONE_LINE)
    has_name = pc.match_substring_regex(columns["name"], ONE_LINE)
    is_complete = pc.and_(has_id, has_name).to_numpy(zero_copy_only=False)
    incomplete_lines = table.lines[~is_complete]
    if len(incomplete_lines) or not len(table.lines):
        line = incomplete_lines[0] if len(incomplete_lines) else 1
        raise UserError(f"{path}:{line}: a row needs an id and a name, each of one line; add them")
    return NameRows(ids, columns, table.lines, table.separator)


def _read_cells(path: Path) -> CellTable:
    """The cells of a file of any form."""
    start = start_of(path)
    header = start.split(b"\n", 1)[0]
    if start.startswith(PARQUET_START):
        from pyarrow import parquet

        cells = parquet.read_table(path)
        return CellTable(cells, np.arange(1, len(cells) + 1))
    if header.startswith(b"{"):
        return _table_of_rows(NAME_COLUMNS, _bounded_rows(path, _json_rows(path)))
    if BIOSYN_SEPARATOR in header:
        return _biosyn_table(path)
    delimiter = "\t" if b"\t" in header else ","
    return _text_table(path, delimiter)


def _name_columns(cells: pa.Table) -> dict[str, pa.StringArray]:
    """The cells of each of `NAME_COLUMNS`, stripped; empty where there is no such column.

    Raises:
        KeyError: a required column is missing.
    """
    if "id" not in cells.column_names:
        cells = cells.rename_columns({"ids": "id"})
    columns = {}
    for name in NAME_COLUMNS:
        has_column = name in {*REQUIRED_COLUMNS, *cells.column_names}
        column = cells[name] if has_column else pa.nulls(len(cells))
        texts = pa.chunked_array(column.cast(pa.string())).combine_chunks()
        columns[name] = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    return columns


def _biosyn_table(path: Path) -> CellTable:
    lines = _bounded_rows(path, read_lines(path))
    texts = pa.array([line.decode() for _, line in lines], pa.string())
    has_text = pc.not_equal(texts, "")
    fields = pc.extract_regex(texts.filter(has_text), BIOSYN_LINE)
    numbers = np.flatnonzero(has_text) + 1
    return CellTable(pa.Table.from_struct_array(fields), numbers, BIOSYN_NAME_SEPARATOR)


def _text_table(path: Path, delimiter: str) -> CellTable:
    """CSV; or TSV, each line of which is a row: quotes are such only around a whole cell."""
    is_csv = delimiter == ","
    with open_binary(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        rows = read_table(path, text, delimiter, is_csv)
        _, header = next(rows, (1, [""]))
        repeated = [name for name in header if header.count(name) > 1]
        if repeated:
            raise UserError(
                f"{path}:1: the column {repeated[0]!r} is named more than once; remove one of them"
            )
        table = _table_of_rows(header, _bounded_rows(path, rows))
    if is_csv:
        return table
    unquoted = [_unquoted(column) for column in table.cells.columns]
    return table._replace(cells=pa.table(unquoted, header))


def _unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells of TSV without the quotes around them, which doubled those inside."""
    enclosed = pc.utf8_slice_codeunits(column, 1, -1)
    inner = pc.replace_substring(enclosed, '""', '"')
    return pc.if_else(pc.match_substring_regex(column, QUOTED_CELL), inner, column)


def _json_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The cells of `NAME_COLUMNS`, each row with its line.

    Arrow's own reader does not survive an object that is nested deeply.

    Raises:
        UserError: a line is no JSON object of texts (names the line).
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(
                line,
                object_pairs_hook=marking_repeated,
                parse_int=str,
                parse_float="{:.17g}".format,
            )
            if isinstance(row, RepeatedKey):
                raise ValueError(f"it has the key {row.key!r:.60} twice")
            row["preferred"] = str(row.get("preferred"))
            row.setdefault("id", row.get("ids"))
            cells = [row.get(name) for name in NAME_COLUMNS]
            # Fails for what is not text.
            "".join(filter(None, cells)).encode()
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a JSON object of texts ({error})") from None
        yield number, cells


def _bounded_rows(
    path: Path, rows: Iterable[tuple[int, Row]], most: int = MOST_NAME_ROWS
) -> Iterator[tuple[int, Row]]:
    """The rows of a file of names, each with its line, which are all kept in memory.

    Raises:
        UserError: there are more than `most`.
    """
    for count, (number, row) in enumerate(rows, start=1):
        if count > most:
            raise UserError(
                f"{path}:{number}: a file of names has at most {most:,} rows; divide it, and give "
                "index several dictionaries"
            )
        yield number, row


def _table_of_rows(names: Sequence[str], rows: Iterator[tuple[int, list[Any]]]) -> CellTable:
    """Rows of cells, each with its line, as a table with columns of these names."""
    schema = pa.schema(dict.fromkeys(names, pa.string()))
    tables = [schema.empty_table()]
    lines: list[int] = []
    while block := list(islice(rows, ROWS_PER_BATCH)):
        numbers, cells = zip(*block, strict=True)
        lines += numbers
        tables.append(pa.table(list(zip(*cells, strict=True)), schema=schema))
    return CellTable(pa.concat_tables(tables), np.array(lines, np.int64))
