"""Outcomes of a model that does not exist, drawn by a seed, and a report of them."""

from typing import Any

import numpy as np

from umls_reranker.calibration.reliability import calibration_report
from umls_reranker.evaluation.curves import histogram, reliability_points, risk_coverage
from umls_reranker.evaluation.intervals import Documents
from umls_reranker.evaluation.metrics import SCHEMA_VERSION, measure_figures
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.evaluation.slices import measure_slices, mention_slices, worst_groups
from umls_reranker.evaluation.systems import System, compare_systems
from umls_reranker.vocab.types import TypeHierarchy


def make_outcomes(
    mentions: int = 400, seed: int = 0, per_document: int = 10, **columns
) -> Outcomes:
    """Perfectly calibrated answers; one mention in ten is out of the dictionary; columns may be
    given.
    """
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 1, mentions)
    known = rng.random(mentions) < 0.9
    right = rng.random(mentions) < score
    drawn = {
        "document": np.array([f"d{row // per_document}" for row in range(mentions)]),
        "mention_id": np.array([str(row) for row in range(mentions)]),
        "entity": np.full(mentions, "cold"),
        "start": np.arange(mentions) * 10,
        "end": np.arange(mentions) * 10 + 5,
        "types": [["T047"] if row % 4 else ["T121"] for row in range(mentions)],
        "gold": np.array([f"C{row:07d}" for row in range(mentions)]),
        "composite": np.zeros(mentions, bool),
        "in_dictionary": known | right,
        "answer": np.array([f"C{row:07d}" if hit else "C9999999" for row, hit in enumerate(right)]),
        "rank": np.where(right, 0, -1),
        "score": score,
        "margin": score / 2,
        "tier": np.where(score >= 0.9, "high", np.where(score >= 0.4, "medium", "reject")),
        "accepted": score >= 0.4,
        "decided_by": np.zeros(mentions, int),
    }
    return Outcomes(**drawn | columns)


# The least that a card is written from.
NO_FIGURES: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "split": "test",
    "mentions": 20,
    "documents": 4,
    "candidates": 80,
    "out_of_dictionary": 0,
    "figures": {},
    "rows": {},
    "verdict": "",
    "notes": [],
}


def make_metrics(
    outcomes: Outcomes, hierarchy: TypeHierarchy, resamples: int = 50
) -> dict[str, Any]:
    """A ``metrics.json`` as `measure` makes it, of the outcomes alone; other systems have the same
    answers.
    """
    options = {"resamples": resamples, "seed": 0}
    documents = Documents.of(outcomes.document, **options)
    top = outcomes.select(outcomes.has_candidates)
    of_scores = calibration_report(top.score, top.correct, top.document, **options)
    systems = {"lists_order": System(outcomes.rank), "reranker": System.of(outcomes)}
    mentions = [f"mention {row}" for row in range(len(outcomes))]
    slices = mention_slices(outcomes, mentions, hierarchy, [("mention 1", "C0000001")])
    of_slices, rows = measure_slices(outcomes, documents, slices)
    compared = compare_systems(systems, documents, outcomes.in_dictionary)
    over = {"n": len(outcomes), "population": f"mentions with {32 * len(outcomes):,} candidates"}
    figures = {
        key.removeprefix("systems/reranker/"): figure
        for key, figure in compared.items()
        if "reranker" in key
    }
    figures |= measure_figures(outcomes, documents)
    for affixes in ("{}_raw", "{}", "top1_{}"):
        figures |= {affixes.format(name): figure | over for name, figure in of_scores.items()}
    figures |= (
        worst_groups(of_slices, rows.get("groups", {}))
        | {"f1": {"value": 0.91}}
        | compared
        | of_slices
    )
    points = reliability_points(top.score, top.correct)
    return {
        "schema_version": SCHEMA_VERSION,
        "split": "test",
        "mentions": len(outcomes),
        "documents": documents.count,
        "candidates": 32 * len(outcomes),
        "out_of_dictionary": int((~outcomes.in_dictionary).sum()),
        "not_in_list": 47,
        "truncated_pairs": 0,
        "figures": figures,
        "rows": {"systems": {"lists_order": "original order", "reranker": "this model"}} | rows,
        "curves": {
            "reliability": {"raw": points, "calibrated": points, "top1": points},
            "risk_coverage": {"reranker": risk_coverage(outcomes.score, outcomes.correct)},
            "score": histogram(outcomes.score, outcomes.correct),
            "margin": histogram(outcomes.margin, outcomes.correct),
        },
        "verdict": "gain: +8.0 points over the original order (4.6–11.7)",
        "notes": ["a note"],
    }
