"""The features of candidate lists, as columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.arrays import list_offsets, list_owner
from ..lists.candidate_lists import CandidateLists
from .feature_sources import FeatureSources
from .features import FEATURES
from .string_counts import StringCounts

STRING_COUNT = "string_count"
SEEN_STRING = "seen_string"
# What a list's utility of NIL is made of: features of the list, and what each is.
LIST_FEATURES = {
    STRING_COUNT: "log(1 + training mentions with this string)",
    SEEN_STRING: "1 if this string was seen in training",
}


@dataclass(frozen=True)
class FeatureTable:
    """Features of n lists with m candidates.

    Attributes:
        candidates: name of a feature -> (m,) float64; NaN where a candidate lacks an input.
        lists: name in `LIST_FEATURES` -> (n,) float64.
        offsets: (n + 1,) where each list's candidates start.
        concepts: (m,) as in `CandidateLists.concepts`.
    """

    candidates: Mapping[str, np.ndarray]
    lists: Mapping[str, np.ndarray]
    offsets: np.ndarray
    concepts: np.ndarray

    @classmethod
    def of(
        cls,
        lists: CandidateLists,
        candidates: Mapping[str, np.ndarray],
        about_lists: Mapping[str, np.ndarray],
    ) -> FeatureTable:
        """Make a table of these columns."""
        return cls(candidates, about_lists, lists.offsets, lists.concepts)

    @cached_property
    def owner(self) -> np.ndarray:
        """The list of each candidate, (m,)."""
        return list_owner(self.offsets)

    def plus(self, columns: Mapping[str, np.ndarray]) -> FeatureTable:
        """The table with columns of candidates added, or replaced if they exist."""
        return replace(self, candidates={**self.candidates, **columns})

    def take(self, mentions: np.ndarray, rows: np.ndarray | None = None) -> FeatureTable:
        """Some of the lists, (n,) bool, and their candidates in `rows`, (m,) bool; None: all."""
        is_chosen = mentions[self.owner]
        if rows is not None:
            is_chosen = is_chosen & rows
        chosen = np.flatnonzero(is_chosen)
        sizes = np.bincount(self.owner[chosen], minlength=len(mentions))[mentions]
        return FeatureTable(
            {name: column[chosen] for name, column in self.candidates.items()},
            {name: column[mentions] for name, column in self.lists.items()},
            list_offsets(sizes),
            self.concepts[chosen],
        )


def feature_table(
    lists: CandidateLists, counts: StringCounts, names: Iterable[str] | None = None
) -> FeatureTable:
    """Compute the features of lists.

    Args:
        lists: the candidate lists.
        counts: counts of training mentions.
        names: features to compute, besides all scores of the lists; None: all of `FEATURES`.
    """
    sources = FeatureSources(lists, counts)
    candidates = dict(lists.scores)
    to_compute = FEATURES if names is None else names
    for name in to_compute:
        feature = FEATURES.get(name)
        if feature is not None and feature.column is not None:
            candidates[name] = feature.column(sources)
    strings = sources.string_counts
    about_lists = {
        STRING_COUNT: np.log1p(strings),
        SEEN_STRING: np.minimum(strings, 1).astype(np.float64),
    }
    return FeatureTable.of(lists, candidates, about_lists)
