"""Look up the rows of a table by strings that they have: ids or names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import are_below, expand_ranges, hash_texts, list_offsets


def hash_strings(strings: pa.StringArray) -> np.ndarray:
    """The 64-bit hash of each of n strings, (n,) uint64."""
    return hash_texts(strings.to_pylist())


class StringRows:
    """The rows that have a string, found by its 64-bit hash.

    Strings are not compared: among ten million, one look-up of an unknown string in 10^12 hits.

    Args:
        table: columns ``blake2b`` (uint64, ascending) and ``row`` (int32, ascending where hashes
            are equal).
    """

    SCHEMA = pa.schema({"blake2b": pa.uint64(), "row": pa.int32()})

    def __init__(self, table: pa.Table) -> None:
        self._hashes = table["blake2b"].to_numpy()
        self._rows = table["row"].to_numpy()

    def are_below(self, end: int) -> bool:
        """Whether all rows are from 0 to `end` - 1."""
        return are_below(end, self._rows)

    @classmethod
    def table_of(cls, hashes: np.ndarray, rows: np.ndarray) -> pa.Table:
        """The table for n strings with these hashes, (n,) uint64, and rows, (n,)."""
        order = np.lexsort((rows, hashes))
        hashes = hashes[order]
        rows = rows[order]
        is_other_hash = np.diff(hashes, prepend=hashes[:1]) != 0
        is_other_row = np.diff(rows, prepend=-1) != 0
        # A row with two equal strings is listed once.
        is_new = is_other_hash | is_other_row
        return pa.table([hashes[is_new], rows[is_new].astype(np.int32)], schema=cls.SCHEMA)

    @classmethod
    def table_of_ids(cls, ids: pa.StringArray, alternates: pa.ListArray) -> pa.Table:
        """The table in which n ids, and the alternates of each, have the position of the id."""
        strings = pa.concat_arrays([ids, pc.list_flatten(alternates)])
        rows_of_alternates = pc.list_parent_indices(alternates).to_numpy()
        rows = np.concatenate([np.arange(len(ids)), rows_of_alternates])
        return cls.table_of(hash_strings(strings), rows)

    @classmethod
    def of(cls, strings: pa.StringArray) -> StringRows:
        """Number n distinct strings by their position."""
        return cls(cls.table_of(hash_strings(strings), np.arange(len(strings))))

    def find(self, strings: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows of n strings.

        Returns:
            Rows and offsets, int64: the rows of string i are ``rows[offsets[i] : offsets[i + 1]]``,
            ascending.
        """
        hashes = hash_strings(strings)
        starts = np.searchsorted(self._hashes, hashes, "left")
        stops = np.searchsorted(self._hashes, hashes, "right")
        _, positions = expand_ranges(starts, stops)
        return self._rows[positions].astype(np.int64), list_offsets(stops - starts)
