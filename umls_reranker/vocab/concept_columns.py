"""The columns of a concept table by row number, and its rows by concept id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.arrow_files import one_chunk
from .string_rows import StringRows


class ConceptColumns:
    """Names, types and definitions of concepts by row number, and their rows by id.

    Row -1, which `rows` returns for an unknown id, has no names, types or definition.

    Args:
        table: of `CONCEPT_SCHEMA`.
        by_cui: the rows of ids and alternates; None makes them.

    Attributes:
        cuis (pa.StringArray): (n,) the concept ids.
    """

    def __init__(self, table: pa.Table, by_cui: StringRows | None = None) -> None:
        self._columns = {name: one_chunk(table[name]) for name in table.column_names}
        self.cuis: pa.StringArray = self._columns["cui"]
        self._by_cui = by_cui or StringRows(
            StringRows.table_of_ids(self.cuis, self._columns["alternates"])
        )

    def __len__(self) -> int:
        return len(self.cuis)

    def rows(self, cuis: Sequence[str] | np.ndarray | pa.StringArray) -> np.ndarray:
        """Rows of n CUIs or alternates of them, (n,) int64; -1 for unknown ones."""
        rows, offsets = self._by_cui.find(required_texts("CUIs", cuis))
        is_found = np.diff(offsets) > 0
        first = np.append(rows, -1)[offsets[:-1]]
        return np.where(is_found, first, -1)

    def has(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether there is a concept with each of n ids, (n,) bool."""
        return self.rows(cuis) >= 0

    def column(self, name: str, rows: np.ndarray) -> pa.Array:
        """One column at n rows, (n,), null at row -1.

        Args:
            name: ``cui``, ``name``, ``synonyms``, ``semantic_types``, ``definition`` or
                ``alternates``.
            rows: row numbers.
        """
        return self._columns[name].take(pa.array(rows, mask=rows < 0))

    def names_of(self, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
        """All names of n rows, the preferred name of each first.

        Returns:
            Names and offsets: the names of ``rows[i]`` are ``names[offsets[i] : offsets[i + 1]]``,
            offsets int64.
        """
        positions = np.flatnonzero(rows >= 0)
        preferred = self.column("name", rows[positions])
        synonyms = self.column("synonyms", rows)
        names = pa.concat_arrays([preferred, pc.list_flatten(synonyms)])
        # Which of the n rows each name belongs to.
        owner = np.concatenate([positions, pc.list_parent_indices(synonyms).to_numpy()])
        order = np.argsort(owner, kind="stable")
        offsets = list_offsets(np.bincount(owner, minlength=len(rows)))
        return names.take(pa.array(order)), offsets


def required_texts(name: str, values: Any) -> pa.StringArray:
    """The values in Arrow.

    Args:
        name: what they are, for messages.
        values: what a caller gave for a list of strings.

    Raises:
        TypeError: they are one string, or one of them is None or no string.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings, not one string")
    texts = pa.array(values, pa.string())
    if texts.null_count:
        raise TypeError(f"{name} must be a list of strings, but some are missing")
    return texts
