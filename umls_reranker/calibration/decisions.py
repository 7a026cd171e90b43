"""Decisions about candidates: `rank` makes `Decisions` from lists and a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..core.arrays import firsts, list_offsets, list_sizes, ranking
from ..data.candidate_lists import CandidateLists
from .probabilities import calibrated_scores, kept
from .thresholds import TIERS

if TYPE_CHECKING:
    from ..models.cross_encoder import Scores
    from .probabilities import Calibration, Choice

__all__ = ["Decisions", "margins", "rank"]


@dataclass(frozen=True)
class Decisions:
    """Columns over the m candidates of n mentions, in the order of the lists.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN of candidates left unscored.
        log_odds: (m,) float64, by which the candidates of a list are ranked.
        probabilities: (m,) float64, calibrated.
        order: (m,) int64, indices of the candidates, mention by mention, best first.
        margins: (m,) float64, `margins` of the probabilities.
        tiers: (m,) int64, indices into `TIERS`.
        accepted: (m,) bool, true for first candidates only.
        models: (n,) int64, what decided, as places in `Calibration.models`.
        missing: inputs that the model of all inputs reads -> (n,) bool, which mentions came without.
        truncated: number of pairs whose mention or name was cut to the model's length.
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
    def first(self) -> np.ndarray:
        """(n,) int64, index of each mention's first candidate; -1 if it has none."""
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
    shown: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool | Sequence[bool] | np.ndarray = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: of n mentions.
        score: gives the logits of candidates that can win, (m,) bool, of lists without what the models that decide do
            not read (`score_lists`); or logits, where these are known.
        calibration: of the model.
        shown: inputs that the cross-encoder reads in addition to mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score candidates that cannot win too (`Part.kept`), of all mentions or of each.
    """
    asked = np.asarray(exhaustive)
    if asked.size and asked.dtype != bool:
        raise TypeError(f"exhaustive: {exhaustive!r} is neither True nor False, nor a list of them")
    if asked.ndim and len(asked) != len(lists):
        raise ValueError(f"exhaustive: {len(lists)} entities need one value, or as many, not {len(asked)}")
    choice = calibration.choose(lists, shown)
    lists = calibration.as_read(lists, choice.models)
    parts = calibration.parts(lists, choice.models)
    scored = kept(parts) | np.broadcast_to(asked.astype(bool), len(lists))[lists.owner]
    scores = score(lists, scored) if callable(score) else score
    logits = np.where(scored, scores.logits, np.float32(np.nan))
    decided = calibrated_scores(parts, logits)
    order = ranking(decided.log_odds, lists.offsets)
    tiers = _tiers(lists, decided.probabilities, choice, calibration)
    first = order[lists.offsets[:-1][list_sizes(lists.offsets) > 0]]
    accepted = np.zeros(len(order), bool)
    accepted[first] = tiers[first] <= TIERS.index(accept_tier)
    return Decisions(
        lists.offsets,
        logits,
        decided.log_odds,
        decided.probabilities,
        order,
        margins(decided.probabilities, lists.concepts, lists.offsets),
        tiers,
        accepted,
        choice.models,
        choice.missing,
        scores.truncated,
    )


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the best one of any other concept in its list, or minus 0 if there is no other.

    Args:
        probabilities: (m,).
        concepts: (m,) as `CandidateLists.concepts`.
        offsets: (n + 1,).
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


def _tiers(lists: CandidateLists, probabilities: np.ndarray, choice: Choice, calibration: Calibration) -> np.ndarray:
    """(m,) places in `TIERS`."""
    edges = np.empty((len(lists), 3))
    for number in np.unique(choice.models).tolist():
        thresholds, inside = calibration.models[number].thresholds, choice.models == number
        rows = [thresholds.for_type(types) for types in (*lists.types.sets, ())]
        own = np.array([(row.low, row.accept, np.inf if row.high is None else row.high) for row in rows])
        edges[inside] = own[lists.types.codes[inside]]
    # What certifies the tier "high" was measured on mentions with all that the model reads.
    edges[~choice.complete, 2] = np.inf
    return 3 - (probabilities[:, None] >= edges[lists.owner]).sum(axis=1)
