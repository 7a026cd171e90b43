"""Which candidates become negatives, and the filters against false negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..core.arrays import list_offsets, list_owner
from ..vocab.concepts import ConceptTable
from ..vocab.rrf import RelationTable
from .arguments import MiningArguments

FILTERS = ("shared_name", "synonym", "hierarchy", "gold_concept", "chosen")
"""Reasons to drop a concept; "chosen": the mention already has it. The last two always do."""

GOLD = FILTERS.index("gold_concept")
CHOSEN = FILTERS.index("chosen")
# Kinds of related concepts that a filter finds.
RELATED = {"synonym": ["synonym"], "hierarchy": ["parent", "child"]}
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class ConceptFilters:
    """The filters that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are related; None if unknown.
        names: the filters that drop concepts, besides the gold concept; others only count.
    """

    def __init__(
        self, shared: SharedNames, relations: RelationTable | None, names: Sequence[str]
    ) -> None:
        self._shared = shared
        self._relations = relations
        self._names = names
        drops = [name in names or number >= GOLD for number, name in enumerate(FILTERS)]
        # By number in `FILTERS`; the last one is for -1, no reason.
        self.drops = np.array([*drops, False])

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """A filter that applies to each of `rows`: one that drops it, if there is one.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; no filter applies to row -1.

        Returns:
            int8 numbers in `FILTERS`, of the common shape; -1 where none applies.
        """
        reasons = np.full(np.broadcast_shapes(gold.shape, rows.shape), -1, np.int8)
        # Of several, the last one stands.
        for name in sorted(FILTERS[:GOLD], key=self._names.__contains__):
            reasons[self._applies(name, gold, rows)] = FILTERS.index(name)
        reasons[gold == rows] = GOLD
        return reasons

    def _applies(self, name: str, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if name == "shared_name":
            return self._shared.between(gold, rows)
        is_related = np.zeros(np.broadcast_shapes(gold.shape, rows.shape), bool)
        if self._relations is not None:
            for kind in RELATED[name]:
                is_related |= self._relations.related(gold, rows, kind)
        return is_related


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
        """Whether each of `rows` shares a name with its gold concept, or is the gold concept.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; row -1 shares nothing.
        """
        keys = gold * self._concepts + rows
        return (rows >= 0) & (self._keys[np.searchsorted(self._keys, keys)] == keys)


SOURCES = ("positive", "nearest", "type", "random")
POSITIVE, NEAREST, TYPE, RANDOM = range(len(SOURCES))
# Maximum draws per negative; reached only with very small dictionaries or types.
MOST_DRAWS = 32


class ChosenPairs(NamedTuple):
    """The pairs of n mentions in w columns: positive, nearest negatives, drawn negatives.

    Attributes:
        rows: (n, w) concept rows, -1 for missing pairs.
        candidates: (n, w) flat position of the candidate in the lists; -1 if the concept is not
            from the list.
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
        self._rows = np.concatenate([*members, [-1]])
        self._row_starts = list_offsets(list(map(len, members)))

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """Number of types of the gold concepts of some mentions, by number."""
        return np.diff(self._type_starts)[self._gold[mentions]]

    def draw(self, mentions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A concept row for each mention: a drawn concept of a drawn one of its types.

        All of the mentions have types.
        """
        types = self._types[
            self._type_starts[self._gold[mentions]] + rng.integers(self.sizes(mentions))
        ]
        return self._rows[self._row_starts[types] + rng.integers(np.diff(self._row_starts)[types])]


class ConceptLists(NamedTuple):
    """The lists of n mentions with m candidates, as rows of the dictionary.

    Attributes:
        gold: (n,) rows of the gold concepts.
        gold_positions: (n,) flat positions of the gold concepts in the candidates, -1 if missing.
        offsets: (n + 1,) where each mention's candidates start.
        rows: (m,) rows of the candidates.
    """

    gold: np.ndarray
    gold_positions: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray


def choose_pairs(
    lists: ConceptLists,
    concepts: ConceptTable,
    filters: ConceptFilters,
    settings: MiningArguments,
    rng: np.random.Generator,
) -> tuple[ChosenPairs, Counter[str]]:
    """Choose the pairs of n mentions.

    A negative of the same type that cannot be drawn, as for a concept without types, is replaced by
    a random concept.

    Args:
        lists: the mentions' lists.
        concepts: the dictionary.
        filters: exclude false negatives.
        settings: numbers of negatives.
        rng: draws.

    Returns:
        The pairs, and how many concepts each filter dropped, or would have dropped if it were set:
        ``dropped_FILTER_SOURCE``, ``retained_FILTER_SOURCE``.
    """
    nearest = settings.nearest_negatives
    numbers = [1, nearest, settings.same_type_negatives, settings.random_negatives]
    sources: np.ndarray = np.tile(np.repeat(np.arange(len(SOURCES)), numbers), (len(lists.gold), 1))
    rows: np.ndarray = np.full(sources.shape, -1, np.int64)
    rows[:, 0] = lists.gold
    candidates = np.full(sources.shape, -1, np.int64)
    candidates[:, 0] = lists.gold_positions
    pairs = ChosenPairs(rows, candidates, sources)
    counts = _choose_nearest(pairs, lists, filters, nearest)
    pools = TypePools(concepts, lists.gold)
    is_typeless = pools.sizes(np.arange(len(lists.gold))) == 0

    def draw_type(mentions: np.ndarray) -> np.ndarray:
        return pools.draw(mentions, rng)

    def draw_any(mentions: np.ndarray) -> np.ndarray:
        return rng.integers(len(concepts), size=len(mentions))

    for column in range(1 + nearest, rows.shape[1]):
        sources[is_typeless & (sources[:, column] == TYPE), column] = RANDOM
        counts.update(_draw(pairs, column, TYPE, draw_type, filters))
        sources[(sources[:, column] == TYPE) & (rows[:, column] < 0), column] = RANDOM
        counts.update(_draw(pairs, column, RANDOM, draw_any, filters))
    return pairs, counts


def _choose_nearest(
    pairs: ChosenPairs, lists: ConceptLists, filters: ConceptFilters, number: int
) -> Counter[str]:
    """Write the first `number` candidates of each list that pass, and count what filters found."""
    owner = list_owner(lists.offsets)
    reasons = filters.reasons(lists.gold[owner], lists.rows)
    passes = ~filters.drops[reasons] & (lists.rows >= 0)
    # The number of passing candidates before each in its list.
    before: np.ndarray = np.cumsum(passes) - passes
    before -= before[lists.offsets[:-1][owner]]
    is_reached = before < number
    chosen = np.flatnonzero(passes & is_reached)
    target = owner[chosen], 1 + before[chosen]
    pairs.rows[target] = lists.rows[chosen]
    pairs.candidates[target] = chosen
    # Candidates after the last chosen one were not needed, so they do not count as dropped.
    return _counted(NEAREST, reasons[is_reached], filters)


def _draw(
    pairs: ChosenPairs,
    column: int,
    source: int,
    draw: Callable[[np.ndarray], np.ndarray],
    filters: ConceptFilters,
) -> Counter[str]:
    """Draw the pairs of a column and source, and count the concepts that filters found.

    Args:
        pairs: the pairs, whose earlier columns are chosen.
        column: the column to write.
        source: number in `SOURCES`.
        draw: mentions (q,), by number -> a concept row for each.
        filters: exclude false negatives.
    """
    counts: Counter[str] = Counter()
    for _ in range(MOST_DRAWS):
        pending = np.flatnonzero((pairs.sources[:, column] == source) & (pairs.rows[:, column] < 0))
        if not len(pending):
            break
        drawn = draw(pending)
        reasons = filters.reasons(pairs.rows[pending, 0], drawn)
        is_repeated = (pairs.rows[pending, :column] == drawn[:, None]).any(axis=1)
        reasons[is_repeated & ~filters.drops[reasons]] = CHOSEN
        counts.update(_counted(source, reasons, filters))
        passes = ~filters.drops[reasons]
        pairs.rows[pending[passes], column] = drawn[passes]
    return counts


def _counted(source: int, reasons: np.ndarray, filters: ConceptFilters) -> Counter[str]:
    counts = np.bincount(reasons[reasons >= 0], minlength=len(FILTERS)).tolist()
    return Counter(
        {
            f"{'dropped' if is_dropped else 'retained'}_{name}_{SOURCES[source]}": count
            for name, count, is_dropped in zip(FILTERS, counts, filters.drops, strict=False)
        }
    )
