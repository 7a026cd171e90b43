"""`Decisions` about the candidates of mentions: their scores, and what follows from these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..core.arrays import firsts, list_offsets, ranking, values_at
from .thresholds import TIERS


class CandidateScores(NamedTuple):
    """Scores of m candidates; all else about candidates follows from them.

    Attributes:
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN where it did not score.
        log_odds: (m,) float64, by which the candidates of a list are ranked: the cross-encoder's
            log-odds or, with a fusion, those of each candidate against NIL.
        probabilities: (m,) float64, calibrated.
        list_utilities: (m,) float64, log-odds by the list fusion, all features but the
            cross-encoder; NaN where the model that decided has none.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    list_utilities: np.ndarray

    @classmethod
    def joined(
        cls, parts: Iterable[tuple[np.ndarray, CandidateScores]], size: int
    ) -> CandidateScores:
        """The scores of `size` candidates, from those of disjoint parts, each (size,) bool."""
        parts = list(parts)
        if len(parts) == 1 and parts[0][0].all():
            return parts[0][1]
        logits = np.full(size, np.nan, np.float32)
        joined = cls(logits, *(np.full(size, np.nan) for _ in range(3)))
        for rows, scores in parts:
            for column, values in zip(joined, scores, strict=True):
                column[rows] = values
        return joined

    def take(self, rows: np.ndarray) -> CandidateScores:
        """The scores of some candidates, (m,) bool."""
        return CandidateScores(*(column[rows] for column in self))


class Tops(NamedTuple):
    """What was decided about the top candidates of n mentions.

    Attributes:
        positions: (n,) int64, flat index of the top candidate; -1 without candidates.
        sizes: (n,) number of candidates.
        probabilities: (n,) NaN without candidates, as in `margins`.
        margins: (n,) margins over the next concept.
        tiers: (n,) indices into `TIERS`; -1 without candidates.
        accepted: (n,) bool.
        models: (n,) index of the model that decided.
    """

    positions: np.ndarray
    sizes: np.ndarray
    probabilities: np.ndarray
    margins: np.ndarray
    tiers: np.ndarray
    accepted: np.ndarray
    models: np.ndarray


@dataclass(frozen=True, eq=False)
class Decisions:
    """What models made of the m candidates of n mentions, in the order of the lists.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        scores: those of the candidates.
        models: (n,) int64, the model that decides, as an index into `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of the model. The certificate of the
            tier "high" was measured on such mentions, so others are never in it.
        missing: input that the model of all inputs reads -> (n,) bool, mentions without it.
        edges: (n, 3) float64, lowest probabilities of the tiers (`TypeThreshold.edges`).
        accept_tier: lowest tier accepted at rank 1.
        truncated: number of pairs whose mention or name was truncated to the model's length.
    """

    offsets: np.ndarray
    concepts: np.ndarray
    scores: CandidateScores
    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]
    edges: np.ndarray
    accept_tier: str = "medium"
    truncated: int = 0

    @property
    def logits(self) -> np.ndarray:
        """(m,) as in `CandidateScores`."""
        return self.scores.logits

    @property
    def probabilities(self) -> np.ndarray:
        """(m,) as in `CandidateScores`."""
        return self.scores.probabilities

    @cached_property
    def order(self) -> np.ndarray:
        """(m,) int64, indices of the candidates by mention, the top candidate first."""
        return ranking(self.scores.log_odds, self.offsets)

    @cached_property
    def margins(self) -> np.ndarray:
        """(m,) float64, `margins` of the probabilities."""
        return margins(self.scores.probabilities, self.concepts, self.offsets)

    @cached_property
    def tiers(self) -> np.ndarray:
        """(m,) int64, indices into `TIERS`."""
        edges = self.edges.copy()
        edges[~self.complete, -1] = np.inf
        edges_of_candidates = edges.repeat(np.diff(self.offsets), axis=0)
        reached = self.scores.probabilities[:, None] >= edges_of_candidates
        return edges.shape[1] - reached.sum(axis=1)

    @cached_property
    def accepted(self) -> np.ndarray:
        """(m,) bool, true for top candidates only."""
        accepted = np.zeros(len(self.order), bool)
        accepted[self.tops.positions[self.tops.accepted]] = True
        return accepted

    @cached_property
    def tops(self) -> Tops:
        """What was decided about the top candidate of each mention."""
        top = firsts(self.order, self.offsets)
        tiers = values_at(self.tiers, top, -1)
        return Tops(
            positions=top,
            sizes=np.diff(self.offsets),
            probabilities=values_at(self.scores.probabilities, top, np.nan),
            margins=values_at(self.margins, top, np.nan),
            tiers=tiers,
            accepted=(tiers >= 0) & (tiers <= TIERS.index(self.accept_tier)),
            models=self.models,
        )

    @property
    def scored(self) -> np.ndarray:
        """(n,) int64, number of candidates of each mention that the cross-encoder scored."""
        return np.diff(list_offsets(~np.isnan(self.scores.logits))[self.offsets])

    def take(self, mentions: np.ndarray) -> Decisions:
        """The decisions about some mentions, (n,) bool."""
        sizes = np.diff(self.offsets)
        rows = mentions.repeat(sizes)
        return replace(
            self,
            offsets=list_offsets(sizes[mentions]),
            concepts=self.concepts[rows],
            scores=self.scores.take(rows),
            models=self.models[mentions],
            complete=self.complete[mentions],
            missing={name: is_missing[mentions] for name, is_missing in self.missing.items()},
            edges=self.edges[mentions],
        )


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the highest of any other concept in its list, or minus 0 without one.

    Args:
        probabilities: (m,) probabilities of the candidates.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
    """
    if not len(probabilities):
        return np.empty(0)
    sizes = np.diff(offsets)
    starts = offsets[:-1][sizes > 0]
    owner = np.repeat(np.arange(len(starts)), sizes[sizes > 0])
    best = np.maximum.reduceat(probabilities, starts)
    leading = np.flatnonzero(probabilities == best[owner])
    leader = concepts[leading[np.unique(owner[leading], return_index=True)[1]]]
    leads = concepts == leader[owner]
    second = np.maximum.reduceat(np.where(leads, 0.0, probabilities), starts)
    return probabilities - np.where(leads, second[owner], best[owner])
