"""Which concepts are no negatives of a gold concept.

The filters look at concepts, not at text.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from ..vocab.concept_table import ConceptTable
from ..vocab.relations import RelationTable

# In place of a filter's number where none applies.
PASSES = -1
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class Filter(IntEnum):
    """Reasons to drop a concept. Their names, in lower case, are in the counts of a run."""

    SHARED_NAME = 0
    SYNONYM = 1
    GOLD_CONCEPT = 2
    # The mention has the concept as a pair already.
    CHOSEN = 3


class ConceptFilters:
    """The filters that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are synonyms; None if unknown.
    """

    def __init__(self, shared: SharedNames, relations: RelationTable | None) -> None:
        self._shared = shared
        self._relations = relations or RelationTable(np.empty(0, np.int64))

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The filter that drops each of `rows`; of several, the last of `Filter`.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; no filter applies to row -1.

        Returns:
            int8 numbers of `Filter`, of the common shape; `PASSES` where none applies.
        """
        reasons = np.full(np.broadcast_shapes(gold.shape, rows.shape), PASSES, np.int8)
        reasons[self._shared.between(gold, rows)] = Filter.SHARED_NAME
        reasons[self._relations.related(gold, rows)] = Filter.SYNONYM
        reasons[gold == rows] = Filter.GOLD_CONCEPT
        return reasons


class SharedNames:
    """Which concepts share a normalized name with a gold concept.

    Args:
        concepts: the dictionary.
        gold: concept rows for later calls of `between`.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray) -> None:
        self._concept_count = len(concepts)
        distinct = np.unique(gold)
        # One key for each pair of a gold concept and a concept with one of its names.
        keys = []
        for start in range(0, len(distinct), CONCEPTS_PER_BATCH):
            rows = distinct[start : start + CONCEPTS_PER_BATCH]
            names, name_offsets = concepts.names_of(rows)
            namesakes, offsets = concepts.rows_named(names)
            owner_of_name = np.repeat(rows, np.diff(name_offsets))
            owners = np.repeat(owner_of_name, np.diff(offsets))
            keys.append(np.unique(owners * self._concept_count + namesakes))
        # The last one is larger than any key, so that every key has a position.
        self._keys = np.concatenate([*keys, [np.iinfo(np.int64).max]])

    def between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` shares a name with its gold concept, or is the gold concept.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; row -1 shares nothing.
        """
        keys = gold * self._concept_count + rows
        shares_name = self._keys[np.searchsorted(self._keys, keys)] == keys
        return (rows >= 0) & shares_name
