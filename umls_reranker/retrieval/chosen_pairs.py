"""The pairs of mentions and concepts that are chosen for training: nearest and drawn negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from itertools import chain
from typing import NamedTuple

import numpy as np

from ..core.arrays import counted_above, list_offsets, list_owner
from ..vocab.concept_table import ConceptTable
from .false_negatives import PASSES, ConceptFilters, Filter

# Maximum draws per negative; reached only with very small dictionaries or types.
MOST_DRAWS = 32


class PairSource(IntEnum):
    """Where the concept of a pair is from, in the order of a row's pairs.

    The numbers are in the column ``sources`` of training rows; the names, in lower case, in the
    counts of a run.
    """

    # The gold concept.
    POSITIVE = 0
    # The candidate list.
    NEAREST = 1
    # A draw among concepts with a type of the gold concept.
    TYPE = 2
    # A draw among all concepts.
    RANDOM = 3


class ChosenPairs(NamedTuple):
    """The pairs of n mentions in w columns: positive, nearest negatives, drawn negatives.

    Attributes:
        rows: (n, w) concept rows, -1 for missing pairs.
        candidates: (n, w) flat position of the candidate in the lists; -1 if the concept is not
            from the list.
        sources: (n, w) numbers of `PairSource`.
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
        types_in_turn = list(chain.from_iterable(types))
        numbers = {kind: number for number, kind in enumerate(sorted({*types_in_turn}))}
        # The types of the distinct gold concepts, by number, one concept after the other.
        self._types = np.array([numbers[kind] for kind in types_in_turn], np.int64)
        self._type_starts = list_offsets([len(kinds) for kinds in types])
        # The rows of the concepts of each type, one type after the other.
        members = [concepts.type_rows(kind) for kind in numbers]
        self._rows = np.concatenate([*members, [-1]])
        self._row_starts = list_offsets([len(rows) for rows in members])

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """Number of types of the gold concepts of some mentions, by number."""
        return np.diff(self._type_starts)[self._gold[mentions]]

    def draw(self, mentions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A concept row for each mention: a drawn concept of a drawn one of its types.

        All of the mentions have types.
        """
        positions = rng.integers(self.sizes(mentions))
        types = self._types[self._type_starts[self._gold[mentions]] + positions]
        pool_sizes = np.diff(self._row_starts)[types]
        return self._rows[self._row_starts[types] + rng.integers(pool_sizes)]


def choose_nearest(
    pairs: ChosenPairs,
    offsets: np.ndarray,
    rows: np.ndarray,
    filters: ConceptFilters,
    number: int,
) -> Counter[str]:
    """Write the first `number` candidates of each list that pass, and count what filters found.

    Args:
        pairs: the pairs, whose first column is chosen.
        offsets: (n + 1,) where each mention's candidates start.
        rows: (m,) rows of the candidates.
        filters: exclude false negatives.
        number: nearest negatives of a mention.
    """
    owner = list_owner(offsets)
    reasons = filters.reasons(pairs.rows[owner, 0], rows)
    passes = (reasons == PASSES) & (rows >= 0)
    preceding = counted_above(passes, offsets)
    is_reached = preceding < number
    chosen = np.flatnonzero(passes & is_reached)
    target = owner[chosen], 1 + preceding[chosen]
    pairs.rows[target] = rows[chosen]
    pairs.candidates[target] = chosen
    # Candidates after the last chosen one were not needed, so they do not count as dropped.
    return dropped_counts(PairSource.NEAREST, reasons[is_reached])


def drop_distant(pairs: ChosenPairs, cosines: np.ndarray, least: float) -> int:
    """Remove the nearest negatives whose cosine is below the least, and return how many.

    No later candidate takes their place: in a list of one retriever, all that follow are farther.

    Args:
        pairs: the pairs, whose nearest negatives are chosen.
        cosines: (m,) of the candidates with their mentions.
        least: the least cosine.
    """
    is_nearest = (pairs.sources == PairSource.NEAREST) & (pairs.candidates >= 0)
    rows, columns = np.nonzero(is_nearest)
    # A missing cosine, NaN, counts as distant.
    is_distant = ~(cosines[pairs.candidates[rows, columns]] >= least)
    distant = rows[is_distant], columns[is_distant]
    pairs.rows[distant] = -1
    pairs.candidates[distant] = -1
    return int(is_distant.sum())


def draw_pairs(
    pairs: ChosenPairs,
    column: int,
    source: PairSource,
    draw: Callable[[np.ndarray], np.ndarray],
    filters: ConceptFilters,
) -> Counter[str]:
    """Draw the pairs of a column and source, and count the concepts that filters found.

    Args:
        pairs: the pairs, whose earlier columns are chosen.
        column: the column to write.
        source: the source.
        draw: mentions (q,), by number -> a concept row for each.
        filters: exclude false negatives.
    """
    counts: Counter[str] = Counter()
    for _ in range(MOST_DRAWS):
        is_pending = (pairs.sources[:, column] == source) & (pairs.rows[:, column] < 0)
        pending = np.flatnonzero(is_pending)
        if not len(pending):
            break
        drawn = draw(pending)
        reasons = filters.reasons(pairs.rows[pending, 0], drawn)
        is_repeated = (pairs.rows[pending, :column] == drawn[:, None]).any(axis=1)
        reasons[is_repeated & (reasons == PASSES)] = Filter.CHOSEN
        counts.update(dropped_counts(source, reasons))
        passes = reasons == PASSES
        pairs.rows[pending[passes], column] = drawn[passes]
    return counts


def dropped_counts(source: PairSource, reasons: np.ndarray) -> Counter[str]:
    """``dropped_FILTER_SOURCE`` -> how many concepts of the source it dropped."""
    dropped = reasons[reasons != PASSES]
    counts = np.bincount(dropped, minlength=len(Filter)).tolist()
    names = [f"dropped_{filter_.name.lower()}_{source.name.lower()}" for filter_ in Filter]
    return Counter(dict(zip(names, counts, strict=True)))
