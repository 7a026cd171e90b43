"""The report of a model on labelled lists: ``metrics.json``, and the outcome of each mention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Decisions
from ..calibration.logistic import sigmoid
from ..calibration.ranking import rank
from ..calibration.reliability import equal_width
from ..calibration.resampling import document_sums
from ..core.arrays import best_candidates
from ..lists.candidate_lists import AnnotatedLists, CandidateLists
from ..lists.labels import best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pairs import PairTemplate
from .charts import BINS, histogram, reliability_points, risk_coverage
from .linking import Documents, Measure, gold_ranks, roc_auc
from .metrics import (
    SCHEMA_VERSION,
    measure_figures,
    measure_slices,
    mention_slices,
    top_calibration,
    worst_groups,
)
from .outcomes import Outcomes
from .render import title_of
from .systems import MODEL, System, compare_systems

if TYPE_CHECKING:
    from ..calibration.probabilities import Calibration

# Of names of the model's figures among those of all systems.
PREFIX = f"systems/{MODEL}/"


def measure_model(
    cross_encoder: PairScorer | None,
    calibration: Calibration,
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    known: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Any], Outcomes]:
    """Score the lists and measure the answers. Nothing is fitted to them.

    Several candidates of one concept count as one, the top one.

    Args:
        cross_encoder: that of the model; None without one.
        calibration: calibration of the model.
        lists: n labelled lists; gold concepts are not added.
        systems: further systems for the same mentions, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists in reports.
        known: text and gold CUI of the mentions that the model counts, for the subsets seen and
            unseen.

    Returns:
        The content of ``metrics.json``, and the outcomes.
    """
    template = cross_encoder.template if cross_encoder else PairTemplate()

    def decide(
        lists: CandidateLists, scores: Scores | Callable[..., Scores], exhaustive: bool = False
    ) -> Decisions:
        reads = template.reads
        return rank(lists, scores, calibration, cross_encoder_inputs=reads, exhaustive=exhaustive)

    score = partial(score_lists, cross_encoder, desc=f"scoring {split} candidates")
    lists = lists.with_whole_scores(calibration.lowest)
    candidates = len(lists.owner)
    exhaustive = decide(lists, score, exhaustive=True)
    best = best_of_each_concept(lists, exhaustive.scores.log_odds)
    lists = lists.with_candidates(best)
    scores = Scores(exhaustive.logits[best], exhaustive.truncated)
    decisions = decide(lists, scores)
    systems = {**systems, **_parts_of_model(lists, scores.logits, decisions.scores.list_utilities)}
    metrics, outcomes = measure(lists, decisions, scores.logits, systems, documents, split, known)
    figures = metrics["figures"]
    if not np.isnan(scores.logits).any():
        unpruned = decide(lists, scores, exhaustive=True)
        scored_share = float(decisions.scored.sum() / max(1, len(best)))
        same_top = float((decisions.tops.positions == unpruned.tops.positions).mean())
        figures["scored_share"] = {"value": scored_share, "n": len(lists)}
        figures["same_top_candidate"] = {"value": same_top, "n": len(lists)}
    decided_by = Counter(calibration.models[number].name for number in decisions.models.tolist())
    counts = {"repeated_candidates": candidates - len(best), "decided_by": dict(decided_by)}
    return metrics | counts, outcomes


def measure(
    lists: AnnotatedLists,
    decisions: Decisions,
    logits: np.ndarray,
    systems: Mapping[str, System],
    documents: Documents,
    split: str,
    known: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, Any], Outcomes]:
    """Measure what needs only lists and decisions.

    Args:
        lists: n lists with m candidates.
        decisions: decisions about them.
        logits: (m,) logits of the cross-encoder for all candidates; NaN for a model that uses none,
            so that nothing is reported about it.
        systems: name -> answers of other systems, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists.
        known: as for `evaluate`.

    Returns:
        The content of ``metrics.json``: counts; ``figures``; ``rows``, table -> row -> label; and
        ``curves``. And the outcomes.
    """
    outcomes = Outcomes.of(lists, decisions)
    systems = {**systems, MODEL: System.of(outcomes)}
    pairs = {"raw": sigmoid(logits), "calibrated": decisions.probabilities}
    if np.isnan(logits).any():
        del pairs["raw"]
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    slices = mention_slices(outcomes, lists.mentions, lists.hierarchy, known)
    sliced, rows = measure_slices(outcomes, documents, slices)
    figures = {
        key.removeprefix(PREFIX): figure
        for key, figure in compared.items()
        if key.startswith(PREFIX)
    }
    figures |= measure_figures(outcomes, documents)
    population = f"mentions with {len(lists.labels):,} candidates"
    for name, figure in _pair_figures(pairs, lists, documents.take(lists.owner)).items():
        figures[name] = figure | {"n": len(outcomes), "population": population}
    for name, figure in top_calibration(outcomes, documents).items():
        figures[f"top1_{name}"] = figure
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
        "curves": _curves(outcomes, pairs, lists, systems, documents),
    }
    return metrics, outcomes


def _parts_of_model(
    lists: AnnotatedLists, logits: np.ndarray, list_utilities: np.ndarray
) -> dict[str, System]:
    """The cross-encoder alone, and the list fusion."""
    systems: dict[str, System] = {}
    if np.isnan(logits).any():
        return systems
    if not np.isnan(list_utilities).any():
        top = best_candidates(list_utilities, lists.offsets)
        score = np.where(top >= 0, sigmoid(list_utilities[top]), np.nan)
        ranks = gold_ranks(list_utilities, lists.offsets, lists.correct)
        systems["list_fusion"] = System(ranks, score)
    systems["cross_encoder"] = System(gold_ranks(logits, lists.offsets, lists.correct))
    return systems


def _pair_figures(
    pairs: Mapping[str, np.ndarray], lists: AnnotatedLists, documents: Documents
) -> dict[str, Measure]:
    """ROC-AUC and calibration of m pairs.

    Args:
        pairs: (m,) probabilities, ``calibrated``, and ``raw`` if there is a cross-encoder; names of
            figures before calibration end in ``_raw``.
        lists: the lists.
        documents: documents of the pairs.
    """
    labels = lists.labels
    auc = roc_auc(pairs["calibrated"], labels)
    figures: dict[str, Measure] = {"candidate_roc_auc": {"value": auc}}
    for kind, p in pairs.items():
        for name, figure in documents.calibration(p, labels).items():
            figures[f"{name}_raw" if kind == "raw" else name] = figure
    if "raw" in pairs:
        gaps = [
            document_sums(
                documents.index, documents.count, [p - labels], equal_width(p, BINS), BINS
            )[:, 0]
            for p in pairs.values()
        ]
        figures["ece_reduction"] = documents.interval(np.concatenate(gaps, axis=1), _ece_reduction)
    return figures


def _ece_reduction(gaps: np.ndarray) -> np.ndarray:
    """1 - ECE after / ECE before of (..., 2 * BINS), the pairs of a document drawn together."""
    before = np.abs(gaps[..., :BINS]).sum(axis=-1)
    after = np.abs(gaps[..., BINS:]).sum(axis=-1)
    return 1.0 - after / np.where(before > 0, before, np.nan)


def _curves(
    outcomes: Outcomes,
    pairs: Mapping[str, np.ndarray],
    lists: AnnotatedLists,
    systems: Mapping[str, System],
    documents: Documents,
) -> dict[str, Any]:
    """The points of all charts."""
    pair_documents = documents.index[lists.owner]
    top = outcomes.select(outcomes.has_candidates)
    points = {
        name: reliability_points(p, lists.labels, pair_documents) for name, p in pairs.items()
    }
    risk_curves = {
        name: risk_coverage(system.score, system.ranks == 0)
        for name in (MODEL, "calibrated_scores")
        if (system := systems.get(name)) is not None and system.score is not None
    }
    return {
        "reliability": points | {"top1": reliability_points(top.score, top.correct, top.document)},
        "risk_coverage": risk_curves,
        "score": histogram(outcomes.score, outcomes.correct),
        "margin": histogram(outcomes.margin, outcomes.correct),
    }
