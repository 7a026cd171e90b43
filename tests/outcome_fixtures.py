"""Outcomes of a model that does not exist, drawn by a seed, and a report of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from umls_reranker.calibration.reliability import calibration_report
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.evaluation.charts import histogram, reliability_points, risk_coverage
from umls_reranker.evaluation.figures import (
    answering_metrics,
    group_slices,
    measure_figures,
    slice_figures,
    type_slices,
)
from umls_reranker.evaluation.linking import Documents, coverage_at_precision, linking_metrics, tier_metrics
from umls_reranker.evaluation.outcomes import Outcomes


def make_outcomes(mentions: int = 400, seed: int = 0, per_document: int = 10, **columns) -> Outcomes:
    """Perfectly calibrated answers; one mention in ten is out of the dictionary; columns may be given."""
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 1, mentions)
    known = rng.random(mentions) < 0.9
    right = rng.random(mentions) < score
    drawn = {
        "document": np.array([f"d{row // per_document}" for row in range(mentions)]),
        "start": np.arange(mentions) * 10,
        "end": np.arange(mentions) * 10 + 5,
        "types": [["T047"] if row % 4 else ["T121"] for row in range(mentions)],
        "gold": np.array([f"C{row:07d}" for row in range(mentions)]),
        "in_dictionary": known | right,
        "answer": np.array([f"C{row:07d}" if hit else "C9999999" for row, hit in enumerate(right)]),
        "rank": np.where(right, 0, -1),
        "score": score,
        "margin": score / 2,
        "tier": np.where(score >= 0.9, "high", np.where(score >= 0.4, "medium", "reject")),
        "accepted": score >= 0.4,
    }
    return Outcomes(**drawn | columns)


def make_report(outcomes: Outcomes, hierarchy: TypeHierarchy, resamples: int = 50) -> dict[str, Any]:
    """A ``metrics.json`` in the form of `build_report`, of the outcomes alone; other systems have the same figures."""
    options = {"resamples": resamples, "seed": 0}
    documents, top = Documents.of(outcomes.document, **options), outcomes.select(outcomes.has_candidates)
    of_scores = calibration_report(top.score, top.correct, top.document, **options)
    ranking = linking_metrics(outcomes.rank, outcomes.in_dictionary, documents)
    answers = linking_metrics(outcomes.rank, outcomes.in_dictionary, documents, answered=outcomes.accepted)
    slice_ = slice_figures(outcomes, documents, "test")
    curve = risk_coverage(outcomes.score, outcomes.correct)
    points = reliability_points(top.score, top.correct, top.document)
    pair = {name: of_scores["brier"] | {"population": "some pairs"} for name in ("f1", "roc_auc")}
    coverage = {"0.95": coverage_at_precision(outcomes.score, outcomes.correct, 0.95, documents)}
    one = of_scores["brier"]
    part = {"mentions": 10, "acc@1": {"reranker": 0.5, "retriever": None}}
    return {
        "schema_version": 2,
        "split": "test",
        "mentions": len(outcomes),
        "documents": documents.count,
        "in_dictionary": int(outcomes.in_dictionary.sum()),
        "candidates": 32 * len(outcomes),
        "pair": pair,
        "candidate_pair": pair,
        "linking": {"reranker": ranking, "retriever": ranking, "exact_match": answers},
        "gain_over_retriever": one,
        "subsets": {
            "seen_string": part | {"figures": slice_},
            "unseen_string": part | {"figures": None},
        },
        "coverage": {"reranker": coverage, "retriever": coverage},
        "calibration": {f"{name}_raw": entry for name, entry in of_scores.items()}
        | of_scores
        | {f"top1_{name}": entry for name, entry in of_scores.items()}
        | {"ece_reduction": one},
        "tiers": tier_metrics(outcomes.tier, outcomes.correct, documents),
        "answering": answering_metrics(outcomes, documents),
        "serving": measure_figures("serving", outcomes, documents, "test"),
        "groups": group_slices(outcomes, documents, hierarchy, "test"),
        "types": type_slices(outcomes, documents, hierarchy, "test"),
        "curves": {
            "reliability": {"raw": points, "calibrated": points, "top1": points},
            "risk_coverage": {"reranker": curve, "retriever": curve},
            "score": histogram(outcomes.score, outcomes.correct),
            "margin": histogram(outcomes.margin, outcomes.correct),
        },
        "scored": {
            "candidates": 12 * len(outcomes),
            "share": 0.375,
            "same_top_candidate": 0.9987,
            "acc@1": {"pruned": 0.7012, "exhaustive": 0.7013},
            "high_share": {"pruned": 0.4102, "exhaustive": 0.4101},
        },
        "incorrect_types": {"0.00": slice_ | {"replaced": 0}, "0.10": slice_ | {"replaced": 7}},
        "losses": {"out_of_dictionary": 40, "not_retrieved": 7, "truncated_pairs": 0},
    }
