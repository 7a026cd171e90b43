"""The columns of a table that are about its mentions, checked before lists are made of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import one_chunk
from .candidates import are_structs, candidate_structs, keys_found
from .columns import TEXT, TYPES, ColumnChecker, InvalidRow, python_values
from .table import CANDIDATES, READING_ERROR, mappings_of

# The columns that are read.
READ_COLUMNS = (
    "entity",
    "mention",
    "entity_type",
    "left",
    "right",
    "index_key",
    CANDIDATES,
    READING_ERROR,
)
# The end of the message about a mention without a list.
FINDS_CANDIDATES = "; umls-reranker link finds the candidates of mentions"


class MentionColumns:
    """The columns of a table of n mentions, each of which is checked when it is asked for.

    Its methods raise `InvalidRow`, which names the row of a value that will not do.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._columns = {
            key: one_chunk(table[key]) for key in READ_COLUMNS if key in table.column_names
        }
        self._checker = ColumnChecker(len(table))

    def refuse_unreadable(self) -> None:
        """Refuse a row that could not be read, which has `READING_ERROR`."""
        if READING_ERROR not in self._columns:
            return
        for row, reason in enumerate(python_values(self._columns[READING_ERROR])):
            if reason:
                raise InvalidRow(row, str(reason), len(self._table))

    def entities(self) -> pa.StringArray:
        """The text of each mention, under the first of its two keys; none is missing."""
        entities = self._checker.column("entity", self._columns.get("entity"), TEXT)
        if entities.null_count and "mention" in self._columns:
            mentions = self._checker.column("mention", self._columns["mention"], TEXT)
            entities = pc.coalesce(entities, mentions)
        if entities.null_count:
            self._refuse_missing("entity", entities)
        return entities

    def mention_texts(self, entities: pa.StringArray) -> list[str]:
        """The texts of `entities`, none of which may be blank or too long."""
        return self._checker.mention_texts("entity", entities)

    def types(self) -> pa.ListArray:
        """The semantic types of each mention, null where it has none."""
        return self._checker.column("entity_type", self._columns.get("entity_type"), TYPES)

    def texts(self, key: str) -> list[str]:
        """The texts under ``left``, ``right`` or ``index_key``, "" where they are missing."""
        texts = self._checker.column(key, self._columns.get(key), TEXT)
        return [text or "" for text in texts.to_pylist()]

    def candidates(self, scores: Iterable[str]) -> pa.ListArray:
        """The candidates of each mention, a list of structs.

        Args:
            scores: as for `candidates.candidate_structs`.
        """
        candidates = self._columns.get(CANDIDATES, pa.nulls(len(self._table)))
        if are_structs(candidates):
            return candidates
        if candidates.null_count:
            self._refuse_missing(CANDIDATES, candidates)
        return candidate_structs(python_values(candidates), scores)

    def _refuse_missing(self, key: str, values: pa.Array) -> None:
        """Refuse the first row without a value under a key."""
        row = int(np.flatnonzero(values.is_null())[0])
        (row_as_given,) = mappings_of(self._table.slice(row, 1))
        lacks = "is null" if key in row_as_given else "missing from the row"
        way_out = FINDS_CANDIDATES if key == CANDIDATES else ""
        reason = f"{key} {lacks}{keys_found(row_as_given)}{way_out}"
        raise InvalidRow(row, reason, len(self._table))
