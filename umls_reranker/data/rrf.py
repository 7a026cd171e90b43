"""Concepts of a UMLS release: MRCONSO (names), MRSTY (semantic types), MRDEF (definitions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from .columns import CONCEPT_SCHEMA, distinct_lists
from .rrf_tables import read_table

# What makes a name preferred, after its language: field, and its values from best to worst.
PREFERENCES = (("TS", ("P", "S", "p", "s")), ("STT", ("PF",)), ("ISPREF", ("Y",)))


def read_rrf_concepts(
    files: Mapping[str, Path],
    *,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a release's concepts, sorted by CUI whatever the order of the files.

    The preferred name is the release's own choice: by language (in the order of `languages`), term status TS (P, S,
    then the suppressible p, s), string type STT (PF first), ISPREF (Y first), then order of file. Equal names of a
    concept are given once. Suppressed names and definitions are left out. The definition is the first one that passes
    `sources`. Memory holds the names that pass the filters, twice while they are sorted.

    Args:
        files: ``MRCONSO``, ``MRSTY`` and, when wanted, ``MRDEF``, as `release_files` gives them.
        languages: LAT values kept; empty keeps all.
        sources: SAB values kept; empty keeps all.

    Returns:
        The concepts in `CONCEPT_SCHEMA`, and a report of what was read: ``names_read``, ``names_kept`` and ``dropped``
        (names by filter).

    Raises:
        UserError: a file is missing, empty or damaged; a line is malformed (names file and line); or no name
            passes the filters (names the filter).
    """
    cuis, names, report = read_names(files["MRCONSO"], languages, sources)
    first = pa.array(names.offsets.to_numpy()[:-1])
    is_synonym = np.ones(len(names.values), bool)
    is_synonym[first.to_numpy()] = False
    starts = names.offsets.to_numpy() - np.arange(len(cuis) + 1)
    synonyms = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), names.values.filter(pa.array(is_synonym)))
    definitions: pa.Array = pa.array([""], pa.string()).take(pa.array(np.zeros(len(cuis), np.int64)))
    if "MRDEF" in files:
        _, lists = _read_values("MRDEF", "DEF", files["MRDEF"], cuis, {"SUPPRESS": ["N"], "SAB": sources})
        definitions = pc.fill_null(_first_of_each(lists), "")
    _, types = read_types(files["MRSTY"], cuis)
    columns = [cuis, names.values.take(first), synonyms, types, definitions]
    return pa.table(columns, schema=CONCEPT_SCHEMA), report


def read_names(
    path: Path, languages: Sequence[str] = ("ENG",), sources: Sequence[str] = (), wanted: pa.Array | None = None
) -> tuple[pa.StringArray, pa.ListArray, dict[str, Any]]:
    """Read the names of MRCONSO that pass the filters.

    Args:
        path: the file.
        languages: LAT values kept, in order of preference; empty keeps all.
        sources: SAB values kept; empty keeps all.
        wanted: read only these CUIs, of which the file may have none; None reads all.

    Returns:
        The CUIs, ascending; the names of each, the preferred one first; and the counts of the report.

    Raises:
        UserError: as `read_rrf_concepts`.
    """
    filters = {"LAT": languages, "SAB": sources, "SUPPRESS": ["N"]}
    dropped = {"LAT": 0, "SAB": 0, "SUPPRESS": 0}
    schema = pa.schema({"cui": pa.string(), "name": pa.string(), "rank": pa.int16()})
    lines, blocks = 0, []
    for block in read_table("MRCONSO", path, ["CUI", "STR", *filters, *(field for field, _ in PREFERENCES)]):
        lines += len(block)
        if wanted is not None:
            block = block.filter(pc.is_in(block["CUI"], wanted))
        for field, values in filters.items():
            passing = _passing(block, field, values)
            dropped[field] += len(block) - len(passing)
            block = passing
        rank = _positions(block["LAT"], languages) if len(languages) > 1 else np.zeros(len(block), np.int64)
        for field, values in PREFERENCES:
            rank = rank * (len(values) + 1) + _positions(block[field], values)
        blocks.append(pa.record_batch([block["CUI"], block["STR"], rank.astype(np.int16)], schema=schema))
    names = pa.Table.from_batches(blocks, schema)
    if not len(names) and wanted is None:
        counts = ", ".join(f"{field} {values} leaves out {dropped[field]:,}" for field, values in filters.items())
        raise UserError(f"{path}: none of {lines:,} names passes the filters ({counts}); change languages or sources")
    cuis = names["cui"].unique()
    cuis = cuis.take(pc.sort_indices(cuis))
    rows = pc.index_in(names["cui"], cuis).to_numpy().astype(np.int64)
    report = {"names_read": lines, "names_kept": len(names), "dropped": dropped}
    texts, ranks = names["name"], names["rank"].to_numpy()
    # Frees the other columns of millions of rows.
    del names, blocks
    return cuis, distinct_lists(rows, texts, len(cuis), ranks), report


def read_types(path: Path, cuis: pa.Array | None = None) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, and the semantic types (TUI) of each from MRSTY; None reads all.

    Raises:
        UserError: as `read_table`.
    """
    return _read_values("MRSTY", "TUI", path, cuis, {})


def _read_values(
    table: str, column: str, path: Path, cuis: pa.Array | None, filters: Mapping[str, Sequence[str]]
) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, by default those of the file, and the distinct values of a column for each, in file order."""
    schema = pa.schema({"CUI": pa.string(), column: pa.string()})
    blocks = []
    for block in read_table(table, path, ["CUI", column, *filters]):
        for field, values in filters.items():
            block = _passing(block, field, values)
        blocks.append(block.select(schema.names))
    lines = pa.Table.from_batches(blocks, schema)
    if cuis is None:
        cuis = lines["CUI"].unique()
    rows = pc.index_in(lines["CUI"], cuis)
    is_known = pc.is_valid(rows)
    known = rows.filter(is_known).to_numpy().astype(np.int64)
    return cuis, distinct_lists(known, lines[column].filter(is_known), len(cuis))


def _first_of_each(lists: pa.ListArray) -> pa.Array:
    """The first value of each list, null for an empty one."""
    offsets = lists.offsets.to_numpy()
    return lists.values.take(pa.array(offsets[:-1], mask=np.diff(offsets) == 0))


def _passing(block: pa.RecordBatch, field: str, values: Sequence[str]) -> pa.RecordBatch:
    """The lines whose field has one of the values; all if there are none."""
    return block.filter(pc.is_in(block[field], pa.array(values))) if values else block


def _positions(column: pa.Array, values: Sequence[str]) -> np.ndarray:
    """Index of each text in `values`, (n,), int64; the length of `values` if missing."""
    return pc.index_in(column, pa.array(values)).fill_null(len(values)).to_numpy().astype(np.int64)
