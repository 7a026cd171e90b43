"""`Decisions` about the candidates of mentions: their scores, and what follows from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import firsts, list_offsets, list_owner, list_sizes, ranking
from ..lists.candidate_lists import CandidateLists
from .prediction_sets import RankedLabels, rank_labels, set_sizes
from .thresholds import TIERS

# Columns of `Decisions` over candidates; all else about candidates follows from them.
CANDIDATE_COLUMNS = ("logits", "log_odds", "probabilities", "list_utilities")


class CalibratedScores(NamedTuple):
    """Scores of m candidates.

    Attributes:
        log_odds: (m,) for ranking the candidates of a list: the cross-encoder's log-odds or, with a
            fusion, those of each candidate against NIL.
        probabilities: (m,) float64, calibrated.
    """

    log_odds: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Decisions:
    """What models made of the m candidates of n mentions, in the order of the lists.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        models: (n,) int64, the model that decides, as an index into `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of the model. The certificate of the
            tier "high" was measured on such mentions, so others are never in it.
        missing: input that the model of all inputs reads -> (n,) bool, mentions without it.
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN where it did not score.
        log_odds: (m,) float64, by which the candidates of a list are ranked.
        probabilities: (m,) float64, calibrated.
        list_utilities: (m,) float64, log-odds by the list fusion, all features but the
            cross-encoder; NaN where the model that decided has none.
        edges: (n, 4) float64, lowest probabilities of the tiers (`TypeThreshold.edges`).
        set_thresholds: (n,) float64, from which weight on a label is in the set of a mention that
            is not accepted (`prediction_sets`); NaN without sets.
        accept_tier: lowest tier accepted at rank 1.
        truncated: number of pairs whose mention or name was truncated to the model's length.
    """

    offsets: np.ndarray
    concepts: np.ndarray
    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]
    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    list_utilities: np.ndarray
    edges: np.ndarray
    set_thresholds: np.ndarray
    accept_tier: str = "medium"
    truncated: int = 0

    @classmethod
    def unscored(cls, lists: CandidateLists) -> Decisions:
        """Decisions to be filled: the first model decides about mentions that have all inputs."""
        size = len(lists.owner)
        return cls(
            offsets=lists.offsets,
            concepts=lists.concepts,
            models=np.zeros(len(lists), np.int64),
            complete=np.ones(len(lists), bool),
            missing={},
            logits=np.full(size, np.nan, np.float32),
            log_odds=np.full(size, np.nan),
            probabilities=np.full(size, np.nan),
            list_utilities=np.full(size, np.nan),
            edges=np.full((len(lists), len(TIERS) - 1), np.inf),
            set_thresholds=np.full(len(lists), np.nan),
        )

    @cached_property
    def owner(self) -> np.ndarray:
        """(m,) int64, the mention of each candidate."""
        return list_owner(self.offsets)

    @cached_property
    def order(self) -> np.ndarray:
        """(m,) int64, indices of the candidates by mention, the top candidate first."""
        return ranking(self.log_odds, self.offsets)

    @cached_property
    def top(self) -> np.ndarray:
        """(n,) int64, index of each mention's top candidate; -1 if it has none."""
        return firsts(self.order, self.offsets)

    @cached_property
    def margins(self) -> np.ndarray:
        """(m,) float64, `margins` of the probabilities."""
        return margins(self.probabilities, self.concepts, self.offsets)

    @cached_property
    def tiers(self) -> np.ndarray:
        """(m,) int64, indices into `TIERS`."""
        edges = self.edges.copy()
        edges[~self.complete, 2:] = np.inf
        return edges.shape[1] - (self.probabilities[:, None] >= edges[self.owner]).sum(axis=1)

    @cached_property
    def accepted(self) -> np.ndarray:
        """(m,) bool, true for top candidates only."""
        accepted = np.zeros(len(self.order), bool)
        tops = self.top[self.top >= 0]
        accepted[tops] = self.tiers[tops] <= TIERS.index(self.accept_tier)
        return accepted

    @cached_property
    def labels(self) -> RankedLabels:
        """Concepts and NIL by descending probability."""
        return rank_labels(self.probabilities, self.concepts, self.offsets, self.order)

    @cached_property
    def set_sizes(self) -> np.ndarray:
        """(n,) int64, number of labels in the prediction set: the first of `labels`.

        It is 0 where the top candidate is accepted, without candidates, and without sets.
        """
        is_abstention = (self.top >= 0) & ~self.at_top(self.accepted, True)
        thresholds = np.where(is_abstention, self.set_thresholds, np.nan)
        if np.isnan(thresholds).all():
            return np.zeros(len(thresholds), np.int64)
        return set_sizes(self.labels, self.probabilities, self.offsets, thresholds)

    @property
    def scored(self) -> np.ndarray:
        """(n,) int64, number of candidates of each mention that the cross-encoder scored."""
        return list_sizes(list_offsets(~np.isnan(self.logits))[self.offsets])

    def at_top(self, column: np.ndarray, otherwise: Any) -> np.ndarray:
        """(n,) value of a column (m,) for each mention's top candidate, `otherwise` without one."""
        values = np.full(len(self.top), otherwise, column.dtype)
        has_candidates = self.top >= 0
        values[has_candidates] = column[self.top[has_candidates]]
        return values

    def take(self, mentions: np.ndarray) -> Decisions:
        """The decisions about some mentions, (n,) bool."""
        rows = mentions[self.owner]
        columns = {name: getattr(self, name)[rows] for name in ("concepts", *CANDIDATE_COLUMNS)}
        return replace(
            self,
            offsets=list_offsets(list_sizes(self.offsets)[mentions]),
            models=self.models[mentions],
            complete=self.complete[mentions],
            edges=self.edges[mentions],
            set_thresholds=self.set_thresholds[mentions],
            missing={name: is_missing[mentions] for name, is_missing in self.missing.items()},
            **columns,
        )

    def set_scores(
        self, rows: np.ndarray, logits: np.ndarray, scores: CalibratedScores, list_utilities: Any
    ) -> None:
        """Fill in the columns of some candidates, (m,) bool; no `list_utilities` are None."""
        self.logits[rows] = logits
        self.log_odds[rows] = scores.log_odds
        self.probabilities[rows] = scores.probabilities
        self.list_utilities[rows] = np.nan if list_utilities is None else list_utilities

    def fill(self, mentions: np.ndarray, other: Decisions) -> None:
        """Take what another model made of some mentions, (n,) bool, of the same lists."""
        rows = mentions[self.owner]
        for name in CANDIDATE_COLUMNS:
            getattr(self, name)[rows] = getattr(other, name)[rows]
        self.edges[mentions] = other.edges[mentions]
        self.set_thresholds[mentions] = other.set_thresholds[mentions]


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the highest of any other concept in its list, or minus 0 without one.

    Args:
        probabilities: (m,) probabilities of the candidates.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
    """
    if not len(probabilities):
        return np.empty(0)
    sizes = list_sizes(offsets)
    starts = offsets[:-1][sizes > 0]
    owner = np.repeat(np.arange(len(starts)), sizes[sizes > 0])
    best = np.maximum.reduceat(probabilities, starts)
    leading = np.flatnonzero(probabilities == best[owner])
    leader = concepts[leading[np.unique(owner[leading], return_index=True)[1]]]
    leads = concepts == leader[owner]
    second = np.maximum.reduceat(np.where(leads, 0.0, probabilities), starts)
    return probabilities - np.where(leads, second[owner], best[owner])
