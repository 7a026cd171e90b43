"""The figures of a model on one split: pairs, linking with baselines, calibration, tiers, and losses."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.decisions import Decisions, rank
from ..calibration.logistic import sigmoid
from ..calibration.reliability import calibration_report, equal_width
from ..calibration.resampling import document_index, document_sums, ratio
from ..core.progress import progress
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..data.normalization import normalize_name
from ..models.cross_encoder import PairScorer, Scores, score_lists
from .baselines import StringFrequency, answer_ranks, baseline_answers
from .curves import BINS, histogram, reliability_points, risk_coverage
from .linking import coverage_at_precision, gold_ranks, linking_metrics, measure, tier_metrics
from .missing_inputs import missing_input_figures
from .near_misses import near_misses
from .outcomes import Outcomes, answering_metrics
from .pair_metrics import pair_report
from .slices import group_slices, slice_figures, type_slices
from .wrong_types import wrong_type_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from datasets import Dataset

    from ..calibration.probabilities import Calibration
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

__all__ = ["build_report", "decided_figures", "pair_logits", "serving_figures"]

COVERAGE_PRECISIONS = (0.95, 0.90)
# Per system, the rank of the gold concept and, if it may abstain, which mentions it answered.
Systems = dict[str, tuple[np.ndarray, np.ndarray | None]]


def build_report(
    scorer: PairScorer,
    calibration: Calibration,
    lists: AnnotatedLists,
    pairs: Dataset,
    known_mentions: Dataset,
    calibration_mentions: Dataset,
    concepts: ConceptTable,
    relations: RelationTable,
    *,
    split: str,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], Outcomes]:
    """Score a split and compute all figures.

    Args:
        scorer, calibration: of the model, as `UMLSReranker` loads them.
        lists: candidate lists of the split, gold not injected.
        pairs: mined pairs of the split, for the pair metrics that training also reports.
        known_mentions: of the training and calibration splits, which the model counts; for the string-frequency
            baseline and for what counts as seen.
        calibration_mentions: wrong types are drawn from their types.
        concepts, relations: for the exact-match baseline and for near misses.
        split: name written into the report.
        resamples, seed: of the bootstrap by document.

    Returns:
        The content of ``metrics.json``, and the outcomes of the mentions.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    shown, thresholds = scorer.template.reads, calibration.thresholds

    def score(given: CandidateLists, retained: np.ndarray) -> Scores:
        return score_lists(scorer, given, f"scoring {split} candidates", retained)

    def decide(given: AnnotatedLists, scores: Scores | Callable[[CandidateLists, np.ndarray], Scores]) -> Decisions:
        return rank(given, scores, calibration, network_inputs=shown)

    # All are scored once: the cross-encoder is also measured alone, and what leaving some unscored changes. With other
    # inputs, candidates are scored only as far as they are served.
    whole = rank(lists, score, calibration, network_inputs=shown, exhaustive=True)
    logits = whole.logits
    decided = decide(lists, Scores(logits, whole.truncated))
    calibrated, labels = decided.probabilities, lists.labels
    outcomes, gold = Outcomes.of(lists, decided), lists.annotations.gold
    # Numbers, because each figure sorts the documents of all pairs.
    documents, _ = document_index(outcomes.document)
    pair_documents = documents[lists.owner]
    without = calibration.without_cross_encoder(lists)
    rankings = {} if without is None else {"features_without_cross_encoder": without}
    systems = _systems(lists, decided, logits, rankings) | _baselines(lists, known_mentions, concepts)
    confidences = {"reranker": (outcomes.score, outcomes.correct)}
    if lists.scores:
        confidences["retriever"] = _retrieved_first(lists)
    hierarchy = thresholds.hierarchy
    parts: dict[str, Callable[[], Any]] = {
        "pair": lambda: _mined_pairs(scorer, pairs, lists, logits, documents, split, options),
        "candidate_pair": lambda: _with_population(
            pair_report(calibrated, labels, pair_documents, thresholds.for_type().accept, **options),
            f"{len(labels):,} candidates of {split} mentions, default threshold",
        ),
        "gain_over_retriever": lambda: _gain(outcomes, gold == 0, options),
        "subsets": lambda: _subsets(outcomes, lists, systems, known_mentions, options),
        "coverage": lambda: {
            name: {
                f"{precision:.2f}": coverage_at_precision(score, correct, precision, documents, **options)
                for precision in COVERAGE_PRECISIONS
            }
            for name, (score, correct) in confidences.items()
        },
        "answering": lambda: answering_metrics(outcomes, **options),
        "groups": lambda: group_slices(outcomes, hierarchy, **options),
        "types": lambda: type_slices(outcomes, hierarchy, **options),
        "near_misses": lambda: {
            name: near_misses(lists, scores, concepts, relations, **options)
            for name, scores in (("reranker", decided.log_odds), ("retriever", -np.arange(len(labels))))
        },
        "scored": lambda: _scored(lists, decided, whole),
        "inputs": lambda: missing_input_figures(lists, logits, scorer, calibration, **options),
        "wrong_types": lambda: wrong_type_figures(
            lists,
            logits,
            scorer,
            decide,
            calibration_mentions["semantic_types"][:],
            **options,
        ),
    }
    report = decided_figures(lists, decided, logits, outcomes, systems, confidences, split, options)
    for name, part in progress(parts.items(), desc="measuring", unit=" parts"):
        report[name] = part()
    report["in_dictionary"] = int(outcomes.in_dictionary.sum())
    report["losses"] = {
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_retrieved": int((outcomes.in_dictionary & (gold < 0)).sum()),
        "truncated_pairs": decided.truncated,
    }
    return report, outcomes


