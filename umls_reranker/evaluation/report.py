"""The report of a model on labelled lists: the content of ``metrics.json``, and the outcome of each mention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Decisions, rank
from ..calibration.logistic import sigmoid
from ..calibration.reliability import equal_width
from ..calibration.resampling import document_sums
from ..core.arrays import best_candidates
from ..lists.candidate_lists import AnnotatedLists, CandidateLists
from ..lists.labels import best_of_each_concept
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.pairs import PairTemplate
from .incorrect_types import with_incorrect_types
from .linking import Documents, Measure, gold_ranks, roc_auc
from .metrics import (
    SCHEMA_VERSION,
    measure_figures,
    measure_slices,
    mention_slices,
    slice_figures,
    top_calibration,
    worst_groups,
)
from .outcomes import Outcomes
from .page import BINS, histogram, reliability_points, risk_coverage
from .render import title_of
from .systems import MODEL, System, compare_systems

if TYPE_CHECKING:
    from ..calibration.probabilities import Calibration


def evaluate(
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
        known: text and gold CUI of the mentions that the model counts, for the subsets seen and unseen.

    Returns:
        The content of ``metrics.json``, and the outcomes.
    """
    model = _Model(cross_encoder, calibration, split)
    lists = lists.with_whole_scores(calibration.lowest)
    candidates = len(lists.owner)
    exhaustive = model.decide(lists, model.score, exhaustive=True)
    best = best_of_each_concept(lists, exhaustive.log_odds)
    lists = lists.with_candidates(best)
    scores = Scores(exhaustive.logits[best], exhaustive.truncated)
    decisions = model.decide(lists, scores)
    parts = _parts_of_model(lists, scores.logits, decisions.list_utilities)
    metrics, outcomes = measure(
        lists, decisions, scores.logits, {**systems, **parts}, documents, split, known
    )
    figures = metrics["figures"]
    if not np.isnan(scores.logits).any():
        without_pruning = model.decide(lists, scores, exhaustive=True)
        scored = float(decisions.scored.sum() / max(1, len(best)))
        same = float((decisions.top == without_pruning.top).mean())
        figures["scored_share"] = {"value": scored, "n": len(lists)}
        figures["same_top_candidate"] = {"value": same, "n": len(lists)}
    for share, retyped in with_incorrect_types(lists, documents.seed).items():
        # A cross-encoder that reads types has to score the lists again.
        retyped_decisions = model.decide(retyped, model.score if model.reads_types else scores)
        retyped_outcomes = Outcomes.of(retyped, retyped_decisions)
        for name, figure in slice_figures(retyped_outcomes, documents).items():
            figures[f"incorrect_types/{share:.2f}/{name}"] = figure
        labels = metrics["rows"].setdefault("incorrect_types", {})
        labels[f"{share:.2f}"] = f"{share:.0%} of the mentions"
    metrics["repeated_candidates"] = candidates - len(best)
    metrics["decided_by"] = dict(
        Counter(calibration.models[number].name for number in decisions.models.tolist())
    )
    return metrics, outcomes


