"""Ranking: `rank` makes `Decisions` from candidate lists, a calibration and a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..lists.candidate_lists import CandidateLists
from .decisions import Decisions
from .inputs import without_inputs
from .probabilities import Calibration

if TYPE_CHECKING:
    from ..models.cross_encoder import Scores


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
        score: function that returns the logits of the retained candidates, (m,) bool, of lists
            without the inputs that the deciding model does not read (`score_lists`); it is called
            once for each deciding model. Or the logits, if they are known.
        calibration: the model's calibration.
        cross_encoder_inputs: inputs that it reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`CalibratedModel.keep_candidates`).
    """
    lists = calibration.with_usable_scores(lists.with_whole_scores(calibration.lowest))
    decisions = calibration.model_for(lists, cross_encoder_inputs)
    decisions = replace(decisions, accept_tier=accept_tier)
    truncated = 0 if callable(score) else score.truncated
    for number in np.unique(decisions.models).tolist():
        truncated += _score(decisions, lists, calibration, number, score, exhaustive)
    return replace(decisions, truncated=truncated)


def _score(
    decisions: Decisions,
    lists: CandidateLists,
    calibration: Calibration,
    number: int,
    score: Callable[[CandidateLists, np.ndarray], Scores] | Scores,
    exhaustive: bool,
) -> int:
    """Fill in what one model, by its number, makes of its mentions: prune, then score.

    Returns:
        Number of pairs that `score` truncated; 0 if the logits are known.
    """
    model = calibration.models[number]
    mentions = decisions.models == number
    rows = mentions[lists.owner]
    if not mentions.all():
        lists = lists.take(mentions)
    lists = without_inputs(lists, model.missing)
    table = calibration.feature_table(lists, model)
    list_utilities = model.list_utilities(table)
    retained = model.keep_candidates(table, list_utilities)
    if exhaustive and model.uses_cross_encoder:
        retained[:] = True
    logits = decisions.logits[rows]
    truncated = 0
    if not callable(score):
        logits = score.logits[rows]
    elif retained.any():
        scores = score(lists, retained)
        logits = scores.logits
        truncated = scores.truncated
    logits = np.where(retained, logits, np.float32(np.nan))
    calibrated = model.scores(table, logits, list_utilities)
    decisions.set_scores(rows, logits, calibrated, list_utilities)
    decisions.edges[mentions] = model.thresholds.edges(lists.types)
    decisions.set_thresholds[mentions] = model.thresholds.set_threshold(decisions.accept_tier)
    return truncated
