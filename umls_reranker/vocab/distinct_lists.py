"""Values that belong to rows, as a list of distinct values for each row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets
from .string_rows import hash_strings

# An arbitrary odd number, which spreads row numbers over 64 bits.
ROW_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def distinct_lists(
    rows: np.ndarray, values: pa.ChunkedArray, size: int, ranks: np.ndarray | None = None
) -> pa.ListArray:
    """The distinct values of each row, by rank, then in their order; they are compared by hash.

    Args:
        rows: (n,) int64, the row of each value.
        values: (n,) strings.
        size: number of rows.
        ranks: (n,) numbers, the least first; None: all are equal.

    Returns:
        (size,) lists of strings.
    """
    hashes = np.concatenate([np.empty(0, np.uint64), *map(hash_strings, values.chunks)])
    order = np.argsort(rows, kind="stable") if ranks is None else np.lexsort((ranks, rows))
    # One key for a value in its row: the same value in another row has another key.
    keys = (hashes ^ rows.astype(np.uint64) * ROW_FACTOR)[order]
    _, first_positions = np.unique(keys, return_index=True)
    retained = order[np.sort(first_positions)]
    offsets = list_offsets(np.bincount(rows[retained], minlength=size))
    retained_values = values.take(pa.array(retained)).combine_chunks()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), retained_values)
