"""Select the pairs of a mention: the gold concept, the nearest concepts that pass the guards, and drawn ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..core.arguments import MiningArguments
from .guards import CHOSEN
from .mining_report import SEMANTIC, SOURCES, TYPE
from .negatives import random_below, random_bits

if TYPE_CHECKING:
    import pyarrow as pa

    from .concept_search import Candidates
    from .guards import ConceptGuards
    from .mining_report import MiningReport
    from .negatives import TypePools

__all__ = ["MiningConfig", "Names", "PairSelector", "mining_config"]

# Maximum draws per negative; only reached with very small dictionaries or types.
ATTEMPTS = 32


@dataclass
class MiningConfig(MiningArguments):
    """A recipe's mix of negatives, with the seed of all draws.

    A draw depends only on the seed, the mention's id and the draw's number.
    """

    seed: int = 13
    # Of the mentions whose types a template shows, those that are shown without, so that the model can handle either.
    typeless_share: float = 0.2


def mining_config(mining: MiningArguments, seed: int) -> MiningConfig:
    """The recipe's mix of negatives."""
    return MiningConfig(**asdict(mining), seed=seed)


class Names(Protocol):
    """Names by number, concept after concept.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.
    """

    @property
    def offsets(self) -> np.ndarray: ...

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names."""


class PairSelector:
    """Chooses the pairs of many mentions at once.

    Args:
        config: numbers of negatives, and seed.
        index: the names to draw from.
        guards: exclude concepts as negatives.
        pools: concepts of each type.

    Attributes:
        sources: (w,) place in `SOURCES` of each pair that a mention can have; the last ones replace same-type
            negatives that were not found.
        numbers: (w,) number of the pair among those of its source.
    """

    def __init__(self, config: MiningConfig, index: Names, guards: ConceptGuards, pools: TypePools) -> None:
        self._config, self._index, self._guards, self._pools = config, index, guards, pools
        counts = [
            1,
            config.nearest_negatives,
            config.same_type_negatives,
            config.random_negatives + config.same_type_negatives,
        ]
        self.sources = np.repeat(np.arange(len(SOURCES)), counts)
        self.numbers = np.concatenate([np.arange(count) for count in counts])

    def has_enough(self, gold: np.ndarray, near: Candidates) -> np.ndarray:
        """Whether the guards leave enough near concepts for each of m mentions, (m,) bool."""
        good = (near.rows >= 0) & (self._guards.reasons(gold[:, None], near.rows) < 0)
        return good.sum(axis=1) >= self._config.nearest_negatives

    def select(
        self,
        mentions: np.ndarray,
        ids: np.ndarray,
        gold: tuple[np.ndarray, np.ndarray, np.ndarray],
        near: Candidates,
        report: MiningReport,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose the pairs of m mentions.

        Args:
            mentions: (m,) their numbers in the pools.
            ids: (m,) their mention ids.
            gold: (m,) gold concepts, their shown names, and the cosines of these names.
            near: the concepts nearest to each.
            report: counts what the guards drop.

        Returns:
            (m, w) concept rows and name ids, -1 for missing pairs, and cosines, NaN if unknown.
        """
        rows = np.full((len(ids), len(self.sources)), -1)
        name_ids, cosines = rows.copy(), np.full(rows.shape, np.nan, np.float32)
        rows[:, 0], name_ids[:, 0], cosines[:, 0] = gold
        reasons = self._guards.reasons(gold[0][:, None], near.rows)
        good = (near.rows >= 0) & (reasons < 0)
        # Concepts after the last selected one were not needed, so they do not count as dropped.
        reached = np.cumsum(good, axis=1) - good < self._config.nearest_negatives
        report.count_drops(SEMANTIC, reasons[reached])
        mention, place = np.nonzero(good & reached)
        target = mention, 1 + (np.cumsum(good, axis=1) - 1)[mention, place]
        rows[target], name_ids[target] = near.rows[mention, place], near.name_ids[mention, place]
        cosines[target] = near.scores[mention, place]
        for column in np.flatnonzero(self.sources >= TYPE).tolist():
            self._draw(rows, column, mentions, ids, report)
            drawn = np.flatnonzero(rows[:, column] >= 0)
            starts, stops = (self._index.offsets[rows[drawn, column] + edge] for edge in (0, 1))
            name_ids[drawn, column] = starts + random_below(self._bits(ids[drawn], column, ATTEMPTS), stops - starts)
        return rows, name_ids, cosines

    def _draw(
        self, rows: np.ndarray, column: int, mentions: np.ndarray, ids: np.ndarray, report: MiningReport
    ) -> None:
        source, number = self.sources[column], self.numbers[column]
        pending = np.arange(len(rows))
        if source == TYPE:
            pending = np.flatnonzero(self._pools.sizes(mentions))
        elif number >= self._config.random_negatives:
            pending = np.flatnonzero(
                rows[:, column - self._config.random_negatives - self._config.same_type_negatives] < 0
            )
        for attempt in range(ATTEMPTS):
            if not len(pending):
                break
            bits = self._bits(ids[pending], column, attempt)
            if source == TYPE:
                drawn = self._pools.pick(mentions[pending], bits, self._bits(ids[pending], column, attempt, 1))
            else:
                drawn = random_below(bits, len(self._index.offsets) - 1)
            reasons = self._guards.reasons(rows[pending, 0], drawn)
            again = (rows[pending, 1:column] == drawn[:, None]).any(axis=1)
            reasons[again & (reasons < 0)] = CHOSEN
            report.count_drops(source, reasons)
            rows[pending[reasons < 0], column] = drawn[reasons < 0]
            pending = pending[reasons >= 0]

    def _bits(self, ids: np.ndarray, column: int, *counters: int) -> np.ndarray:
        return random_bits(ids, self._config.seed, self.sources[column], self.numbers[column], *counters)
