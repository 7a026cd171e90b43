"""The door: mentions in any form become one Arrow table, and nothing behind it asks what they were.

A table of a file or a program stays as it is. Mappings become a column with each of them in JSON,
from which they are given back as they came, and beside it a column for each key that is read. A
column whose values Arrow has no one type for holds them in JSON (`columns.JSON`), and is refused
where it is read, by row and key.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from typing import Any

import pyarrow as pa

from ..core.arrow_files import one_chunk
from ..core.errors import UserError
from ..vocab.type_sets import type_lists
from .candidates import candidate_structs
from .columns import (
    JSON,
    TEXT,
    TYPES,
    ColumnChecker,
    arrow_column,
    as_text,
    json_column,
    python_values,
)
from .gold import GOLD_KEYS

# The column of mappings, each in JSON.
LINE = "line"
# The key of a row in an output that could not be read or ranked, with the reason.
ERROR = "error"
# The key of what a reader of files found wrong with a row; a name that no input has.
READING_ERROR = "umls_reranker:reading_error"
CANDIDATES = "candidates"
# Keys of a document's text, and of its spans.
TEXT_KEYS = ("document", "text")
SPAN_KEYS = ("spans", "entities", "mentions")
# Keys of a row that a reviewer answered: the id, `gold.CUI_LESS` for none, and its name.
REVIEWED = "reviewed_id"
REVIEWED_NAME = "reviewed_name"
# The keys of mappings that are read, but for candidates.
READ_KEYS = (
    "entity",
    "mention",
    "entity_type",
    "left",
    "right",
    "index_key",
    "doc_id",
    "mention_id",
    *GOLD_KEYS,
    "id",
    "is_random_sample",
    "split",
    "start",
    "end",
    *TEXT_KEYS,
    *SPAN_KEYS,
    REVIEWED,
    REVIEWED_NAME,
    READING_ERROR,
)
# The Arrow types of columns whose values are all of one Python type.
ARROW_TYPES: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


def mention_table(
    mentions: Sequence[str],
    candidates: Sequence[Collection[Any]],
    types: Sequence[str | Iterable[str] | None] | None = None,
    lefts: Sequence[str | None] | None = None,
    rights: Sequence[str | None] | None = None,
    index_keys: Sequence[str] | None = None,
    *,
    scores: Iterable[str] = (),
) -> pa.Table:
    """The table of n mentions and their candidates, of which each argument is a column.

    Args:
        mentions: n texts.
        candidates: the candidates of each mention: names, mappings or objects, as for
            `UMLSReranker.rerank`.
        types: types of n mentions, each an id or name or several; None: no mention has one.
        lefts: n texts before the mentions; None: there is none.
        rights: n texts after the mentions; None: there is none.
        index_keys: for n mentions the key of the index that gave their candidates; None: unknown.
        scores: as for `candidates.candidate_structs`.

    Raises:
        InvalidRow: a value is of the wrong type, or a candidate has no name; names its position,
            and its mention if there are several.
        TypeError: an argument is not a list.
        ValueError: the arguments are of different lengths.
    """
    require_lists(
        entities=mentions,
        candidates=candidates,
        entity_types=types,
        lefts=lefts,
        rights=rights,
        index_keys=index_keys,
    )
    checker = ColumnChecker(len(mentions))
    texts = {"entity": mentions, "left": lefts, "right": rights, "index_key": index_keys}
    columns = {
        key: checker.converted(key, values, TEXT)
        for key, values in texts.items()
        if values is not None
    }
    if types is not None:
        columns["entity_type"] = checker.converted("entity_type", types, TYPES)
    columns[CANDIDATES] = candidate_structs(candidates, scores)
    return pa.table(columns)


def require_lists(**columns: Any) -> None:
    """Raise TypeError for a column that is a text or has no length, ValueError for unequal lengths.

    A text would be read as the list of its letters, a data frame as that of the names of its
    columns. None is allowed.
    """
    for name, values in columns.items():
        if (
            isinstance(values, str | bytes)
            or hasattr(values, "columns")
            or not isinstance(values, Sized | None)
        ):
            raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"columns need the same number of values, not {counts}")


def row_table(rows: Any, scores: Iterable[str] = ()) -> pa.Table:
    """The table of n rows: a table, a `datasets.Dataset`, a data frame, or mappings.

    Args:
        rows: the rows.
        scores: as for `candidates.candidate_structs`.

    Raises:
        UserError: a row is no mapping (it is named).
    """
    if hasattr(rows, "with_format"):
        rows = rows.with_format("arrow")[:]
    if isinstance(rows, pa.Table):
        return rows
    return table_of_mappings(mapping_rows(rows), scores)


def mapping_rows(rows: Any) -> list[dict[str, Any]]:
    """Mappings, or the rows of a data frame, as dicts; in messages the first is ``rows:1``.

    Raises:
        UserError: a row is no mapping (it is named).
    """
    if hasattr(rows, "itertuples"):
        # An empty cell is a NaN in columns of any type.
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    content = list(rows)
    for number, row in enumerate(content, start=1):
        if not isinstance(row, Mapping):
            raise UserError(f"rows:{number}: {row!r:.60} is no row; give mappings by key")
    return [dict(row) for row in content]


def table_of_mappings(rows: Sequence[Mapping[str, Any]], scores: Iterable[str] = ()) -> pa.Table:
    """The table of n mappings: each in JSON, and a column for each key that is read.

    Args:
        rows: the mappings.
        scores: as for `candidates.candidate_structs`.
    """
    columns = {LINE: _lines(rows)}
    keys: set[str] = set().union(*rows)
    for key in READ_KEYS:
        if key in keys:
            columns[key] = _plain_column([row.get(key) for row in rows])
    if CANDIDATES in keys:
        candidates = [row.get(CANDIDATES) for row in rows]
        columns[CANDIDATES] = arrow_column(candidates, lambda each: candidate_structs(each, scores))
    return pa.table(columns)


def _lines(rows: Iterable[Mapping[str, Any]]) -> pa.Array:
    """Mappings in JSON, with texts for values of other types."""
    return pa.array([json.dumps(row, default=as_text) for row in rows], JSON)


def _plain_column(values: Sequence[Any]) -> pa.Array:
    """Values of one plain type as a column of that type, others in JSON."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    kind = kinds.pop()
    if kinds or kind not in (*ARROW_TYPES, list):
        return json_column(values, as_text)
    if kind is list:
        return arrow_column(values, type_lists)
    return arrow_column(values, lambda each: pa.array(each, ARROW_TYPES[kind]))


