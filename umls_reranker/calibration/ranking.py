"""Ranking: `rank` makes `Decisions` from candidate lists, a calibration and a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ..lists.candidate_lists import CandidateLists
from ..models.cross_encoder import Scores
from .decisions import CandidateScores, Decisions
from .inputs import without_inputs
from .probabilities import Calibration
from .thresholds import TIERS

# Returns the logits of the retained candidates, (m,) bool, of lists; others may be NaN.
Scoring: TypeAlias = Callable[[CandidateLists, np.ndarray], Scores]


def rank(
    lists: CandidateLists,
    score: Scoring | Scores,
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: the lists of n mentions.
        score: scores the retained candidates of lists without the inputs that the deciding model
            does not read (`score_lists`); it is called once for each deciding model. Or the logits
            of all candidates, if they are known.
        calibration: the model's calibration.
        cross_encoder_inputs: inputs that it reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`CalibratedModel.keep_candidates`).
    """
    lists = calibration.with_usable_scores(lists.with_whole_scores(calibration.lowest))
    choice = calibration.model_for(lists, cross_encoder_inputs)
    edges = np.empty((len(lists), len(TIERS) - 1))
    truncated = 0 if callable(score) else score.truncated
    parts = []
    for number in np.unique(choice.models).tolist():
        model = calibration.models[number]
        mentions = choice.models == number
        rows = mentions[lists.owner]
        read = without_inputs(lists if mentions.all() else lists.take(mentions), model.missing)
        table = calibration.feature_table(read, model)
        list_utilities = model.list_utilities(table)
        retained = model.keep_candidates(table, list_utilities)
        if exhaustive and model.uses_cross_encoder:
            retained[:] = True
        logits = np.full(len(retained), np.nan, np.float32)
        if not callable(score):
            logits = score.logits[rows]
        elif retained.any():
            scores = score(read, retained)
            logits = scores.logits
            truncated += scores.truncated
        logits = np.where(retained, logits, np.float32(np.nan))
        parts.append((rows, model.scores(table, logits, list_utilities)))
        edges[mentions] = model.thresholds.edges(read.types)
    return Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(parts, len(lists.owner)),
        **choice._asdict(),
        edges=edges,
        accept_tier=accept_tier,
        truncated=truncated,
    )
