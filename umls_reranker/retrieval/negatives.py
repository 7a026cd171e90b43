"""Which candidates become negatives, and the filters against false negatives."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import list_offsets
from .arguments import MiningArguments

if TYPE_CHECKING:
    from ..vocab.concepts import ConceptTable
    from ..vocab.rrf import RelationTable


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


SOURCES = ("positive", "nearest", "type", "random")
POSITIVE, NEAREST, TYPE, RANDOM = range(len(SOURCES))
# Maximum draws per negative; reached only with very small dictionaries or types.
ATTEMPTS = 32


class ChosenPairs(NamedTuple):
    """The pairs of n mentions, w columns each: the positive, then the nearest negatives, then the drawn ones.

    Attributes:
        rows: (n, w) concept rows, -1 for missing pairs.
        candidates: (n, w) flat position of the candidate in the lists; -1 if the concept is not from the list.
        sources: (n, w) numbers in `SOURCES`.
    """

    rows: np.ndarray
    candidates: np.ndarray
    sources: np.ndarray


class TypePools:
    """Concepts with a semantic type of a gold concept.

    Args:
        concepts: the dictionary with its types.
        gold: (n,) concept rows of the mentions' gold concepts.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray) -> None:
        distinct, self._gold = np.unique(gold, return_inverse=True)
        types = [concepts.semantic_types(row) for row in distinct.tolist()]
        numbers = {
            kind: number
            for number, kind in enumerate(sorted({kind for kinds in types for kind in kinds}))
        }
        self._types = np.array([numbers[kind] for kinds in types for kind in kinds], np.int64)
        self._type_starts = list_offsets([len(kinds) for kinds in types])
        members = [concepts.type_rows(kind) for kind in numbers]
        self._rows, self._row_starts = (
            np.concatenate([*members, [-1]]),
            list_offsets(list(map(len, members))),
        )

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """Number of types of the gold concepts of some mentions, by number."""
        return np.diff(self._type_starts)[self._gold[mentions]]

    def draw(self, mentions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A concept row for each of some mentions with types: one of the types, then one of its concepts."""
        types = self._types[
            self._type_starts[self._gold[mentions]] + rng.integers(self.sizes(mentions))
        ]
        return self._rows[self._row_starts[types] + rng.integers(np.diff(self._row_starts)[types])]


def choose_pairs(
    gold: np.ndarray,
    gold_positions: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    concepts: ConceptTable,
    filters: ConceptFilters,
    settings: MiningArguments,
    rng: np.random.Generator,
) -> tuple[ChosenPairs, Counter[str]]:
    """Choose the pairs of n mentions with m candidates.

    A negative of the same type that cannot be drawn, as for a concept without types, is replaced by a random concept.

    Args:
        gold: (n,) rows of the gold concepts.
        gold_positions: (n,) flat positions of the gold concepts among the candidates, -1 if missing.
        offsets: (n + 1,) where each mention's candidates start.
        rows: (m,) rows of the candidates in the dictionary.
        concepts: the dictionary.
        filters: exclude false negatives.
        settings: numbers of negatives.
        rng: draws.

    Returns:
        The pairs, and how many concepts each filter dropped: ``dropped_FILTER_SOURCE``.
    """
    counts: Counter[str] = Counter()

    def drop(source: int, reasons: np.ndarray) -> None:
        for reason, count in enumerate(
            np.bincount(reasons[reasons >= 0], minlength=len(FILTERS)).tolist()
        ):
            counts[f"dropped_{FILTERS[reason]}_{SOURCES[source]}"] += count

    wanted = (
        1,
        settings.nearest_negatives,
        settings.same_type_negatives,
        settings.random_negatives,
    )
    sources: np.ndarray = np.tile(np.repeat(np.arange(len(SOURCES)), wanted), (len(gold), 1))
    chosen: np.ndarray = np.full(sources.shape, -1, np.int64)
    candidates = chosen.copy()
    chosen[:, 0], candidates[:, 0] = gold, gold_positions
    owner = np.repeat(np.arange(len(gold)), np.diff(offsets))
    reasons = filters.reasons(gold[owner], rows)
    passes = (reasons < 0) & (rows >= 0)
    # The number of passing candidates before each in its list.
    before: np.ndarray = np.cumsum(passes) - passes
    before -= before[offsets[:-1][owner]]
    reached = before < settings.nearest_negatives
    # Candidates after the last chosen one were not needed, so they do not count as dropped.
    drop(NEAREST, reasons[reached])
    nearest = np.flatnonzero(passes & reached)
    mention, place = owner[nearest], 1 + before[nearest]
    chosen[mention, place] = rows[nearest]
    candidates[mention, place] = nearest
    pools = TypePools(concepts, gold)
    for column in range(1 + settings.nearest_negatives, chosen.shape[1]):
        of_type = sources[:, column] == TYPE
        sources[of_type & (pools.sizes(np.arange(len(gold))) == 0), column] = RANDOM
        for source in (TYPE, RANDOM):
            for _ in range(ATTEMPTS):
                pending = np.flatnonzero((sources[:, column] == source) & (chosen[:, column] < 0))
                if not len(pending):
                    break
                drawn = (
                    pools.draw(pending, rng)
                    if source == TYPE
                    else rng.integers(len(concepts), size=len(pending))
                )
                reasons = filters.reasons(gold[pending], drawn)
                repeated = (chosen[pending, :column] == drawn[:, None]).any(axis=1)
                reasons[repeated & (reasons < 0)] = CHOSEN
                drop(source, reasons)
                chosen[pending[reasons < 0], column] = drawn[reasons < 0]
            sources[(sources[:, column] == TYPE) & (chosen[:, column] < 0), column] = RANDOM
    return ChosenPairs(chosen, candidates, sources), counts
