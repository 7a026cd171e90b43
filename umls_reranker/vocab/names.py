"""Dictionaries as one file: a table with a name a row, or BioSyn's form with a concept a line.

Tables (CSV, TSV, JSON Lines, Parquet) have the columns ``id`` and ``name``, and may have
``preferred`` (true for the preferred name; else it is the first) and ``semantic_type``. In BioSyn's
form a line is ``id|id||name|name``. ``|`` in an id separates alternates of one concept, whose id is
the first; in ``semantic_type`` it separates types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from ..core.text_files import open_binary, start_of
from .concepts import NameLists, distinct_lists, table_of_lists
from .types import SEPARATOR, TypeHierarchy, TypeSets

REQUIRED = ("id", "name")
COLUMNS = (*REQUIRED, "preferred", "semantic_type")
TRUE = pa.array(["1", "1.0", "true", "yes"])
EMPTY = pa.array([""])
BIOSYN = r"(?P<id>.*?)\|\|(?P<name>.*)"


def read_name_lists(path: Path) -> NameLists:
    """Read a file of names, plain or gzip, in a form recognized by its content, into memory.

    Returns:
        Ids and distinct names of n concepts, the ids or names of their semantic types, as in the
        file, and their alternate ids, without those that are another concept's own.

    Raises:
        UserError: the file is missing, empty, damaged or without the columns; or an id or a name is
            empty (names the row).
    """
    columns, separator = _read_columns(path)
    first = pc.utf8_trim_whitespace(pc.list_element(pc.split_pattern(columns["id"], "|"), 0))
    is_empty = pc.or_(pc.equal(first, ""), pc.equal(columns["name"], "")).to_numpy(
        zero_copy_only=False
    )
    if is_empty.any() or not len(first):
        row = is_empty.argmax() + 1 if len(first) else 1
        raise UserError(f"{path}: row {row} needs an id and a name; add them")
    ids = first.unique()
    ids = ids.take(pc.sort_indices(ids))
    rows = pc.index_in(first, ids).to_numpy().astype(np.int64)
    is_preferred = pc.is_in(pc.utf8_lower(columns["preferred"]), TRUE).to_numpy(
        zero_copy_only=False
    )

    def lists(name: str, left_out: pa.StringArray, separator: str = "|") -> pa.ListArray:
        parts = pc.split_pattern(columns[name], separator)
        texts = pc.utf8_trim_whitespace(pc.list_flatten(parts))
        is_retained = pc.invert(pc.is_in(texts, left_out))
        owner = pc.list_parent_indices(parts).filter(is_retained).to_numpy()
        retained = pa.chunked_array([texts.filter(is_retained)])
        return distinct_lists(rows[owner], retained, len(ids), ~is_preferred[owner])

    return NameLists(
        ids=ids,
        names=lists("name", EMPTY, separator),
        types=lists("semantic_type", EMPTY),
        alternates=lists("id", pa.concat_arrays([ids, EMPTY])),
    )


def read_name_concepts(path: Path, hierarchy: TypeHierarchy) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file of names as concepts in `CONCEPT_SCHEMA`, sorted by id.

    Returns:
        The concepts; and a report with their number of ``names``, and the first ``unknown_types``,
        which `hierarchy` lacks.
    """
    lists = read_name_lists(path)
    resolved, unknown = TypeSets.of_lists(lists.types).resolved(hierarchy)
    sets = pa.array(map(list, resolved.sets), pa.list_(pa.string()))
    report = {"names": len(lists.names.values), "unknown_types": unknown[:12]}
    return table_of_lists(lists._replace(types=sets.take(pa.array(resolved.codes)))), report


def _read_columns(path: Path) -> tuple[dict[str, pa.StringArray], str]:
    """The columns by name, stripped, empty where the file has none; and what separates names."""
    from pyarrow import csv, json, parquet

    start = start_of(path)
    header = start.split(b"\n", 1)[0]
    separator = SEPARATOR
    try:
        with open_binary(path) as stream:
            if start.startswith(b"PAR1"):
                table = parquet.read_table(path)
            elif header.startswith(b"{"):
                table = json.read_json(stream)
            elif b"||" in header:
                separator = "|"
                lines = filter(None, stream.read().decode("utf-8-sig").split("\n"))
                fields = pc.extract_regex(pa.array(lines, pa.string()), BIOSYN)
                table = pa.Table.from_struct_array(fields)
            else:
                parsing = csv.ParseOptions(delimiter="\t" if b"\t" in header else ",")
                texts = csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
                table = csv.read_csv(stream, parse_options=parsing, convert_options=texts)
        columns = {}
        for name in COLUMNS:
            has_column = name in {*REQUIRED, *table.column_names}
            column = table[name] if has_column else pa.nulls(len(table))
            texts = pa.chunked_array(column.cast(pa.string())).combine_chunks()
            columns[name] = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as a table with the columns id and name ({error})"
        ) from None
    return columns, separator
