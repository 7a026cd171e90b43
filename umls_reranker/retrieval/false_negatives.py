"""False-negative filters: which concepts may not be negatives of a gold concept, and why.

They exclude the gold concept, concepts that share a normalized name with it, and concepts that the vocabulary relates
to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

FILTERS = ("gold_concept", "shared_name", "related", "chosen")
"""Reasons to drop a concept, in the order of the checks; "chosen": the mention already has it."""

GOLD, SHARED, RELATED, CHOSEN = range(len(FILTERS))
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class ConceptFilters:
    """The filters that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are related; None if unknown.
    """

    def __init__(self, shared: SharedNames, relations: RelationTable | None) -> None:
        self._shared, self._relations = shared, relations

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The first filter that drops each of `rows`.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; row -1 always passes.

        Returns:
            int8 numbers in `FILTERS`, of the common shape; -1 where none does.
        """
        reasons = np.full(np.broadcast_shapes(gold.shape, rows.shape), -1, np.int8)
        if self._relations is not None:
            reasons[self._relations.related(gold, rows)] = RELATED
        reasons[self._shared.between(gold, rows)] = SHARED
        reasons[gold == rows] = GOLD
        return reasons


class SharedNames:
    """Which concepts share a normalized name with a gold concept.

    Args:
        concepts: the dictionary.
        gold: concept rows for later calls of `between`.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray) -> None:
        self._concepts = len(concepts)
        distinct = np.unique(gold)
        keys = []
        for start in range(0, len(distinct), CONCEPTS_PER_BATCH):
            rows = distinct[start : start + CONCEPTS_PER_BATCH]
            names, name_offsets = concepts.names_of(rows)
            namesakes, offsets = concepts.rows_named(names)
            owners = np.repeat(np.repeat(rows, np.diff(name_offsets)), np.diff(offsets))
            keys.append(np.unique(owners * self._concepts + namesakes))
        # The last one is larger than any key, so that every key has a position.
        self._keys = np.concatenate([*keys, [np.iinfo(np.int64).max]])

    def between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` shares a name with its gold concept (every concept does with itself).

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; row -1 shares nothing.
        """
        keys = gold * self._concepts + rows
        return (rows >= 0) & (self._keys[np.searchsorted(self._keys, keys)] == keys)
