"""The concepts of several dictionaries as one dictionary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from .concept_columns import ConceptColumns
from .concepts import NameLists, table_of_lists
from .distinct_lists import distinct_lists


def join_concepts(tables: Sequence[pa.Table]) -> tuple[pa.Table, dict[str, int]]:
    """The concepts of several dictionaries, joined where one has an id or alternate of another.

    A concept has the names of all, each once. Its preferred name, types and definition are those of
    the first dictionary that has any.

    Args:
        tables: of `CONCEPT_SCHEMA`; an id is not repeated within one.

    Returns:
        The concepts in `CONCEPT_SCHEMA`; and the numbers of ``joined_concepts``, which others have
        taken in, and of ``repeated_names``, which are given once.
    """
    whole = pa.concat_tables(tables).combine_chunks()
    columns = ConceptColumns(whole)
    sizes = [len(table) for table in tables]
    # The first row of the dictionary of each row, (n,).
    dictionary_starts = np.repeat(list_offsets(sizes)[:-1], sizes)
    heads, concept_of = np.unique(
        _head_rows(columns, whole["alternates"], dictionary_starts), return_inverse=True
    )

    def filled(name: str) -> pa.Array:
        """The column of each concept's first row where it is not empty."""
        length_of = pc.binary_length if name == "definition" else pc.list_value_length
        lengths = length_of(whole[name])
        has_value = np.flatnonzero(lengths.to_numpy() > 0)
        concepts, positions = np.unique(concept_of[has_value], return_index=True)
        rows = heads.copy()
        rows[concepts] = has_value[positions]
        return columns.column(name, rows)

    all_names, offsets = columns.names_of(np.arange(len(whole)))
    concept_of_name = np.repeat(concept_of, np.diff(offsets))
    names = distinct_lists(concept_of_name, pa.chunked_array([all_names]), len(heads))
    ids = columns.column("cui", heads)
    alternates = _alternates_of_joined(columns.cuis, whole["alternates"], concept_of, ids)
    joined = NameLists(ids, names, filled("semantic_types"), alternates)
    report = {
        "joined_concepts": len(whole) - len(heads),
        "repeated_names": len(all_names) - len(names.values),
    }
    return table_of_lists(joined, filled("definition")), report


def _head_rows(
    columns: ConceptColumns, alternates: pa.ChunkedArray, dictionary_starts: np.ndarray
) -> np.ndarray:
    """The first row of the concept that each of n rows belongs to, (n,) int64.

    Args:
        columns: the rows of all dictionaries, one dictionary after the other.
        alternates: (n,) lists of their alternates.
        dictionary_starts: (n,) the first row of each row's dictionary.
    """
    heads = columns.rows(columns.cuis)
    alternates = alternates.combine_chunks()
    owners = pc.list_parent_indices(alternates).to_numpy()
    # Row of the concept whose id or alternate an alternate is; -1 for none.
    matches = columns.rows(pc.list_flatten(alternates))
    # An id counts before alternates. One that concepts of one dictionary share does not join them.
    is_joined = (matches < dictionary_starts[owners]) & (heads[owners] == owners)
    np.minimum.at(heads, owners[is_joined], matches[is_joined])
    # A head may have been joined to an earlier row itself.
    while (heads[heads] != heads).any():
        heads = heads[heads]
    return heads


def _alternates_of_joined(
    cuis: pa.StringArray, alternates: pa.ChunkedArray, concept_of: np.ndarray, ids: pa.StringArray
) -> pa.ListArray:
    """The alternates of joined concepts: those of their rows, and the ids that they lost.

    Args:
        cuis: (n,) ids of the rows.
        alternates: (n,) lists of the rows' alternates.
        concept_of: (n,) joined concept of each row, by number.
        ids: (c,) ids of the joined concepts.
    """
    alternates = alternates.combine_chunks()
    owners = pc.list_parent_indices(alternates).to_numpy()
    candidates = pa.concat_arrays([pc.list_flatten(alternates), cuis])
    concept_of_candidate = np.concatenate([concept_of[owners], concept_of])
    is_alternate = pc.invert(pc.is_in(candidates, ids))
    retained = pa.chunked_array([candidates.filter(is_alternate)])
    return distinct_lists(
        concept_of_candidate[is_alternate.to_numpy(zero_copy_only=False)], retained, len(ids)
    )