def has_lines(table: pa.Table) -> bool:
    """Whether a table is of mappings."""
    return LINE in table.column_names and table.schema.field(LINE).type == JSON


def as_brought(table: pa.Table) -> pa.Table:
    """Of a table of mappings only these, without the columns that are read; others as they are."""
    return table.select([LINE]) if has_lines(table) else table


def mappings_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python objects; those of mappings as they were given."""
    if has_lines(table):
        return python_values(one_chunk(table[LINE]))
    return table.to_pylist()


def row_column(table: pa.Table, key: str) -> pa.Array:
    """The values of a key in each of n rows, null where it is missing."""
    has_key = key in table.column_names
    return one_chunk(table[key]) if has_key else pa.nulls(len(table), pa.string())


def first_values(table: pa.Table, *keys: str) -> list[Any]:
    """The value of the first of some keys that each of n rows has, else None."""
    values: list[Any] = [None] * len(table)
    for key in keys:
        if key not in table.column_names:
            continue
        for row, value in enumerate(python_values(one_chunk(table[key]))):
            if values[row] is None:
                values[row] = value
    return values


def rows_at(table: pa.Table, numbers: Sequence[int]) -> pa.Table:
    """Some of the rows, by number."""
    if len(numbers) == len(table):
        return table
    # Slices, because not every column type can be filtered.
    return pa.concat_tables([table[:0], *(table[row : row + 1] for row in numbers)])
