"""Guards against false negatives: which concepts may not be negatives of a gold concept, and why.

They exclude the gold concept, concepts that share a normalized name with it, and concepts that the vocabulary relates
to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

__all__ = ["GUARDS", "ConceptGuards", "SharedNames"]

GUARDS = ("gold_concept", "shared_name", "related", "chosen")
"""Why a concept is dropped, in the order in which it is asked; "chosen" is one that the mention has already."""

GOLD, SHARED, RELATED, CHOSEN = range(len(GUARDS))
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class ConceptGuards:
    """The guards that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are related; None if unknown.
    """

    def __init__(self, shared: SharedNames, relations: RelationTable | None) -> None:
        self._shared, self._relations = shared, relations

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The first guard that objects to each of `rows`.

        Args:
            gold, rows: concept rows that broadcast; a row of -1 always passes.

        Returns:
            int8 places in `GUARDS`, of the common shape; -1 where no guard objects.
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
        asked = np.unique(gold)
        keys = [np.empty(0, np.int64)]
        for start in range(0, len(asked), CONCEPTS_PER_BATCH):
            rows = asked[start : start + CONCEPTS_PER_BATCH]
            names, edges = concepts.names_of(rows)
            others, ends = concepts.rows_named(names)
            owners = np.repeat(np.repeat(rows, np.diff(edges)), np.diff(ends))
            keys.append(np.unique(owners * self._concepts + others))
        self._keys = np.concatenate(keys)

    def between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` shares a name with its gold concept (every concept does with itself).

        Args:
            gold, rows: concept rows that broadcast; a row of -1 shares nothing.
        """
        keys = gold * self._concepts + rows
        places = np.searchsorted(self._keys, keys).clip(max=max(0, len(self._keys) - 1))
        return (rows >= 0) & (self._keys[places] == keys)
