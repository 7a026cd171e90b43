"""Selects the pairs of a mention: the gold concept, nearest negatives that pass the filters, and drawn negatives.

Random numbers depend only on the mention and the draw, so mentions can be processed in any groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets
from ..core.settings import MiningArguments
from .false_negatives import CHOSEN
from .mining_report import NEAREST, SOURCES, TYPE

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from .concept_search import Candidates
    from .false_negatives import ConceptFilters
    from .mining_report import MiningReport
    from .nearest_concepts import GoldConcepts

# Maximum draws per negative; reached only with very small dictionaries or types.
ATTEMPTS = 32


@dataclass
class MiningConfig(MiningArguments):
    """A recipe's mix of negatives, with the seed of all draws.

    A draw depends only on the seed, the mention's id and the draw's number.
    """

    seed: int = 13
    # Share of the mentions whose types the template hides, so that the model can handle both cases.
    typeless_share: float = 0.2


class TypePools:
    """Concepts to draw same-type negatives from.

    A mention draws from the types of its gold concept. If it has none, the mention draws from its annotated types and
    their descendants.

    Args:
        concepts: the dictionary with its types.
        gold: (n,) concept rows of the mentions' gold concepts.
        mention_types: n lists of type ids.

    Attributes:
        from_mention: mentions that draw from their own types, because their gold concept has none.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray, mention_types: pa.ChunkedArray) -> None:
        self._concepts = concepts
        self._numbers: dict[tuple[str, ...], int | None] = {}
        self._members: list[np.ndarray] = []
        choices: dict[tuple[int, ...], int] = {(): 0}
        distinct, gold_of = np.unique(gold, return_inverse=True)
        of_gold = []
        for row in distinct.tolist():
            pools = self._pools_of((kind,) for kind in concepts.semantic_types(row))
            of_gold.append(choices.setdefault(pools, len(choices)))
        self._choice = np.array(of_gold, np.int64)[gold_of]
        untyped = np.flatnonzero(self._choice == 0)
        for mention, types in zip(untyped, mention_types.take(pa.array(untyped)).to_pylist(), strict=True):
            pools = self._pools_of(tuple(concepts.hierarchy.descendants(kind)) or (kind,) for kind in types)
            self._choice[mention] = choices.setdefault(pools, len(choices))
        self.from_mention = int((self._choice[untyped] > 0).sum())
        self._pools, self._choice_starts = _concatenate(list(choices))
        self._rows, self._pool_starts = _concatenate(self._members)

    def _pools_of(self, groups: Iterable[tuple[str, ...]]) -> tuple[int, ...]:
        """Numbers of the pools with the concepts of each group of types; groups without a concept are left out."""
        pools = []
        for types in groups:
            if types not in self._numbers:
                rows = np.unique(np.concatenate([self._concepts.type_rows(kind) for kind in types]))
                self._numbers[types] = len(self._members) if len(rows) else None
                if len(rows):
                    self._members.append(rows)
            number = self._numbers[types]
            if number is not None:
                pools.append(number)
        return tuple(pools)

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """Number of pools that each mention draws from, (m,)."""
        return np.diff(self._choice_starts)[self._choice[mentions]]

    def pick(self, mentions: np.ndarray, type_bits: np.ndarray, row_bits: np.ndarray) -> np.ndarray:
        """Draw a concept row for each mention with a pool: one of its types, then one of that type's concepts."""
        first_pools = self._choice_starts[self._choice[mentions]]
        pools = self._pools[first_pools + random_below(type_bits, self.sizes(mentions))]
        starts = self._pool_starts[pools]
        return self._rows[starts + random_below(row_bits, self._pool_starts[pools + 1] - starts)]


