"""Decide about candidates: choose each mention's model, score what it reads, make `Decisions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import lists_with_any
from ..lists.candidate_lists import CandidateLists
from .calibrated_model import CalibratedModel
from .calibration import Calibration
from .decisions import TIERS, CandidateScores, Decisions
from .features import without_inputs

if TYPE_CHECKING:
    from ..models.cross_encoder import Scores


def rank(
    lists: CandidateLists,
    score: Callable[[CandidateLists, np.ndarray], Scores],
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: the lists of n mentions.
        score: returns the logits of the retained candidates, (m,) bool, of lists without the inputs
            that the deciding model does not read (`score_lists`); others may be NaN. It is called
            once for each deciding model that retains any.
        calibration: the model's calibration.
        cross_encoder_inputs: inputs that it reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`CalibratedModel.keep_candidates`).
    """
    truncated = 0
    computed = 0

    def logits_of(part: _Part, retained: np.ndarray) -> np.ndarray:
        nonlocal truncated, computed
        if not retained.any():
            return np.full(len(retained), np.nan, np.float32)
        scores = score(part.lists, retained)
        truncated += scores.truncated
        computed += scores.computed
        return scores.logits

    decisions = _decide(
        lists,
        logits_of,
        calibration,
        cross_encoder_inputs=cross_encoder_inputs,
        accept_tier=accept_tier,
        exhaustive=exhaustive,
    )
    return replace(decisions, truncated=truncated, computed=computed)


def rank_scored(
    lists: CandidateLists,
    scores: Scores,
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool = False,
) -> Decisions:
    """As `rank`, with the logits of all candidates, (m,), instead of a function that returns them.

    Those of pruned candidates are ignored, unless it is `exhaustive`.
    """
    decisions = _decide(
        lists,
        lambda part, retained: scores.logits[part.rows],
        calibration,
        cross_encoder_inputs=cross_encoder_inputs,
        accept_tier=accept_tier,
        exhaustive=exhaustive,
    )
    return replace(decisions, truncated=scores.truncated)


class _Part(NamedTuple):
    """The mentions that one model decides about.

    Attributes:
        model: the model.
        lists: their lists, without the inputs that the model was fitted without.
        rows: (m,) bool, their candidates among the m of all lists.
    """

    model: CalibratedModel
    lists: CandidateLists
    rows: np.ndarray


def _decide(
    lists: CandidateLists,
    logits_of: Callable[[_Part, np.ndarray], np.ndarray],
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str],
    accept_tier: str,
    exhaustive: bool,
) -> Decisions:
    """Decide about all candidates, model by model.

    Arguments are those of `rank`, but `logits_of`: it returns the logits of a part's retained
    candidates, (m,) bool; others may be anything.
    """
    has_tiers = calibration.source.gives_tiers_to(lists)
    lists = calibration.source.with_usable_scores(lists.with_whole_scores(calibration.lowest))
    choice = calibration.model_for(lists, cross_encoder_inputs)
    complete = choice.complete.copy()
    edges = np.empty((len(lists), len(TIERS) - 1))
    scores_by_rows = []
    for number in np.unique(choice.models).tolist():
        model = calibration.models[number]
        mentions = choice.models == number
        own_lists = lists if mentions.all() else lists.take(mentions)
        part = _Part(model, without_inputs(own_lists, model.missing), mentions[lists.owner])
        table = calibration.feature_table(part.lists, model)
        list_utilities = model.list_utilities(table)
        retained = model.keep_candidates(table, list_utilities)
        if exhaustive and model.uses_cross_encoder:
            retained[:] = True
        logits = np.where(retained, logits_of(part, retained), np.float32(np.nan))
        scores_by_rows.append((part.rows, model.scores(table, logits, list_utilities)))
        # The cross-encoder cannot read every candidate (`PairTemplate.are_legible`).
        is_unread = retained & np.isnan(logits)
        complete[mentions] &= ~lists_with_any(is_unread, table.offsets)
        edges[mentions] = model.thresholds.edges(part.lists.types)
    return Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(scores_by_rows, len(lists.owner)),
        models=choice.models,
        complete=complete,
        missing=choice.missing,
        edges=edges,
        has_tiers=has_tiers,
        accept_tier=accept_tier,
    )
