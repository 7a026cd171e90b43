"""The figures of a model on one split: pairs, linking beside baselines, calibration, tiers, and what was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.logistic import sigmoid
from ..calibration.reliability import bootstrap_by_document, calibration_report
from ..data.concepts import normalize_name
from ..training.metrics import pair_report
from .baselines import StringFrequency, answer_ranks, baseline_answers
from .candidate_lists import CandidateLists, TopCandidates
from .checklist import Measured
from .linking import coverage_at_precision, gold_ranks, linking_metrics, tier_metrics
from .near_misses import near_misses

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable
    from ..reranker import UMLSReranker

__all__ = ["build_report", "measured_figures"]

COVERAGE_PRECISIONS = (0.95, 0.90)


def build_report(
    reranker: UMLSReranker,
    lists: CandidateLists,
    pairs: Dataset,
    train_mentions: Dataset,
    concepts: ConceptTable,
    relations: RelationTable,
    *,
    split: str,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Score a split and measure everything.

    Args:
        reranker: the model folder as a user loads it.
        lists: real candidate lists of the split, gold not injected.
        pairs: mined pairs of the split, for the pair metrics that training also reports.
        train_mentions: for the string-frequency baseline and for what counts as seen.
        concepts, relations: for the exact-match baseline, and for what is a near miss.
        split: name written into the report.
        resamples, seed: of the bootstrap by document.

    Returns:
        The content of ``metrics.json``, and the arrays that the plots need: ``raw``, ``calibrated``, ``labels`` of all
        candidates, ``top_score``, ``top_correct``, ``retrieval_top_score``, ``retrieval_top_correct`` of all mentions.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    documents = np.asarray(lists.documents)
    scores = lists.score(reranker.scorer, f"scoring {split} candidates")
    decided = reranker.calibration(lists.scored(scores.logits))
    calibrated, raw, labels = decided.probabilities, sigmoid(scores.logits), lists.labels
    top = lists.top(decided.log_odds, calibrated)
    retrieval_top = lists.retrieved_first()
    types = list(lists.mentions["semantic_types"])
    thresholds = [reranker.thresholds.for_type(names) for names in types]
    tiers = ["reject" if np.isnan(p) else row.tier(p) for p, row in zip(top.score, thresholds, strict=True)]
    accepted = np.array([p >= row.accept for p, row in zip(top.score, thresholds, strict=True)])
    without = reranker.calibration.without_cross_encoder(lists.scored(scores.logits))
    rankings = {"reranker": decided.log_odds, "cross_encoder": scores.logits}
    if without is not None:
        rankings["evidence_without_cross_encoder"] = without
    systems = _systems(lists, rankings, train_mentions, concepts)
    pair_documents = documents[lists.mention_of]
    population = f"{len(documents):,} {split} mentions"
    report = {
        "schema_version": 1,
        "split": split,
        "mentions": len(documents),
        "documents": len(np.unique(documents)),
        "in_dictionary": int(lists.in_dictionary.sum()),
        "candidates": len(labels),
        "pair": _mined_pairs(reranker, pairs, lists.mentions, split, options),
        "candidate_pair": _with_population(
            pair_report(calibrated, labels, pair_documents, reranker.thresholds.for_type().accept, **options),
            f"{len(labels):,} candidates of {split} mentions, default threshold",
        ),
        "linking": {
            name: linking_metrics(ranks, lists.in_dictionary, documents, answered=answered, **options)
            for name, (ranks, answered) in systems.items()
        },
        "subsets": _subsets(lists, systems, train_mentions),
        "coverage": {
            name: {
                f"{precision:.2f}": coverage_at_precision(
                    np.nan_to_num(best.score, nan=-np.inf), best.correct, precision, documents, **options
                )
                for precision in COVERAGE_PRECISIONS
            }
            for name, best in (("reranker", top), ("retriever", retrieval_top))
        },
        "calibration": _calibration(raw, calibrated, labels, pair_documents, top, documents, options),
        "near_misses": {
            name: near_misses(lists, scores, concepts, relations, **options)
            for name, scores in (("reranker", decided.log_odds), ("retriever", -np.arange(len(labels))))
        },
        "tiers": tier_metrics(tiers, top.correct, documents, **options),
        "serving": _serving(top, tiers, accepted, documents, population, options),
        "losses": {
            "out_of_dictionary": int((~lists.in_dictionary).sum()),
            "not_retrieved": int((lists.in_dictionary & (lists.gold < 0)).sum()),
            "truncated_pairs": scores.truncated,
        },
    }
    arrays = {
        "raw": raw,
        "calibrated": calibrated,
        "labels": labels,
        "top_score": top.score,
        "top_correct": top.correct,
        "retrieval_top_score": retrieval_top.score,
        "retrieval_top_correct": retrieval_top.correct,
    }
    return report, arrays


def measured_figures(report: dict[str, Any]) -> dict[str, Measured]:
    """The figures that targets can name, by the names used in recipes."""
    linking, serving = report["linking"]["reranker"], report["serving"]
    mentions = f"{report['mentions']:,} {report['split']} mentions"
    known = f"{report['in_dictionary']:,} {report['split']} mentions with gold in the dictionary"
    candidates = f"{report['candidates']:,} candidates"

    def measured(entry: dict[str, float | None], population: str) -> Measured:
        value = float("nan") if entry["value"] is None else entry["value"]
        return Measured(value, entry.get("low"), entry.get("high"), population)

    figures = {name: measured(entry, entry["population"]) for name, entry in report["pair"].items()}
    figures |= {f"candidate_{name}": measured(e, e["population"]) for name, e in report["candidate_pair"].items()}
    for name in ("acc@1", "mrr", "recall@5", "recall@32"):
        figures[name] = measured(linking[name], mentions)
        figures[f"{name}_in_dictionary"] = measured(linking["in_dictionary"][name], known)
    gain = (
        linking["in_dictionary"]["acc@1"]["value"] - report["linking"]["retriever"]["in_dictionary"]["acc@1"]["value"]
    )
    figures["acc@1_gain_over_retriever"] = Measured(gain, population=known)
    figures |= {name: measured(entry, candidates) for name, entry in report["calibration"].items()}
    figures |= {name: measured(entry, mentions) for name, entry in serving.items()}
    high = report["tiers"]["high"]
    figures["high_confidence_precision"] = measured(high["precision"], f"{high['count']:,} mentions in the high tier")
    near = report["near_misses"]["reranker"]["share"]
    figures["near_miss_share"] = measured(near, near["population"])
    for precision, entry in report["coverage"]["reranker"].items():
        figures[f"coverage_at_{precision}"] = measured(entry, mentions)
    return figures


def _systems(
    lists: CandidateLists, rankings: dict[str, np.ndarray], train_mentions: Dataset, concepts: ConceptTable
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Per system the rank of the gold concept and, for those that may be silent, who was answered."""
    gold_cuis, texts = list(lists.mentions["cui"]), list(lists.mentions["mention"])
    frequency = StringFrequency.fit(zip(train_mentions["mention"], train_mentions["cui"], strict=True))

    def names_of(cui: str) -> list[str]:
        return concepts.names(int(concepts.rows([cui])[0]))

    systems: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        name: (gold_ranks(scores, lists.offsets, lists.gold), None) for name, scores in rankings.items()
    }
    systems |= {
        "retriever": (lists.gold, None),
    }
    answers = baseline_answers(texts, lists.lists_of_cuis(), names_of, frequency)
    del answers["retriever"]
    return systems | {name: answer_ranks(given, gold_cuis) for name, given in answers.items()}