class SelectedPairs(NamedTuple):
    """The pairs of m mentions, w columns each.

    Attributes:
        rows: (m, w) concept rows, -1 for missing pairs.
        name_ids: (m, w) name that the concept is shown with; -1 for missing pairs.
        cosines: (m, w) cosine of mention and name; NaN if unknown.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    cosines: np.ndarray


class PairSelector:
    """Chooses the pairs of many mentions at once.

    Args:
        config: numbers of negatives, and seed.
        name_offsets: (n_concepts + 1,) the names of row r have the ids from ``name_offsets[r]`` on.
        filters: exclude concepts as negatives.
        pools: concepts of each type.

    Attributes:
        sources: (w,) source (number in `SOURCES`) of each pair that a mention can have; the last pairs replace
            same-type negatives that could not be drawn.
        numbers: (w,) number of the pair within its source.
    """

    def __init__(
        self, config: MiningConfig, name_offsets: np.ndarray, filters: ConceptFilters, pools: TypePools
    ) -> None:
        self._config, self._name_offsets, self._filters, self._pools = config, name_offsets, filters, pools
        counts = [
            1,
            config.nearest_negatives,
            config.same_type_negatives,
            config.random_negatives + config.same_type_negatives,
        ]
        self.sources = np.repeat(np.arange(len(SOURCES)), counts)
        self.numbers = np.concatenate([np.arange(count) for count in counts])

    def has_enough(self, gold: np.ndarray, near: Candidates) -> np.ndarray:
        """Whether the filters leave enough concepts near each of m gold concepts, (m,) bool."""
        passes = (near.rows >= 0) & (self._filters.reasons(gold[:, None], near.rows) < 0)
        return passes.sum(axis=1) >= self._config.nearest_negatives

    def select(
        self, mentions: np.ndarray, ids: np.ndarray, gold: GoldConcepts, near: Candidates, report: MiningReport
    ) -> SelectedPairs:
        """Choose the pairs of m mentions.

        Args:
            mentions: (m,) their numbers in the pools.
            ids: (m,) their mention ids.
            gold: their gold concepts.
            near: nearest concepts of each.
            report: counts the concepts that the filters drop.
        """
        rows = np.full((len(ids), len(self.sources)), -1)
        pairs = SelectedPairs(rows, rows.copy(), np.full(rows.shape, np.nan, np.float32))
        for column, values in zip(pairs, gold, strict=True):
            column[:, 0] = values
        reasons = self._filters.reasons(gold.rows[:, None], near.rows)
        passes = (near.rows >= 0) & (reasons < 0)
        passed_before: np.ndarray = np.cumsum(passes, axis=1) - passes
        # Concepts after the last selected one were not needed, so they do not count as dropped.
        reached = passed_before < self._config.nearest_negatives
        report.count_drops(NEAREST, reasons[reached])
        mention, rank = np.nonzero(passes & reached)
        target = mention, 1 + passed_before[mention, rank]
        for column, values in zip(pairs, (near.rows, near.name_ids, near.scores), strict=True):
            column[target] = values[mention, rank]
        for number in np.flatnonzero(self.sources >= TYPE).tolist():
            self._draw(rows, number, mentions, ids, report)
            drawn = np.flatnonzero(rows[:, number] >= 0)
            starts, stops = (self._name_offsets[rows[drawn, number] + edge] for edge in (0, 1))
            bits = self._bits(ids[drawn], number, ATTEMPTS)
            pairs.name_ids[drawn, number] = starts + random_below(bits, stops - starts)
        return pairs

    def _draw(
        self, rows: np.ndarray, column: int, mentions: np.ndarray, ids: np.ndarray, report: MiningReport
    ) -> None:
        """Draw one negative of each mention into a column of `rows`."""
        source, replaced = self.sources[column], self.numbers[column] - self._config.random_negatives
        pending = np.arange(len(rows))
        if source == TYPE:
            pending = np.flatnonzero(self._pools.sizes(mentions))
        elif replaced >= 0:
            of_type = np.flatnonzero(self.sources == TYPE)
            pending = np.flatnonzero(rows[:, of_type[replaced]] < 0)
        for attempt in range(ATTEMPTS):
            if not len(pending):
                break
            bits = self._bits(ids[pending], column, attempt)
            if source == TYPE:
                drawn = self._pools.pick(mentions[pending], bits, self._bits(ids[pending], column, attempt, 1))
            else:
                drawn = random_below(bits, len(self._name_offsets) - 1)
            reasons = self._filters.reasons(rows[pending, 0], drawn)
            repeated = (rows[pending, 1:column] == drawn[:, None]).any(axis=1)
            reasons[repeated & (reasons < 0)] = CHOSEN
            report.count_drops(source, reasons)
            rows[pending[reasons < 0], column] = drawn[reasons < 0]
            pending = pending[reasons >= 0]

    def _bits(self, ids: np.ndarray, column: int, *counters: int) -> np.ndarray:
        return random_bits(ids, self._config.seed, self.sources[column], self.numbers[column], *counters)


def random_bits(ids: np.ndarray, *counters: int) -> np.ndarray:
    """64 random bits per id, a function of only the id and the counters.

    Args:
        ids: (n,) non-negative integers.
        counters: seed, and the identity of the draw.

    Returns:
        (n,) uint64. The mixing step is the one of SplitMix64 (Steele, Lea & Flood 2014).
    """
    state = np.zeros(1, np.uint64)
    for counter in counters:
        state = _mix(state ^ np.uint64(counter))
    return _mix(state ^ ids.astype(np.uint64))


def random_below(bits: np.ndarray, bounds: np.ndarray | int) -> np.ndarray:
    """Random integers from 0 to ``bounds - 1`` (int64) from 64 random bits; bounds up to 2**31."""
    return ((bits >> np.uint64(32)).astype(np.int64) * bounds) >> 32


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _concatenate(lists: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lists one after the other, and where each starts (one more start than lists)."""
    starts = list_offsets([len(numbers) for numbers in lists])
    return np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64), starts