@dataclass(frozen=True)
class _Model:
    """A model that scores and ranks the lists of a split."""

    cross_encoder: PairScorer | None
    calibration: Calibration
    split: str

    @property
    def reads_types(self) -> bool:
        return self.cross_encoder is not None and self.cross_encoder.template.mention_types

    def score(self, lists: CandidateLists, retained: np.ndarray) -> Scores:
        return score_lists(self.cross_encoder, lists, f"scoring {self.split} candidates", retained)

    def decide(
        self,
        lists: CandidateLists,
        scores: Scores | Callable[[CandidateLists, np.ndarray], Scores],
        exhaustive: bool = False,
    ) -> Decisions:
        template = self.cross_encoder.template if self.cross_encoder else PairTemplate()
        return rank(
            lists,
            scores,
            self.calibration,
            cross_encoder_inputs=template.reads,
            exhaustive=exhaustive,
        )


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
        logits: (m,) logits of the cross-encoder for all candidates; NaN for a model that uses none, so that nothing is
            reported about it.
        systems: name -> answers of other systems, the order of the lists first.
        documents: documents of the mentions.
        split: name of the lists.
        known: as for `evaluate`.

    Returns:
        The content of ``metrics.json``: counts; ``figures``; ``rows``, table -> row -> label; and ``curves``. And the
        outcomes.
    """
    outcomes = Outcomes.of(lists, decisions)
    systems = {**systems, MODEL: System.of(outcomes)}
    probabilities = {}
    if not np.isnan(logits).any():
        probabilities["raw"] = sigmoid(logits)
    probabilities["calibrated"] = decisions.probabilities
    pairs = _Pairs(lists.labels, documents.take(lists.owner), probabilities)
    compared = compare_systems(systems, documents, outcomes.in_dictionary, outcomes.composite)
    slices = mention_slices(outcomes, lists.mentions, lists.hierarchy, known)
    sliced, rows = measure_slices(outcomes, documents, slices)
    figures = _figures_of_model(compared)
    figures |= measure_figures(outcomes, documents)
    figures |= _pair_figures(pairs, len(outcomes))
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
        "curves": _curves(outcomes, pairs, systems),
    }
    return metrics, outcomes


@dataclass(frozen=True)
class _Pairs:
    """m pairs of a mention and a candidate.

    Attributes:
        labels: (m,) 0 or 1.
        documents: documents of the pairs.
        probabilities: (m,) before calibration, ``raw``, if there is a cross-encoder; and ``calibrated``.
    """

    labels: np.ndarray
    documents: Documents
    probabilities: dict[str, np.ndarray]


def _parts_of_model(
    lists: AnnotatedLists, logits: np.ndarray, list_utilities: np.ndarray
) -> dict[str, System]:
    """The cross-encoder alone, and the list fusion."""
    if np.isnan(logits).any():
        return {}
    systems = {}
    if not np.isnan(list_utilities).any():
        top = best_candidates(list_utilities, lists.offsets)
        score = np.where(top >= 0, sigmoid(list_utilities[top]), np.nan)
        ranks = gold_ranks(list_utilities, lists.offsets, lists.correct)
        systems["list_fusion"] = System(ranks, score)
    systems["cross_encoder"] = System(gold_ranks(logits, lists.offsets, lists.correct))
    return systems


def _figures_of_model(compared: Mapping[str, Measure]) -> dict[str, Measure]:
    """The figures of this model among those of all systems, by their own names."""
    prefix = f"systems/{MODEL}/"
    return {
        key.removeprefix(prefix): figure
        for key, figure in compared.items()
        if key.startswith(prefix)
    }


def _pair_figures(pairs: _Pairs, mentions: int) -> dict[str, Measure]:
    """ROC-AUC and calibration of pairs; names of figures before calibration end in ``_raw``."""
    documents = pairs.documents
    auc = roc_auc(pairs.probabilities["calibrated"], pairs.labels)
    figures: dict[str, Measure] = {"candidate_roc_auc": {"value": auc}}
    for kind, p in pairs.probabilities.items():
        suffix = "_raw" if kind == "raw" else ""
        for name, figure in documents.calibration(p, pairs.labels).items():
            figures[name + suffix] = figure
    if "raw" in pairs.probabilities:
        figures["ece_reduction"] = _ece_reduction(pairs)
    population = f"mentions with {len(pairs.labels):,} candidates"
    over = {"n": mentions, "population": population}
    return {name: figure | over for name, figure in figures.items()}


def _ece_reduction(pairs: _Pairs) -> Measure:
    """1 - ECE after / ECE before, over equal-width bins, the pairs of a document drawn together."""
    documents = pairs.documents
    gaps = []
    for kind in ("raw", "calibrated"):
        p = pairs.probabilities[kind]
        columns = [p - pairs.labels]
        bins = equal_width(p, BINS)
        gaps.append(document_sums(documents.index, documents.count, columns, bins, BINS)[:, 0])

    def reduction(sums: np.ndarray) -> np.ndarray:
        before = np.abs(sums[..., :BINS]).sum(axis=-1)
        after = np.abs(sums[..., BINS:]).sum(axis=-1)
        return 1.0 - after / np.where(before > 0, before, np.nan)

    return documents.interval(np.concatenate(gaps, axis=1), reduction)


def _curves(outcomes: Outcomes, pairs: _Pairs, systems: Mapping[str, System]) -> dict[str, Any]:
    """The points of all charts."""
    reliability = {
        name: reliability_points(p, pairs.labels, pairs.documents.index)
        for name, p in pairs.probabilities.items()
    }
    top = outcomes.select(outcomes.has_candidates)
    reliability["top1"] = reliability_points(top.score, top.correct, top.document)
    risk_coverages = {}
    for name in (MODEL, "calibrated_scores"):
        system = systems.get(name)
        if system is not None and system.score is not None:
            risk_coverages[name] = risk_coverage(system.score, system.ranks == 0)
    return {
        "reliability": reliability,
        "risk_coverage": risk_coverages,
        "score": histogram(outcomes.score, outcomes.correct),
        "margin": histogram(outcomes.margin, outcomes.correct),
    }
