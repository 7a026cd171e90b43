"""Lines of an RRF table that pass filters, each with its rank among the lines of its concept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .distinct_lists import distinct_lists
from .rrf_tables import read_rrf_table


def filtered_lines(
    name: str,
    path: Path,
    fields: Sequence[str],
    filters: Mapping[str, Sequence[str]] = MappingProxyType({}),
    preferences: Mapping[str, Sequence[str]] = MappingProxyType({}),
    wanted: pa.Array | None = None,
) -> tuple[pa.Table, Counter[str]]:
    """Read some fields of the lines that pass filters into memory.

    Args:
        name: a table of `RRF_TABLES`.
        path: the file, plain or gzip.
        fields: fields to return.
        filters: field -> values of which a line has one; without any, all pass.
        preferences: fields and their values, best first, that decide the rank.
        wanted: CUIs of the lines; None: any.

    Returns:
        The fields, and ``rank`` (int16), the best first; and the number of ``lines`` in the file,
        and of those that each filter left out, by its field.

    Raises:
        UserError: as `read_rrf_table`.
    """
    schema = pa.schema({**dict.fromkeys(fields, pa.string()), "rank": pa.int16()})
    counts: Counter[str] = Counter()
    blocks = []
    for block in read_rrf_table(name, path, [*dict.fromkeys([*fields, *filters, *preferences])]):
        counts["lines"] += len(block)
        if wanted is not None:
            block = block.filter(pc.is_in(block["CUI"], wanted))
        for field, values in filters.items():
            retained = passing_lines(block, field, values)
            counts[field] += len(block) - len(retained)
            block = retained
        columns = [*(block[field] for field in fields), _ranks(block, preferences)]
        blocks.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(blocks, schema), counts


def passing_lines(block: pa.RecordBatch, field: str, values: Sequence[str]) -> pa.RecordBatch:
    """The lines whose field has one of the values; all if there are none."""
    return block.filter(pc.is_in(block[field], pa.array(values, pa.string()))) if values else block


def values_by_cui(
    lines: pa.Table, column: str, cuis: pa.Array | None = None
) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, by default those of `filtered_lines`, and the distinct values of each, by rank."""
    if cuis is None:
        cuis = lines["CUI"].unique()
    rows = pc.index_in(lines["CUI"], cuis)
    lines = lines.filter(pc.is_valid(rows))
    rows = rows.drop_null().to_numpy().astype(np.int64)
    return cuis, distinct_lists(rows, lines[column], len(cuis), lines["rank"].to_numpy())


def _ranks(block: pa.RecordBatch, preferences: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Rank of each line, (n,) int16, the best first, by fields and their values, best first."""
    rank = np.zeros(len(block), np.int64)
    for field, values in preferences.items():
        positions = pc.index_in(block[field], pa.array(values, pa.string()))
        rank = rank * (len(values) + 1) + positions.fill_null(len(values)).to_numpy()
    return rank.astype(np.int16)
