"""The report of a model that scores the lists itself.

`report.measure` measures decisions; this module makes them, and adds what only the model can tell:
its parts alone, and what pruning saves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..calibration.calibrated_model import with_lowest_logit
from ..calibration.calibration import Calibration
from ..calibration.decisions import Decisions
from ..calibration.logistic import sigmoid
from ..calibration.ranking import rank, rank_scored
from ..core.arrays import best_candidates, lists_with_any
from ..lists.annotated_lists import AnnotatedLists
from ..lists.labels import are_repeated, best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pair_template import PairTemplate
from .intervals import Documents, Measure
from .outcomes import Outcomes, gold_ranks
from .report import measure
from .systems import System

# Most lists of which the cross-encoder scores all candidates, to tell what it is without the fusion
# and what pruning changes; with more of them the figures would be hardly more exact.
WHOLE_LISTS = 2_000


def measure_model(  # noqa: PLR0913 (a model, its lists, and what stands beside it)
    cross_encoder: PairScorer | None,
    calibration: Calibration,
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    counted: Iterable[tuple[str, str]] = (),
    *,
    whole_lists: int = WHOLE_LISTS,
) -> tuple[dict[str, Any], Outcomes]:
    """Score the lists and measure the answers. Nothing is fitted to them.

    Lists are pruned as they are served. What only whole lists tell, the cross-encoder alone, its
    raw calibration and what pruning changes, is measured on lists drawn at random.

    Several candidates of one concept count as one, the top one.

    Args:
        cross_encoder: that of the model; None without one.
        calibration: calibration of the model.
        lists: n labelled lists; gold concepts are not added.
        systems: further systems for the same mentions, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists in reports.
        counted: text and gold CUI of the mentions that the model counts, for the subsets seen and
            unseen.
        whole_lists: the most lists of which the cross-encoder scores all candidates.

    Returns:
        The content of ``metrics.json``, and the outcomes.
    """
    template = cross_encoder.template if cross_encoder else PairTemplate()
    score = partial(score_lists, cross_encoder, desc=f"scoring {split} candidates")
    score_and_decide = partial(
        rank, score=score, calibration=calibration, cross_encoder_inputs=template.reads
    )
    lists = lists.with_whole_scores(calibration.lowest)
    candidates_in_lists = len(lists.owner)
    drawn = np.random.default_rng(0).permutation(len(lists)) < whole_lists
    # Which candidate of a concept counts is only clear when all of them have a score.
    unpruned_lists = drawn | lists_with_any(are_repeated(lists.concepts), lists.offsets)
    first_pass = _decide_in_parts(lists, unpruned_lists, score_and_decide)
    best = best_of_each_concept(lists, first_pass.log_odds)
    lists = lists.with_candidates(best)
    # The second pass scores nothing: it takes the logits of the first.
    scores = Scores(first_pass.logits[best], first_pass.truncated)
    decide = partial(rank_scored, lists, scores, calibration, cross_encoder_inputs=template.reads)
    decisions = decide()
    shows_parts = _all_use_cross_encoder(calibration, first_pass.models[drawn])
    logits_of_drawn = np.full(len(best), np.nan, np.float32)
    if shows_parts:
        is_in_drawn = drawn[lists.owner]
        # Alone, the cross-encoder ranks those that it cannot read last.
        logits_of_drawn[is_in_drawn] = with_lowest_logit(scores.logits[is_in_drawn])
        systems = {**systems, **_parts_of_model(lists, logits_of_drawn, decisions, drawn)}
    metrics, outcomes = measure(
        lists, decisions, logits_of_drawn, systems, documents, split, counted
    )
    if shows_parts:
        metrics["figures"] |= _pruning_figures(decisions, decide(exhaustive=True), drawn)
    metrics["repeated_candidates"] = candidates_in_lists - len(best)
    return metrics | _decision_counts(calibration, decisions, lists), outcomes


def _all_use_cross_encoder(calibration: Calibration, models: np.ndarray) -> bool:
    """Whether all models of these numbers, (k,), rank by the cross-encoder too."""
    uses_cross_encoder = np.array([model.uses_cross_encoder for model in calibration.models], bool)
    return bool(uses_cross_encoder[models].all())


def _decision_counts(
    calibration: Calibration, decisions: Decisions, lists: AnnotatedLists
) -> dict[str, Any]:
    """How many mentions each model decided, and how many with candidates have no tier."""
    names = [calibration.models[number].name for number in decisions.models.tolist()]
    has_candidates = np.diff(lists.offsets) > 0
    return {
        "decided_by": dict(Counter(names)),
        "untiered": int((~decisions.has_tiers & has_candidates).sum()),
    }


class _FirstPass(NamedTuple):
    """Scores of the m candidates of n lists, before those of one concept count as one.

    Attributes:
        logits: (m,) logits of the cross-encoder, NaN where it was not asked.
        log_odds: (m,) calibrated log odds.
        models: (n,) index of the model that decided.
        truncated: number of truncated pairs.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    models: np.ndarray
    truncated: int


def _decide_in_parts(
    lists: AnnotatedLists, unpruned_lists: np.ndarray, decide: Callable[..., Decisions]
) -> _FirstPass:
    """Decide about n lists, of which those in `unpruned_lists`, (n,) bool, are not pruned."""
    logits = np.full(len(lists.owner), np.nan, np.float32)
    log_odds = np.full(len(lists.owner), np.nan)
    models = np.zeros(len(lists), np.int64)
    truncated = 0
    for mentions, exhaustive in ((unpruned_lists, True), (~unpruned_lists, False)):
        part = decide(lists.take(mentions), exhaustive=exhaustive)
        candidates = mentions[lists.owner]
        logits[candidates] = part.scores.logits
        log_odds[candidates] = part.scores.log_odds
        models[mentions] = part.models
        truncated += part.truncated
    return _FirstPass(logits, log_odds, models, truncated)


def _pruning_figures(
    decisions: Decisions, unpruned: Decisions, drawn: np.ndarray
) -> dict[str, Measure]:
    """What pruning saves, and how often the answer is the same without it.

    Args:
        decisions: decisions about n pruned lists.
        unpruned: decisions about them without pruning, which are known for the drawn ones.
        drawn: (n,) bool.
    """
    scored_share = float(decisions.scored.sum() / max(1, len(decisions.probabilities)))
    is_same = decisions.tops.positions == unpruned.tops.positions
    return {
        "scored_share": {"value": scored_share, "n": len(drawn)},
        "same_top_candidate": {"value": float(is_same[drawn].mean()), "n": int(drawn.sum())},
    }


def _parts_of_model(
    lists: AnnotatedLists, logits: np.ndarray, decisions: Decisions, whole: np.ndarray
) -> dict[str, System]:
    """The systems ``list_fusion``, if all lists have one, and ``cross_encoder``, alone.

    Args:
        lists: n lists with m candidates.
        logits: (m,) logits of the cross-encoder.
        decisions: decisions about the lists.
        whole: (n,) bool, the lists of which the cross-encoder scored all candidates.
    """
    systems = {}
    list_utilities = decisions.scores.list_utilities
    if not np.isnan(list_utilities).any():
        top = best_candidates(list_utilities, lists.offsets)
        score = np.where(top >= 0, sigmoid(list_utilities[top]), np.nan)
        ranks = gold_ranks(list_utilities, lists.offsets, lists.correct)
        systems["list_fusion"] = System(ranks, score)
    ranks = gold_ranks(np.nan_to_num(logits), lists.offsets, lists.correct)
    measured = None if whole.all() else whole
    systems["cross_encoder"] = System(ranks, measured=measured)
    return systems
