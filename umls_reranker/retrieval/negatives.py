"""Draws: pools of same-type concepts, and random numbers that depend only on the mention and the draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable

__all__ = ["TypePools", "random_below", "random_bits"]


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
        distinct, inverse = np.unique(gold, return_inverse=True)
        own = [self._find((kind,) for kind in concepts.semantic_types(row)) for row in distinct.tolist()]
        self._choice = np.array([choices.setdefault(pools, len(choices)) for pools in own], np.int64)[inverse]
        untyped = np.flatnonzero(self._choice == 0)
        for mention, types in zip(untyped, mention_types.take(pa.array(untyped)).to_pylist(), strict=True):
            pools = self._find(tuple(concepts.hierarchy.descendants(kind)) or (kind,) for kind in types)
            self._choice[mention] = choices.setdefault(pools, len(choices))
        self.from_mention = int((self._choice[untyped] > 0).sum())
        self._pools, self._choice_starts = _concatenate(list(choices))
        self._rows, self._pool_starts = _concatenate(self._members)

    def _find(self, groups: Iterable[tuple[str, ...]]) -> tuple[int, ...]:
        """Numbers of the pools with the concepts of each group of types; groups without a concept are left out."""
        found = []
        for types in groups:
            if types not in self._numbers:
                rows = np.unique(np.concatenate([self._concepts.type_rows(kind) for kind in types]))
                self._numbers[types] = len(self._members) if len(rows) else None
                if len(rows):
                    self._members.append(rows)
            number = self._numbers[types]
            if number is not None:
                found.append(number)
        return tuple(found)

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """(m,) number of pools that each mention draws from."""
        return np.diff(self._choice_starts)[self._choice[mentions]]

    def pick(self, mentions: np.ndarray, type_bits: np.ndarray, row_bits: np.ndarray) -> np.ndarray:
        """A concept row for each mention that has a pool: one of its types, then one of that type's concepts."""
        pools = self._pools[
            self._choice_starts[self._choice[mentions]] + random_below(type_bits, self.sizes(mentions))
        ]
        starts = self._pool_starts[pools]
        return self._rows[starts + random_below(row_bits, self._pool_starts[pools + 1] - starts)]


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
