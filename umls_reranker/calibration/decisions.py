"""Decisions about candidates: `rank` makes `Decisions` from lists and a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..core.arrays import firsts, list_offsets, list_sizes, ranking
from ..data.candidate_lists import CandidateLists
from .thresholds import TIERS

if TYPE_CHECKING:
    from ..models.cross_encoder import Scores
    from .probabilities import Calibration


@dataclass(frozen=True)
class Decisions:
    """Columns over the m candidates of n mentions, in the order of the lists.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN of candidates that it did not score.
        log_odds: (m,) float64, by which the candidates of a list are ranked.
        probabilities: (m,) float64, calibrated.
        order: (m,) int64, indices of the candidates by mention, the top candidate first.
        margins: (m,) float64, `margins` of the probabilities.
        tiers: (m,) int64, indices into `TIERS`.
        accepted: (m,) bool, true for top candidates only.
        models: (n,) int64, the model that decided, as an index into `Calibration.models`.
        missing: input that the model of all inputs reads -> (n,) bool, mentions that lack it.
        truncated: number of pairs whose mention or name was truncated to the model's length.
    """

    offsets: np.ndarray
    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    order: np.ndarray
    margins: np.ndarray
    tiers: np.ndarray
    accepted: np.ndarray
    models: np.ndarray
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)
    truncated: int = 0

    @property
    def top(self) -> np.ndarray:
        """(n,) int64, index of each mention's top candidate; -1 if it has none."""
        return firsts(self.order, self.offsets)

    @property
    def scored(self) -> np.ndarray:
        """(n,) int64, number of candidates of each mention that the cross-encoder scored."""
        return list_sizes(list_offsets(~np.isnan(self.logits))[self.offsets])


def rank(
    lists: CandidateLists,
    score: Callable[[CandidateLists, np.ndarray], Scores] | Scores,
    calibration: Calibration,
    *,
    network_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool | Sequence[bool] | np.ndarray = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: the lists of n mentions.
        score: function that returns the logits of the retained candidates, (m,) bool, of lists without the inputs that
            the deciding models do not read (`score_lists`); or the logits, if they are known.
        calibration: the model's calibration.
        network_inputs: inputs that the cross-encoder reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`Part.retained`), one value for all mentions or one for
            each.
    """
    asked = np.asarray(exhaustive)
    if asked.size and asked.dtype != bool:
        raise TypeError(f"exhaustive: {exhaustive!r} is not True, False or a list of them")
    if asked.ndim and len(asked) != len(lists):
        raise ValueError(f"exhaustive: {len(lists)} expected 1 or {len(lists)} values, found {len(asked)}")
    plan = calibration.plan(lists, network_inputs)
    scored = plan.retained | (np.broadcast_to(asked.astype(bool), len(lists)) & plan.uses_network)[lists.owner]
    scores = score(plan.lists, scored) if callable(score) else score
    logits = np.where(scored, scores.logits, np.float32(np.nan))
    log_odds, probabilities = plan.scores(logits)
    order, tiers = ranking(log_odds, lists.offsets), plan.tiers(probabilities)
    top = firsts(order, lists.offsets)
    accepted = np.zeros(len(order), bool)
    accepted[top[top >= 0]] = tiers[top[top >= 0]] <= TIERS.index(accept_tier)
    return Decisions(
        lists.offsets,
        logits,
        log_odds,
        probabilities,
        order,
        margins(probabilities, lists.concepts, lists.offsets),
        tiers,
        accepted,
        plan.deciding.models,
        plan.deciding.missing,
        scores.truncated,
    )


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the highest of any other concept in its list, or minus 0 if there is no other.

    Args:
        probabilities: (m,) probabilities of the candidates.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
    """
    if not len(probabilities):
        return np.empty(0)
    sizes = list_sizes(offsets)
    starts, sizes = offsets[:-1][sizes > 0], sizes[sizes > 0]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    best = np.maximum.reduceat(probabilities, starts)
    leading = np.flatnonzero(probabilities == best[owner])
    leader = concepts[leading[np.unique(owner[leading], return_index=True)[1]]]
    leads = concepts == leader[owner]
    second = np.maximum.reduceat(np.where(leads, 0.0, probabilities), starts)
    return probabilities - np.where(leads, second[owner], best[owner])
