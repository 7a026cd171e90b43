"""The report of a model on labelled lists: ``metrics.json``, and the outcome of each mention."""

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
from ..calibration.reliability import document_sums, equal_width
from ..core.arrays import best_candidates, lists_with_any
from ..lists.candidate_lists import AnnotatedLists
from ..lists.labels import are_repeated, best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pair_template import PairTemplate
from .curves import BINS, histogram, reliability_points, risk_coverage
from .intervals import Documents, Measure
from .metrics import (
    SCHEMA_VERSION,
    measure_figures,
    roc_auc,
    top_calibration,
)
from .outcomes import Outcomes, gold_ranks
from .slices import measure_slices, mention_slices, worst_groups
from .systems import MODEL, System, compare_systems
from .tables import title_of

# Most lists of which the cross-encoder scores all candidates, to tell what it is without the fusion
# and what pruning changes; with more of them the figures would be hardly more exact.
WHOLE_LISTS = 2_000
# The model's own figures begin with this among those of all systems.
MODEL_PREFIX = f"systems/{MODEL}/"


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
    read_candidates = len(lists.owner)
    drawn = np.random.default_rng(0).permutation(len(lists)) < whole_lists
    # Which candidate of a concept counts is known only when all of them have a score.
    unpruned_lists = drawn | lists_with_any(are_repeated(lists.concepts), lists.offsets)
    first_pass = _decide_in_parts(lists, unpruned_lists, score_and_decide)
    best = best_of_each_concept(lists, first_pass.log_odds)
    lists = lists.with_candidates(best)
    # The second pass scores nothing: it takes the logits of the first.
    scores = Scores(first_pass.logits[best], first_pass.truncated)
    decide = partial(
        rank_scored,
        lists,
        scores,
        calibration,
        cross_encoder_inputs=template.reads,
    )
    decisions = decide()
    logits_of_drawn = np.full(len(best), np.nan, np.float32)
    uses_cross_encoder = np.array([model.uses_cross_encoder for model in calibration.models], bool)
    if uses_cross_encoder[first_pass.models[drawn]].all():
        is_in_drawn = drawn[lists.owner]
        # Alone, the cross-encoder ranks those that it cannot read last.
        logits_of_drawn[is_in_drawn] = with_lowest_logit(scores.logits[is_in_drawn])
        systems = {**systems, **_parts_of_model(lists, logits_of_drawn, decisions, drawn)}
    metrics, outcomes = measure(
        lists, decisions, logits_of_drawn, systems, documents, split, counted
    )
    if "systems/cross_encoder/acc@1" in metrics["figures"]:
        unpruned = decide(exhaustive=True)
        metrics["figures"] |= _pruning_figures(decisions, unpruned, drawn)
    decided_by = Counter(calibration.models[number].name for number in decisions.models.tolist())
    has_candidates = np.diff(lists.offsets) > 0
    counts = {
        "repeated_candidates": read_candidates - len(best),
        "decided_by": dict(decided_by),
        "untiered": int((~decisions.has_tiers & has_candidates).sum()),
    }
    return metrics | counts, outcomes


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


def measure(
    lists: AnnotatedLists,
    decisions: Decisions,
    logits: np.ndarray,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    counted: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Any], Outcomes]:
    """Measure what needs only lists and decisions.

    Args:
        lists: n lists with m candidates.
        decisions: decisions about them.
        logits: (m,) logits of the cross-encoder; lists with any NaN tell nothing about it.
        systems: name -> answers of other systems, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists.
        counted: as for `measure_model`.

    Returns:
        The content of ``metrics.json``: counts; ``figures``; ``rows``, table -> row -> label; and
        ``curves``. And the outcomes.
    """
    outcomes = Outcomes.of(lists, decisions)
    systems = {**systems, MODEL: System.of(outcomes)}
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    slices = mention_slices(outcomes, lists.mentions, lists.hierarchy, counted)
    sliced, rows = measure_slices(outcomes, documents, slices)
    figures = {
        key.removeprefix(MODEL_PREFIX): figure
        for key, figure in compared.items()
        if key.startswith(MODEL_PREFIX)
    }
    figures |= measure_figures(outcomes, documents)
    probabilities = decisions.probabilities
    figures |= _pair_figures(probabilities, lists, documents)
    points = {"calibrated": reliability_points(probabilities, lists.labels)}
    whole = _whole_lists(lists, logits)
    if whole.any():
        whole_lists = lists.take(whole)
        pairs = whole[lists.owner]
        raw = sigmoid(logits[pairs])
        figures |= _raw_figures(raw, probabilities[pairs], whole_lists, documents.take(whole))
        points = {"raw": reliability_points(raw, whole_lists.labels)} | points
    figures |= {
        f"top1_{name}": figure for name, figure in top_calibration(outcomes, documents).items()
    }
    figures |= worst_groups(sliced, rows.get("groups", {})) | compared | sliced
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": len(lists.labels),
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_in_list": lists.not_in_list,
        "truncated_pairs": decisions.truncated,
        "figures": figures,
        "rows": {"systems": {name: title_of(name) for name in systems}} | rows,
        "curves": _curves(outcomes, points, systems),
    }
    return metrics, outcomes