def decided_figures(
    lists: AnnotatedLists,
    decided: Decisions,
    logits: np.ndarray,
    outcomes: Outcomes,
    systems: Systems | None,
    confidences: dict[str, tuple[np.ndarray, np.ndarray]] | None,
    split: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The part of a report that needs only lists and decisions.

    Args:
        logits: (m,) of the cross-encoder, of all candidates.
        outcomes: of the decisions.
        systems: name -> rank of the gold concept, and for those that may be silent who was answered; None: reranker,
            cross-encoder, and the order in which the candidates came.
        confidences: name -> score of each mention's answer and whether it is right; None: of the reranker.
        split: name of the lists.
        options: ``resamples`` and ``seed`` of the bootstrap by document.
    """
    raw, labels = sigmoid(logits), lists.labels
    documents, count = document_index(outcomes.document)
    pair_documents = documents[lists.owner]
    top = outcomes.select(outcomes.scored)
    systems = _systems(lists, decided, logits, {}) if systems is None else systems
    ks = sorted({1, 5, int(np.diff(lists.offsets).max(initial=1))})
    confidences = confidences or {"reranker": (outcomes.score, outcomes.correct)}
    return {
        "schema_version": 1,
        "split": split,
        "mentions": len(outcomes),
        "documents": count,
        "candidates": len(labels),
        "linking": {
            name: linking_metrics(ranks, outcomes.in_dictionary, documents, ks=ks, answered=answered, **options)
            for name, (ranks, answered) in systems.items()
        },
        "calibration": _calibration(raw, decided.probabilities, labels, pair_documents, outcomes, options),
        "tiers": tier_metrics(outcomes.tier, outcomes.correct, documents, **options),
        "serving": serving_figures(outcomes, split, **options),
        "curves": {
            "reliability": {
                "raw": reliability_points(raw, labels, pair_documents),
                "calibrated": reliability_points(decided.probabilities, labels, pair_documents),
                "top1": reliability_points(top.score, top.correct, top.document),
            },
            "risk_coverage": {name: risk_coverage(*confidence) for name, confidence in confidences.items()},
            "score": histogram(outcomes.score, outcomes.correct),
            "margin": histogram(outcomes.margin, outcomes.correct),
        },
    }


def _retrieved_first(lists: AnnotatedLists) -> tuple[np.ndarray, np.ndarray]:
    """The first retriever's score of each mention's first candidate, NaN without one, and whether it is right."""
    first = np.where(np.diff(lists.offsets) > 0, lists.offsets[:-1], -1)
    scores = next(iter(lists.scores.values()))
    return np.where(first >= 0, np.append(scores, np.nan)[first], np.nan), lists.is_gold(first)


def _scored(lists: AnnotatedLists, decided: Decisions, whole: Decisions) -> dict[str, Any]:
    """How many candidates the cross-encoder scores, and what that changes against scoring all."""
    outcomes = {name: Outcomes.of(lists, found) for name, found in (("with_cut", decided), ("exhaustive", whole))}
    return {
        "candidates": int(decided.scored.sum()),
        "share": float(decided.scored.sum() / max(1, len(decided.logits))),
        "same_first": float((decided.top == whole.top).mean()),
        "acc@1": {name: float(found.correct.mean()) for name, found in outcomes.items()},
        "high_share": {name: float((found.tier == "high").mean()) for name, found in outcomes.items()},
    }


def _systems(
    lists: AnnotatedLists, decided: Decisions, logits: np.ndarray, rankings: dict[str, np.ndarray]
) -> Systems:
    """The systems that rank the candidates, and the retrieved order."""
    rankings = {"reranker": decided.log_odds, "cross_encoder": logits} | rankings
    gold = lists.annotations.gold
    ranked: Systems = {name: (gold_ranks(scores, lists.offsets, gold), None) for name, scores in rankings.items()}
    return ranked | {"retriever": (gold, None)}


def _baselines(lists: AnnotatedLists, known_mentions: Dataset, concepts: ConceptTable) -> Systems:
    """Systems with one answer or none."""
    annotations, texts, cuis = lists.annotations, lists.mentions, lists.cuis.to_list()
    frequency = StringFrequency.fit(zip(known_mentions["mention"][:], known_mentions["cui"][:], strict=True))
    known = [text for text in lists.cuis.texts if text]
    rows = dict(zip(known, concepts.rows(known).tolist(), strict=True))

    def names_of(cui: str) -> list[str]:
        return concepts.names(rows.get(cui, -1))

    lists_of_cuis = [cuis[start:end] for start, end in pairwise(lists.offsets.tolist())]
    answers = baseline_answers(texts, lists_of_cuis, names_of, frequency)
    del answers["retriever"]
    return {name: answer_ranks(given, annotations.cuis) for name, given in answers.items()}


def _mined_pairs(
    scorer: PairScorer,
    pairs: Dataset,
    lists: CandidateLists,
    logits: np.ndarray,
    documents: np.ndarray,
    split: str,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    columns = [pairs[name][:] for name in ("mention", "name", "left", "right")]
    mined = pair_logits(scorer, columns, lists, logits, f"scoring mined {split} pairs")
    documents = documents[pairs.with_format("numpy")["mention_id"][:]]
    labels = pairs.with_format("numpy")["label"][:].astype(np.int64)
    report = pair_report(sigmoid(mined), labels, documents, 0.5, **options)
    return _with_population(report, f"{len(labels):,} mined {split} pairs, raw probability >= 0.5")


def pair_logits(
    scorer: PairScorer, pairs: Sequence[Sequence[str]], lists: CandidateLists, logits: np.ndarray, title: str
) -> np.ndarray:
    """Logits of p pairs, (p,); only those that are not candidates of the lists are scored.

    Args:
        pairs: their mentions, names, lefts and rights, p each, as the scorer reads them.
        logits: (m,) of the lists' candidates, NaN if not scored.
        title: of a progress bar.
    """
    texts, names = scorer.template.mention_texts(lists), scorer.template.candidate_texts(lists)
    known = {
        (texts[row], name, lists.lefts[row], lists.rights[row]): logit
        for row, name, logit in zip(lists.owner.tolist(), names, logits.tolist(), strict=True)
        if logit == logit
    }
    keys = list(zip(*pairs, strict=True))
    new = [key for key in dict.fromkeys(keys) if key not in known]
    if new:
        mentions, shown, lefts, rights = map(list, zip(*new, strict=True))
        known |= zip(new, scorer.score(mentions, shown, lefts, rights, title).logits.tolist(), strict=True)
    return np.array([known[key] for key in keys], np.float32)


def _with_population(report: dict[str, dict[str, Any]], population: str) -> dict[str, dict[str, Any]]:
    return {name: entry | {"population": population} for name, entry in report.items()}


def _subsets(
    outcomes: Outcomes,
    lists: AnnotatedLists,
    systems: Systems,
    known_mentions: Dataset,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """acc@1 of every system over in-dictionary mentions, by whether string and concept are among the known mentions.

    Under ``figures``, those of the reranker over all mentions of the part (`slice_figures`).
    """
    strings = {normalize_name(text) for text in known_mentions["mention"][:]}
    cuis = set(known_mentions["cui"][:])
    seen_string = np.array([normalize_name(text) in strings for text in lists.mentions])
    seen_cui = np.array([cui in cuis for cui in outcomes.gold])
    parts = {
        "seen_string": seen_string,
        "unseen_string": ~seen_string,
        "seen_cui": seen_cui,
        "unseen_cui": ~seen_cui,
    }
    result = {}
    for name, part in parts.items():
        inside = part & outcomes.in_dictionary
        count = int(inside.sum())
        accuracy = {
            system: float((ranks[inside] == 0).mean()) if count else None for system, (ranks, _) in systems.items()
        }
        result[name] = {
            "mentions": count,
            "share": count / max(1, int(outcomes.in_dictionary.sum())),
            "acc@1": accuracy,
            "figures": slice_figures(outcomes.select(part), **options) if part.any() else None,
        }
    return result


def _calibration(
    raw: np.ndarray,
    calibrated: np.ndarray,
    labels: np.ndarray,
    pair_documents: np.ndarray,
    outcomes: Outcomes,
    options: dict[str, Any],
) -> dict[str, dict[str, float]]:
    before = calibration_report(raw, labels, pair_documents, **options)
    after = calibration_report(calibrated, labels, pair_documents, **options)
    scored = outcomes.scored
    top_one = calibration_report(
        outcomes.score[scored], outcomes.correct[scored].astype(int), outcomes.document[scored], **options
    )
    report = {f"{name}_raw": entry for name, entry in before.items()} | after
    report |= {f"top1_{name}": entry for name, entry in top_one.items()}
    report["ece_reduction"] = _ece_reduction(raw, calibrated, labels, pair_documents, options)
    return report


def _ece_reduction(
    raw: np.ndarray, calibrated: np.ndarray, labels: np.ndarray, pair_documents: np.ndarray, options: dict[str, Any]
) -> dict[str, float]:
    """1 - ECE after / ECE before, over 15 equal-width bins, the pairs of a document drawn together."""
    index, documents = document_index(pair_documents)
    gaps = []
    for p in (raw, calibrated):
        cell = equal_width(p, BINS)
        gaps.append(document_sums(index, documents, [p - labels], cell, BINS)[:, 0])

    def reduction(sums: np.ndarray) -> np.ndarray:
        before, after = np.abs(sums[..., :BINS]).sum(axis=-1), np.abs(sums[..., BINS:]).sum(axis=-1)
        return 1.0 - after / np.where(before > 0, before, np.nan)

    return measure(np.concatenate(gaps, axis=1), reduction, **options)


def _gain(outcomes: Outcomes, retrieved_first: np.ndarray, options: dict[str, Any]) -> dict[str, float]:
    """acc@1 minus that of the retriever, over in-dictionary mentions."""
    known = outcomes.in_dictionary
    index, documents = document_index(outcomes.document)
    gain = (outcomes.correct.astype(np.int64) - retrieved_first) * known
    return measure(document_sums(index, documents, [gain, known]), ratio, **options)


def serving_figures(outcomes: Outcomes, split: str, **options: int) -> dict[str, dict[str, Any]]:
    """Shares of all mentions; means over those with candidates, as `monitoring.figures` counts them too."""
    everywhere, accepted, scored = np.ones(len(outcomes)), outcomes.accepted, outcomes.scored
    population, with_any = f"{len(outcomes):,} {split} mentions", f"{scored.sum():,} {split} mentions with candidates"
    columns = {
        "high_confidence_share": (outcomes.tier == "high", everywhere, population),
        "accepted_share": (accepted, everywhere, population),
        "without_candidates_share": (~scored, everywhere, population),
        "mean_top_score": (np.nan_to_num(outcomes.score), scored, with_any),
        "mean_margin": (np.nan_to_num(outcomes.margin), scored, with_any),
        "accepted_precision": (accepted & outcomes.correct, accepted, f"{accepted.sum():,} accepted mentions"),
    }
    index, documents = document_index(outcomes.document)
    return {
        name: measure(document_sums(index, documents, [part, whole]), ratio, **options) | {"population": over}
        for name, (part, whole, over) in columns.items()
    }
