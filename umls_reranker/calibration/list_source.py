"""The lists that a model was calibrated on: which others are of their source, and get tiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..core.arrays import lists_with_any
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND, SUFFIX
from ..lists.index_scores import INDEX_SCORES, TEACHER
from .missing_inputs import Lists
from .score_range import ScoreRange


@dataclass(frozen=True)
class ListSource:
    """The lists that a model was calibrated on.

    Attributes:
        index_key: index key of the lists (`CandidateLists.index_keys`); "" for lists of no index.
            Scores of our own retrievers count as missing in lists with another key.
        score_ranges: name -> range of the retrieval scores used; scores outside count as missing.
        list_scores: name of each score of the lists -> whether all lists had it; None: the model is
            for nobody's lists in particular, as ``built-in``.
        facts: further facts about the lists, as ``documents`` and ``dictionary``; decisions do not
            read them.
    """

    index_key: str = ""
    score_ranges: Mapping[str, ScoreRange] = field(default_factory=dict)
    list_scores: Mapping[str, bool] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_nobodys(self) -> bool:
        """Whether it was calibrated on lists of no index and of no pipeline in particular."""
        return not self.index_key and self.list_scores is None

    def gives_tiers_to(self, lists: CandidateLists) -> np.ndarray:
        """Whether each mention's list is of this source, (n,) bool.

        Tiers and decisions hold for such lists only: those of its index, by the key; or else lists
        of no index, with the same scores. In both, the best of some score is in the range of
        calibration: else they are of another scale.
        """
        of_source = lists.are_of(self.index_key) & self._has_usable_score(lists)
        if self.index_key or self.list_scores is None:
            return of_source
        for name, was_in_all in self.list_scores.items():
            # A score that only some lists of calibration had may be there or not.
            if was_in_all and name != TEACHER:
                of_source &= lists.have_score(name)
        for name in self._foreign_scores(lists):
            of_source &= ~lists.have_score(name)
        return of_source

    def _foreign_scores(self, lists: CandidateLists) -> set[str]:
        """Scores of some lists that no list of calibration had."""
        assert self.list_scores is not None
        unread = {key.removesuffix(SUFFIX) for key in lists.unread_scores}
        # A retriever that found all candidates of calibration may miss some here.
        given = {name for name in unread.union(lists.scores) if not name.endswith(FOUND)}
        return given - self.list_scores.keys() - {TEACHER}

    def _has_usable_score(self, lists: CandidateLists) -> np.ndarray:
        """Whether the best candidate by any score is in its range, (n,) bool.

        Lower scores may be out of it: sentinels often are.

        User-provided lists without any of the scores have none to judge by, and count. The
        retrievers of an index give scores to all candidates.
        """
        has_score = np.zeros(len(lists), bool)
        has_usable_score = np.zeros(len(lists), bool)
        for name in lists.scores.keys() & self.score_ranges.keys():
            score_range = self.score_ranges[name]
            usable = np.isfinite(score_range.inside(lists.scores[name]))
            above = lists.scores[name] > score_range.bounds.high
            has_score |= lists.have_score(name)
            has_usable_score |= lists_with_any(usable, lists.offsets) & ~lists_with_any(
                above, lists.offsets
            )
        if self.index_key and self.score_ranges:
            has_candidates = np.diff(lists.offsets) > 0
            return has_usable_score | ~has_candidates
        return has_usable_score | ~has_score

    def with_usable_scores(self, lists: Lists) -> Lists:
        """The lists with NaN for scores that are out of range, or our own with another index.

        Scores that are read for their ranks alone count with any index.
        """
        usable = {}
        for name in lists.scores.keys() & self.score_ranges.keys():
            usable[name] = self.score_ranges[name].inside(lists.scores[name])
            # Other scores of the same name may be cosines too, which no range tells apart.
            if name in INDEX_SCORES:
                is_ours = lists.are_of(self.index_key)[lists.owner]
                usable[name] = np.where(is_ours, usable[name], np.nan)
        return lists.with_columns(scores={**lists.scores, **usable}) if usable else lists

    def with_ranges_of(self, scores: Iterable[str]) -> ListSource:
        """The same with the ranges of some scores alone.

        Raises:
            KeyError: one of them has no range.
            ValueError: one is of an index, and the key of the index is missing.
        """
        ranges = {name: self.score_ranges[name] for name in scores}
        if not self.index_key and not INDEX_SCORES.keys().isdisjoint(ranges):
            raise ValueError(f"{self.index_key!r} is not a known key")
        return replace(self, score_ranges=ranges)

    @property
    def in_words(self) -> str:
        """The lists that get tiers (`gives_tiers_to`)."""
        if self.is_nobodys:
            return "lists of no index, and certifies nothing"
        dictionary = self.facts.get("dictionary")
        completed = f" completed by {dictionary}," if dictionary else ""
        documents = f"{self.facts['documents']:,}" if "documents" in self.facts else "some"
        return f"{self._index_or_scores},{completed} as in {documents} documents"

    @property
    def _index_or_scores(self) -> str:
        """The index in words, or the scores of lists of no index."""
        if self.index_key:
            return f"lists of the index {self.index_key[:12]}"
        scores = [self._score_in_words(name) for name in self.list_scores or ()]
        return f"lists of no index, with {', '.join(scores) or 'no scores'}"

    def _score_in_words(self, name: str) -> str:
        """A score of the lists of calibration: whether all had it, and its range."""
        assert self.list_scores is not None
        facts = []
        if not self.list_scores[name]:
            facts.append("not in all")
        if name in self.score_ranges:
            low, high = self.score_ranges[name].bounds
            facts.append(f"from {low:.3g} to {high:.3g}")
        return f"{name}{SUFFIX} ({', '.join(facts)})" if facts else f"{name}{SUFFIX}"

    def to_dict(self) -> dict[str, Any]:
        """Its keys in ``calibrator.json``, besides ``fitted_on``."""
        state: dict[str, Any] = {"index_key": self.index_key}
        if self.list_scores is not None:
            state["list_scores"] = dict(self.list_scores)
        if self.score_ranges:
            state["score_ranges"] = {
                name: score_range._asdict() for name, score_range in self.score_ranges.items()
            }
        return state

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ListSource:
        """Read the content of ``calibrator.json``.

        Raises:
            KeyError, TypeError, ValueError: something is missing or damaged.
        """
        index_key = state["index_key"]
        if not isinstance(index_key, str):
            raise ValueError(f"{index_key!r} is not a known key")
        ranges = dict(state.get("score_ranges") or {})
        score_ranges = {name: ScoreRange.from_dict(saved) for name, saved in ranges.items()}
        return cls(
            index_key=index_key,
            score_ranges=score_ranges,
            list_scores=state.get("list_scores"),
            facts=state.get("fitted_on") or {},
        )