def _mined_pairs(
    reranker: UMLSReranker, pairs: Dataset, mentions: Dataset, split: str, options: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    columns = [list(pairs[name]) for name in ("mention", "name", "left", "right")]
    logits = reranker.scorer.score(*columns, desc=f"scoring mined {split} pairs").logits
    documents = np.asarray(mentions["doc_id"])[pairs.with_format("numpy")["mention_id"][:]]
    labels = pairs.with_format("numpy")["label"][:].astype(np.int64)
    report = pair_report(sigmoid(logits), labels, documents, 0.5, **options)
    return _with_population(report, f"{len(labels):,} mined {split} pairs, raw probability >= 0.5")


def _with_population(report: dict[str, dict[str, Any]], population: str) -> dict[str, dict[str, Any]]:
    return {name: entry | {"population": population} for name, entry in report.items()}


def _subsets(
    lists: CandidateLists, systems: dict[str, tuple[np.ndarray, np.ndarray | None]], train_mentions: Dataset
) -> dict[str, dict[str, Any]]:
    """acc@1 of every system over in-dictionary mentions whose string, or concept, training has or has not seen."""
    strings = {normalize_name(text) for text in train_mentions["mention"]}
    cuis = set(train_mentions["cui"])
    seen_string = np.array([normalize_name(text) in strings for text in lists.mentions["mention"]])
    seen_cui = np.array([cui in cuis for cui in lists.mentions["cui"]])
    parts = {
        "seen_string": seen_string,
        "unseen_string": ~seen_string,
        "seen_cui": seen_cui,
        "unseen_cui": ~seen_cui,
    }
    result = {}
    for name, part in parts.items():
        inside = part & lists.in_dictionary
        count = int(inside.sum())
        accuracy = {
            system: float((ranks[inside] == 0).mean()) if count else None for system, (ranks, _) in systems.items()
        }
        result[name] = {"mentions": count, "share": count / max(1, int(lists.in_dictionary.sum())), "acc@1": accuracy}
    return result


def _calibration(
    raw: np.ndarray,
    calibrated: np.ndarray,
    labels: np.ndarray,
    pair_documents: np.ndarray,
    top: TopCandidates,
    documents: np.ndarray,
    options: dict[str, Any],
) -> dict[str, dict[str, float]]:
    before = calibration_report(raw, labels, pair_documents, **options)
    after = calibration_report(calibrated, labels, pair_documents, **options)
    scored = ~np.isnan(top.score)
    top_one = calibration_report(top.score[scored], top.correct[scored].astype(int), documents[scored], **options)
    report = {f"{name}_raw": entry for name, entry in before.items()} | after
    report |= {f"top1_{name}": entry for name, entry in top_one.items()}
    raw_ece = before["ece"]["value"]
    report["ece_reduction"] = {"value": 1.0 - after["ece"]["value"] / raw_ece if raw_ece else 0.0}
    return report


def _serving(
    top: TopCandidates,
    tiers: list[str],
    accepted: np.ndarray,
    documents: np.ndarray,
    population: str,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    values = {
        "high_confidence_share": np.array([tier == "high" for tier in tiers], np.float64),
        "accepted_share": accepted.astype(np.float64),
        "mean_top_score": np.nan_to_num(top.score, nan=0.0),
        "mean_margin": np.nan_to_num(top.margin, nan=0.0),
    }
    report = {}
    for name, column in values.items():
        low, high = bootstrap_by_document(column, documents, **options)
        report[name] = {"value": float(column.mean()), "low": low, "high": high, "population": population}
    precision = float(top.correct[accepted].mean()) if accepted.any() else float("nan")
    report["accepted_precision"] = {"value": precision, "population": f"{int(accepted.sum()):,} accepted mentions"}
    return report
