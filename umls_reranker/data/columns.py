"""Concepts as objects, and as Arrow tables for millions of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from .normalization import hash_names

CONCEPT_SCHEMA = pa.schema(
    {
        "cui": pa.string(),
        "name": pa.string(),
        "synonyms": pa.list_(pa.string()),
        "semantic_types": pa.list_(pa.string()),
        "definition": pa.string(),
    }
)
ROWS_PER_BATCH = 10_000
# An arbitrary odd number, which spreads row numbers over 64 bits.
ROW_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Attributes:
        cui: UMLS concept id, or another non-empty one.
        name: the preferred name.
        synonyms: other names, each once, without the preferred one.
        semantic_types: type ids; empty if the vocabulary has none.
        definition: one definition, or "".
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""


def concept_table(concepts: Iterable[Concept]) -> pa.Table:
    """The concepts as a table of `CONCEPT_SCHEMA`, in their order."""
    rows = list(concepts)
    columns = {name: [getattr(concept, name) for concept in rows] for name in CONCEPT_SCHEMA.names}
    return pa.Table.from_pydict(columns, CONCEPT_SCHEMA)


def iter_concepts(table: pa.Table) -> Iterator[Concept]:
    """Yield the rows of a table of `CONCEPT_SCHEMA`."""
    for batch in table.to_batches(ROWS_PER_BATCH):
        for cui, name, synonyms, types, definition in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            yield Concept(cui, name, tuple(synonyms), tuple(types), definition)


def count_typed(concepts: pa.Table) -> int:
    """Number of concepts with a semantic type."""
    return pc.sum(pc.greater(pc.list_value_length(concepts["semantic_types"]), 0)).as_py() or 0


def distinct_lists(
    rows: np.ndarray, values: pa.ChunkedArray, size: int, ranks: np.ndarray | None = None
) -> pa.ListArray:
    """The distinct values of each of `size` rows, by rank, then in their order; values are compared by hash.

    Args:
        rows: (n,) int64, the row of each value.
        values: (n,) strings.
        size: number of rows.
        ranks: (n,) numbers, the least first; None: all are equal.
    """
    hashes = np.concatenate([np.empty(0, np.uint64), *map(hash_names, values.chunks)])
    order = np.argsort(rows, kind="stable") if ranks is None else np.lexsort((ranks, rows))
    in_row = (hashes ^ rows.astype(np.uint64) * ROW_FACTOR)[order]
    retained = order[np.sort(np.unique(in_row, return_index=True)[1])]
    offsets = list_offsets(np.bincount(rows[retained], minlength=size))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(retained)).combine_chunks())
