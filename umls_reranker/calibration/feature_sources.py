"""What features are computed from: candidate lists with normalized texts, and training counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ..core.arrays import RepeatedTexts
from ..lists.candidate_lists import CandidateLists
from ..vocab.normal_form import normal_forms, singular_words
from ..vocab.normalization import normalize_texts
from ..vocab.trigrams import shared_trigrams
from .string_counts import PairCounts, StringCounts


class FeatureSources:
    """What columns are made from: n lists with m candidates, and counts of training mentions.

    Attributes:
        lists: the candidate lists.
        counts: counts of training mentions.
        mentions: n normalized texts.
        names: the distinct names of candidates, normalized; those of the m candidates are at
            `lists.names.codes`.
    """

    def __init__(self, lists: CandidateLists, counts: StringCounts) -> None:
        # Only of these lists: they may be some of many, with the names of all.
        self.lists = replace(lists, names=RepeatedTexts(*lists.names.distinct()))
        self.counts = counts
        self.mentions = normalize_texts(lists.mentions)
        self.names = normalize_texts(self.lists.names.texts)

    @cached_property
    def string_counts(self) -> np.ndarray:
        """(n,) number of training mentions with the string of each mention."""
        return self.counts.string_counts(self.mentions)

    @cached_property
    def pair_counts(self) -> PairCounts:
        """Counts of training mentions by concept, with its strings and types."""
        lists = self.lists
        return self.counts.pair_counts(
            self.mentions, lists.types, lists.ids, lists.owner, lists.cuis.codes
        )

    @cached_property
    def mention_words(self) -> list[str]:
        """The sorted words in singular of each mention, n texts."""
        return singular_words(self.mentions)

    @cached_property
    def is_other_name(self) -> np.ndarray:
        """(m,) bool, whether the mention is a further known name, up to plurals and order."""
        return self.are_names(self.mention_words)

    def are_names(self, mentions: Sequence[str]) -> np.ndarray:
        """(m,) bool, whether forms of the mentions are known as names of the concepts."""
        return self.counts.are_names(
            mentions, self.lists.ids, self.lists.owner, self.lists.cuis.codes
        )

    @cached_property
    def mention_forms(self) -> list[str]:
        """The normal form of each mention, n texts."""
        return normal_forms(self.lists.mentions)

    @cached_property
    def name_forms(self) -> list[str]:
        """The normal forms of the distinct names."""
        return normal_forms(self.lists.names.texts)

    @cached_property
    def shared_trigrams(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) shares of the mention's trigrams in the name, and of the name's in the mention."""
        return shared_trigrams(self.mentions, self.names, self.lists.owner, self.lists.names.codes)