def _whole_lists(lists: AnnotatedLists, logits: np.ndarray) -> np.ndarray:
    """The lists of which all candidates have a logit, (n,) bool; none if there is no candidate."""
    has_all: np.ndarray = ~lists_with_any(np.isnan(logits), lists.offsets)
    return has_all & bool((~np.isnan(logits)).any())


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


def _pair_figures(
    probabilities: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """ROC-AUC and calibration of the m pairs of n lists, by calibrated probabilities, (m,)."""
    figures: dict[str, Measure] = {
        "candidate_roc_auc": {"value": roc_auc(probabilities, lists.labels)}
    }
    figures |= documents.take(lists.owner).calibration(probabilities, lists.labels)
    return _over_pairs(figures, lists)


def _raw_figures(
    raw: np.ndarray, calibrated: np.ndarray, lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """Calibration of the m pairs of n lists before calibration, in names that end in ``_raw``.

    Args:
        raw: (m,) probabilities by the cross-encoder alone.
        calibrated: (m,) those of the model, which ``ece_reduction`` compares them with.
        lists: the lists.
        documents: documents of the mentions.
    """
    labels = lists.labels
    of_pairs = documents.take(lists.owner)
    figures = {f"{name}_raw": each for name, each in of_pairs.calibration(raw, labels).items()}
    # (documents, BINS) each: by how much the probabilities of a bin exceed its labels, in all.
    gaps = []
    for p in (raw, calibrated):
        bins = equal_width(p, BINS)
        gaps.append(document_sums(of_pairs.index, of_pairs.count, [p - labels], bins, BINS)[:, 0])
    figures["ece_reduction"] = of_pairs.interval(
        np.concatenate(gaps, axis=1), _ece_reduction, is_share=False
    )
    return _over_pairs(figures, lists)


def _over_pairs(figures: Mapping[str, Measure], lists: AnnotatedLists) -> dict[str, Measure]:
    """The figures with the pairs that they are over."""
    over = {"n": len(lists), "population": f"mentions with {len(lists.labels):,} candidates"}
    return {name: figure | over for name, figure in figures.items()}


def _ece_reduction(gaps: np.ndarray) -> np.ndarray:
    """1 - calibrated ECE / raw ECE, NaN if the raw one is 0.

    Args:
        gaps: (..., 2 * BINS) sums by bin of probability minus label, first raw, then calibrated.
    """
    raw = np.abs(gaps[..., :BINS]).sum(axis=-1)
    calibrated = np.abs(gaps[..., BINS:]).sum(axis=-1)
    return 1.0 - calibrated / np.where(raw > 0, raw, np.nan)


def _curves(
    outcomes: Outcomes, points: Mapping[str, Any], systems: Mapping[str, System]
) -> dict[str, Any]:
    """The points of all charts; `points` are those of the reliability of pairs, by their name."""
    top = outcomes.select(outcomes.has_candidates)
    risk_curves = {}
    for name in (MODEL, "calibrated_scores"):
        system = systems.get(name)
        if system is not None and system.score is not None:
            risk_curves[name] = risk_coverage(system.score, system.ranks == 0)
    return {
        "reliability": {
            **points,
            "top1": reliability_points(top.score, top.correct),
        },
        "risk_coverage": risk_curves,
        "score": histogram(outcomes.score, outcomes.correct),
        "margin": histogram(outcomes.margin, outcomes.correct),
    }
