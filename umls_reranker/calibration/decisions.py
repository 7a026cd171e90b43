"""Decisions about candidates: `rank` makes `Decisions` from lists and a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import firsts, list_offsets, list_owner, list_sizes, ranking
from ..lists.candidate_lists import CandidateLists
from .inputs import without_inputs
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
        list_utilities: (m,) float64, log-odds by the list fusion, all features but the cross-encoder; NaN where the
            model that decided has none.
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
    list_utilities: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def top(self) -> np.ndarray:
        """(n,) int64, index of each mention's top candidate; -1 if it has none."""
        return firsts(self.order, self.offsets)

    @property
    def scored(self) -> np.ndarray:
        """(n,) int64, number of candidates of each mention that the cross-encoder scored."""
        return list_sizes(list_offsets(~np.isnan(self.logits))[self.offsets])

    def take(self, mentions: np.ndarray) -> Decisions:
        """The decisions about some mentions, (n,) bool."""
        rows = mentions[list_owner(self.offsets)]
        offsets = list_offsets(list_sizes(self.offsets)[mentions])
        of_candidates = ("logits", "log_odds", "probabilities", "margins", "tiers", "accepted", "list_utilities")
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in of_candidates}
        missing = {name: lacks[mentions] for name, lacks in self.missing.items()}
        order = ranking(taken["log_odds"], offsets)
        return replace(self, offsets=offsets, order=order, models=self.models[mentions], missing=missing, **taken)


@dataclass(frozen=True)
class Scored:
    """What models made of the m candidates of n mentions; `decide` makes `Decisions` from it.

    Attributes:
        logits: as in `Decisions`, and likewise the others.
        edges: (n, 3) lowest probabilities of the tiers low, medium and high.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    list_utilities: np.ndarray
    edges: np.ndarray

    @classmethod
    def empty(cls, mentions: int, candidates: int) -> Scored:
        """Columns to be filled."""
        log_odds, probabilities, list_utilities = np.full((3, candidates), np.nan)
        logits = np.full(candidates, np.nan, np.float32)
        return cls(logits, log_odds, probabilities, list_utilities, np.full((mentions, 3), np.inf))

    def fill(self, mentions: np.ndarray, owner: np.ndarray, other: Scored) -> None:
        """Take the scores of some mentions, (n,) bool, from another; `owner` is that of the lists."""
        for column, values in zip(vars(self).values(), vars(other).values(), strict=True):
            rows = mentions if column is self.edges else mentions[owner]
            column[rows] = values[rows]

    def decide(
        self,
        lists: CandidateLists,
        models: np.ndarray,
        missing: Mapping[str, np.ndarray],
        accept_tier: str = "medium",
        truncated: int = 0,
    ) -> Decisions:
        """Order, margins, tiers and acceptance; arguments are as in `Decisions` and for `rank`."""
        order = ranking(self.log_odds, lists.offsets)
        tiers = 3 - (self.probabilities[:, None] >= self.edges[lists.owner]).sum(axis=1)
        top = firsts(order, lists.offsets)
        accepted = np.zeros(len(order), bool)
        accepted[top[top >= 0]] = tiers[top[top >= 0]] <= TIERS.index(accept_tier)
        return Decisions(
            lists.offsets,
            self.logits,
            self.log_odds,
            self.probabilities,
            order,
            margins(self.probabilities, lists.concepts, lists.offsets),
            tiers,
            accepted,
            models,
            missing,
            truncated,
            self.list_utilities,
        )


def rank(
    lists: CandidateLists,
    score: Callable[[CandidateLists, np.ndarray], Scores] | Scores,
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: the lists of n mentions.
        score: function that returns the logits of the retained candidates, (m,) bool, of lists without the inputs that
            the deciding model does not read (`score_lists`); it is called once for each deciding model. Or the logits,
            if they are known.
        calibration: the model's calibration.
        cross_encoder_inputs: inputs that it reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`CalibratedModel.keep_candidates`).
    """
    lists = lists.with_whole_scores(calibration.lowest)
    choice = calibration.model_for(lists, cross_encoder_inputs)
    scored, truncated = Scored.empty(len(lists), len(lists.owner)), 0 if callable(score) else score.truncated
    for number in np.unique(choice.models).tolist():
        mentions = choice.models == number
        truncated += _fill_scores(scored, lists, mentions, calibration, number, score, exhaustive)
    # The certificate of the tier "high" was measured on mentions with all inputs of the model.
    scored.edges[~choice.complete, 2] = np.inf
    return scored.decide(lists, choice.models, choice.missing, accept_tier, truncated)


def _fill_scores(
    scored: Scored,
    lists: CandidateLists,
    mentions: np.ndarray,
    calibration: Calibration,
    number: int,
    score: Callable[[CandidateLists, np.ndarray], Scores] | Scores,
    exhaustive: bool,
) -> int:
    """Fill in what one model, by its number, makes of the mentions it decides about, (n,) bool: prune, then score.

    Returns:
        Number of pairs that `score` truncated; 0 if the logits are known.
    """
    model, rows = calibration.models[number], mentions[lists.owner]
    part = without_inputs(lists if mentions.all() else lists.take(mentions), model.missing)
    table = calibration.feature_table(part, model)
    list_utilities = model.list_fusion.utilities(table) if model.list_fusion else None
    retained = model.keep_candidates(table, list_utilities)
    if exhaustive and model.uses_cross_encoder:
        retained[:] = True
    logits, truncated = scored.logits[rows], 0
    if not callable(score):
        logits = score.logits[rows]
    elif retained.any():
        scores = score(part, retained)
        logits, truncated = scores.logits, scores.truncated
    logits = np.where(retained, logits, np.float32(np.nan))
    scored.logits[rows] = logits
    scored.log_odds[rows], scored.probabilities[rows] = model.scores(table, logits, list_utilities)
    if list_utilities is not None:
        scored.list_utilities[rows] = list_utilities
    scored.edges[mentions] = model.thresholds.edges(part.types)
    return truncated


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
