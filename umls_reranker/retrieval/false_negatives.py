"""Filters of false negatives: which concepts may not be negatives of a gold concept, and why.

They exclude the gold concept, concepts that share a normalized name with it, concepts that the vocabulary relates to
it, and nearest concepts above a ceiling relative to the positive's cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

__all__ = ["FILTERS", "ConceptFilters", "SharedNames", "above_ceiling"]

FILTERS = ("gold_concept", "shared_name", "related", "ceiling", "chosen")
"""Why a concept is dropped, in the order in which it is asked; "chosen" is one that the mention has already."""

GOLD, SHARED, RELATED, CEILING, CHOSEN = range(len(FILTERS))
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class ConceptFilters:
    """The filters that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are related; None if unknown.
        kinds: relations (`RELATION_KINDS`) that a negative must not have to the gold concept.
    """

    def __init__(self, shared: SharedNames, relations: RelationTable | None, kinds: Sequence[str]) -> None:
        self._shared = shared
        self._relations = relations if kinds else None
        self._kinds = tuple(kinds)

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The first filter that drops each of `rows`.

        Args:
            gold, rows: concept rows that broadcast; a row of -1 always passes.

        Returns:
            int8 numbers in `FILTERS`, of the common shape; -1 where none does.
        """
        reasons = np.full(np.broadcast_shapes(gold.shape, rows.shape), -1, np.int8)
        if self._relations is not None:
            reasons[self._relations.related(gold, rows, self._kinds)] = RELATED
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
        # The last one is larger than any key, so that each has a position.
        self._keys = np.concatenate([*keys, [np.iinfo(np.int64).max]])

    def between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` shares a name with its gold concept (every concept does with itself).

        Args:
            gold, rows: concept rows that broadcast; a row of -1 shares nothing.
        """
        keys = gold * self._concepts + rows
        return (rows >= 0) & (self._keys[np.searchsorted(self._keys, keys)] == keys)


def above_ceiling(cosines: np.ndarray, positive: np.ndarray, ceiling: float) -> np.ndarray:
    """Whether a negative is nearer to the mention than `ceiling` times the positive (NV-Retriever, TopK-PercPos).

    Args:
        cosines: (n, k) of mention and negatives.
        positive: (n,) of mention and gold concept; a negative cosine lowers the ceiling by the same amount.
        ceiling: share of the positive's cosine, e.g. 0.95.
    """
    return cosines > (positive - (1 - ceiling) * np.abs(positive))[:, None]
