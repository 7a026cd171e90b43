"""What models decided about mentions: the order of candidates, margins, tiers, what is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..core.arrays import firsts, list_offsets, ranking, values_at
from .candidate_scores import CandidateScores
from .thresholds import TIERS


class Tops(NamedTuple):
    """What was decided about the top candidates of n mentions.

    Attributes:
        positions: (n,) int64, flat index of the top candidate; -1 without candidates.
        sizes: (n,) number of candidates.
        probabilities: (n,) NaN without candidates, as in `margins`.
        margins: (n,) margins over the next concept.
        tiers: (n,) indices into `TIERS`; -1 without candidates, and where no tier is given.
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
        has_tiers: (n,) bool, whether the model was calibrated on lists like the mention's
            (`ListSource.gives_tiers_to`); others have scores alone.
        accept_tier: lowest tier accepted at rank 1.
        truncated: number of pairs whose mention or name was truncated to the model's length.
        computed: number of pairs that the cross-encoder computed; others were equal or remembered.
    """

    offsets: np.ndarray
    concepts: np.ndarray
    scores: CandidateScores
    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]
    edges: np.ndarray
    has_tiers: np.ndarray
    accept_tier: str = "medium"
    truncated: int = 0
    computed: int = 0

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
        """(m,) int64, indices into `TIERS`; -1 where the mention has no tiers."""
        edges = self.edges.copy()
        # No probability reaches the tier high without all inputs.
        edges[~self.complete, -1] = np.inf
        sizes = np.diff(self.offsets)
        edges_of_candidates = edges.repeat(sizes, axis=0)
        reached = self.scores.probabilities[:, None] >= edges_of_candidates
        # The first of `TIERS` is reached with all edges, the last with none.
        tiers = edges.shape[1] - reached.sum(axis=1)
        return np.where(self.has_tiers.repeat(sizes), tiers, -1)

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
        has_logit = ~np.isnan(self.scores.logits)
        scored_ahead = list_offsets(has_logit)
        return np.diff(scored_ahead[self.offsets])

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
            has_tiers=self.has_tiers[mentions],
        )


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the highest of any other concept in its list, or minus 0 without one.

    Args:
        probabilities: (m,) probabilities of the candidates.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
    """
    sizes = np.diff(offsets)
    # Of the lists with candidates: where each starts, and the list of each candidate, (m,).
    filled_sizes = sizes[sizes > 0]
    starts = offsets[:-1][sizes > 0]
    owner = np.repeat(np.arange(len(starts)), filled_sizes)
    highest = np.maximum.reduceat(probabilities, starts)
    # The concept of each list's first candidate with the highest probability leads.
    are_highest = np.flatnonzero(probabilities == highest[owner])
    _, first_of_list = np.unique(owner[are_highest], return_index=True)
    leading_concept = concepts[are_highest[first_of_list]]
    leads = concepts == leading_concept[owner]
    second = np.maximum.reduceat(np.where(leads, 0.0, probabilities), starts)
    return probabilities - np.where(leads, second[owner], highest[owner])
