"""The concepts that an index or several retrievers found, with names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Candidates:
    """The k nearest concepts of n queries, the nearest first; lists with fewer than k are padded.

    Attributes:
        rows: (n, k) int64, concept rows, distinct within a query; padded with -1.
        name_ids: (n, k) int64, that concept's name nearest to the query; padded with -1.
        scores: (n, k) float32, cosine of query and name; padded with -inf.
        further: other retriever -> (n, k) float32, its cosine of the query and the concept's most
            similar name, padded with -inf.
        lists: retriever -> (n, depth) int32, the rows that each retriever found by itself, for
            measuring recall; empty if one index was searched.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    scores: np.ndarray
    further: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def padding(cls, n: int, k: int) -> Candidates:
        """Empty results for n queries."""
        return cls(
            rows=np.full((n, k), -1, np.int64),
            name_ids=np.full((n, k), -1, np.int64),
            scores=np.full((n, k), -np.inf, np.float32),
        )

    @classmethod
    def concatenate(cls, groups: Sequence[Candidates]) -> Candidates:
        """The candidates of several groups of queries, one group after the other."""
        first = groups[0]
        return cls(
            rows=np.concatenate([group.rows for group in groups]),
            name_ids=np.concatenate([group.name_ids for group in groups]),
            scores=np.concatenate([group.scores for group in groups]),
            further={
                name: np.concatenate([group.further[name] for group in groups])
                for name in first.further
            },
            lists={
                name: np.concatenate([group.lists[name] for group in groups])
                for name in first.lists
            },
        )

    def take(self, queries: np.ndarray) -> Candidates:
        """The candidates of some queries, by number, without `lists`."""
        further = {name: scores[queries] for name, scores in self.further.items()}
        return Candidates(self.rows[queries], self.name_ids[queries], self.scores[queries], further)
