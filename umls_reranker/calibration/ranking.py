"""Decide about candidates: choose each mention's model, score what it reads, make `Decisions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import lists_with_any
from ..lists.candidate_lists import CandidateLists
from .calibrated_model import CalibratedModel
from .calibration import Calibration
from .candidate_scores import CandidateScores
from .decisions import Decisions
from .missing_inputs import without_inputs
from .thresholds import TIERS

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

    def logits_of(part: _Part, retained: np.ndarray) -> np.ndarray:
        return scores.logits[part.candidates]

    decisions = _decide(
        lists,
        logits_of,
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
        mentions: (n,) bool, which of all n mentions they are.
        candidates: (m,) bool, which of all m candidates are theirs.
        lists: their lists, without the inputs that the model was fitted without.
    """

    model: CalibratedModel
    mentions: np.ndarray
    candidates: np.ndarray
    lists: CandidateLists


class _PartScores(NamedTuple):
    """Scores of a part's candidates.

    Attributes:
        scores: the scores.
        has_logits: bool, whether each mention's retained candidates all have a logit: the
            cross-encoder cannot read every candidate (`PairTemplate.are_legible`).
    """

    scores: CandidateScores
    has_logits: np.ndarray


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
    scores_by_candidates = []
    for part in _parts(lists, calibration, choice.models):
        part_scores = _score_part(part, logits_of, calibration, exhaustive)
        scores_by_candidates.append((part.candidates, part_scores.scores))
        complete[part.mentions] &= part_scores.has_logits
        edges[part.mentions] = part.model.thresholds.edges(part.lists.types)
    return Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(scores_by_candidates, len(lists.owner)),
        models=choice.models,
        complete=complete,
        missing=choice.missing,
        edges=edges,
        has_tiers=has_tiers,
        accept_tier=accept_tier,
    )


def _parts(lists: CandidateLists, calibration: Calibration, models: np.ndarray) -> Iterator[_Part]:
    """The part of each model that decides about any mention; `models` is as in `ModelChoice`."""
    for number in np.unique(models).tolist():
        model = calibration.models[number]
        mentions = models == number
        own_lists = lists if mentions.all() else lists.take(mentions)
        yield _Part(
            model=model,
            mentions=mentions,
            candidates=mentions[lists.owner],
            lists=without_inputs(own_lists, model.missing),
        )


def _score_part(
    part: _Part,
    logits_of: Callable[[_Part, np.ndarray], np.ndarray],
    calibration: Calibration,
    exhaustive: bool,
) -> _PartScores:
    """Prune the candidates of a part, get the logits of the others, and weigh all features.

    Arguments are those of `_decide`.
    """
    model = part.model
    table = calibration.feature_table(part.lists, model)
    list_utilities = model.list_utilities(table)
    retained = model.keep_candidates(table, list_utilities)
    if exhaustive and model.uses_cross_encoder:
        retained[:] = True
    logits = np.where(retained, logits_of(part, retained), np.float32(np.nan))
    lacks_logit = retained & np.isnan(logits)
    return _PartScores(
        scores=model.scores(table, logits, list_utilities),
        has_logits=~lists_with_any(lacks_logit, table.offsets),
    )
